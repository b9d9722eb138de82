"""The models of benchmarks/zoo.py, so narrow that each is traced and proven in a second."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.zoo import (
    Built,
    Net,
    TextClassifier,
    UNet,
    image,
    narrow_resnet18,
    narrow_vit,
    timm,
    torchvision,
    transformer,
    with_low_rank,
    words,
)


def efficientnet() -> nn.Module:
    config = torchvision.models.efficientnet.MBConvConfig
    return torchvision.models.EfficientNet(
        [config(1, 3, 1, 16, 16, 1), config(4, 3, 2, 16, 24, 2), config(4, 5, 2, 24, 32, 1)],
        dropout=0.2,
        num_classes=10,
        last_channel=48,
    )


def convnext() -> nn.Module:
    config = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([config(16, 24, 2), config(24, None, 1)], num_classes=10)


def shufflenet() -> nn.Module:
    return torchvision.models.ShuffleNetV2([2, 2, 2], [16, 32, 48, 64, 80], num_classes=10)


def densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 3, 2), 16, bn_size=2, num_classes=10)


def swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=28,
        patch_size=2,
        window_size=7,
        embed_dim=32,
        depths=(2, 2),
        num_heads=(8, 8),
        num_classes=10,
    )


NARROW: dict[str, Callable[[], Built]] = {
    "quickstart CNN": lambda: (Net(3, 32), image(32)),
    "ResNet-18": lambda: (narrow_resnet18(), image(32)),
    "MobileNetV3-small": lambda: (
        torchvision.models.mobilenet_v3_small(num_classes=10, width_mult=0.25),
        image(32),
    ),
    "EfficientNet": lambda: (efficientnet(), image(32)),
    "DenseNet": lambda: (densenet(), image(32)),
    "ShuffleNetV2": lambda: (shufflenet(), image(64)),
    "ConvNeXt": lambda: (convnext(), image(32)),
    "ViT": lambda: (narrow_vit(), image(16)),
    "Swin": lambda: (swin(), image(28)),
    "LSTM": lambda: (TextClassifier("LSTM"), words()),
    "GRU": lambda: (TextClassifier("GRU"), words()),
    "TransformerEncoder": lambda: (transformer(32, 8), torch.randn(2, 7, 32)),
    "U-Net": lambda: (UNet(8), image(16)),
    "LoRA on a ViT": lambda: (with_low_rank(narrow_vit(), 16, ("qkv", "fc1")), image(16)),
    "Embedding classifier": lambda: (TextClassifier(), words()),
}
