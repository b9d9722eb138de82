"""Models of many kinds, each with an example input, on which derive_axes is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quickstart.task import Net
from data_prep.encoders.torchvision_guard import guard_torchvision
from flower_ist.modules.fit import fit

guard_torchvision()

import timm  # noqa: E402 - after the guard
import torchvision  # noqa: E402

Built = tuple[nn.Module, Any]


class TextClassifier(nn.Module):
    """An embedding, a recurrent layer or the mean over words, a linear layer."""

    def __init__(
        self, kind: str = "mean", words: int = 40, dim: int = 24, hidden: int = 32
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim)
        self.rnn = None if kind == "mean" else getattr(nn, kind)(dim, hidden, batch_first=True)
        self.fc = nn.Linear(dim if self.rnn is None else hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, words) -> (N, 4)."""
        x = self.embedding(x)
        x = x.mean(1) if self.rnn is None else self.rnn(x)[0][:, -1]
        logits: Tensor = self.fc(x)
        return logits


class UNet(nn.Module):
    """Down, up again, and the features from before beside those from below."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1 = self._block(3, width)
        self.down2 = self._block(width, 2 * width)
        self.bottom = self._block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.side2 = self._block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.side1 = self._block(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) -> (N, 2, size, size)."""
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        x = self.bottom(functional.max_pool2d(two, 2))
        x = self.side2(torch.cat([two, self.up2(x)], 1))
        x = self.side1(torch.cat([one, self.up1(x)], 1))
        places: Tensor = self.out(x)
        return places


class LowRank(nn.Module):
    """A frozen linear layer and a trained product of two narrow matrices beside it (LoRA)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float = 16.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scaling = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        low: Tensor = self.base(x) + (x @ self.a.T) @ self.b.T * self.scaling
        return low


def with_low_rank(model: nn.Module, rank: int, names: tuple[str, ...]) -> nn.Module:
    """Freeze a model but for its head, and put a :class:`LowRank` around some linear layers."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head."))
    for path, module in list(model.named_modules()):
        if path.endswith(names) and isinstance(module, nn.Linear):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, LowRank(module, rank))
    return model


def transformer(dim: int = 64, heads: int = 8) -> nn.Module:
    """PyTorch's own encoder in front of a classifier."""
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(7 * dim, 10))


def narrow_resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with 16 to 40 channels in the place of 64 to 512."""
    model: nn.Module = torchvision.models.resnet18(num_classes=10)
    narrow = {64: 16, 128: 24, 256: 32, 512: 40}
    state = {
        name: tensor[tuple(slice(narrow.get(n, n)) for n in tensor.shape)]
        if tensor.dim()
        else tensor
        for name, tensor in model.state_dict().items()
    }
    return fit(model, state)


def narrow_vit(heads: int = 8, depth: int = 2) -> nn.Module:
    """Return timm's ViT for 16 patches of 4 x 4, each head eight wide."""
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        embed_dim=8 * heads,
        depth=depth,
        num_heads=heads,
        num_classes=10,
    )
    return model


def image(size: int) -> Tensor:
    """Two images."""
    return torch.randn(2, 3, size, size)


def words() -> Tensor:
    """Three sentences."""
    return torch.randint(0, 40, (3, 7))


def _vit(size: int = 32) -> nn.Module:
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=size, num_classes=10)
    return model


def _swin() -> nn.Module:
    model: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, num_classes=10
    )
    return model


# What the table of docs/your-own-model.md is made of: the libraries' own models, full width.
FULL_SIZE: dict[str, Callable[[], Built]] = {
    "quickstart CNN": lambda: (Net(3, 32), image(32)),
    "torchvision ResNet-18": lambda: (torchvision.models.resnet18(num_classes=10), image(32)),
    "torchvision MobileNetV3-small": lambda: (
        torchvision.models.mobilenet_v3_small(num_classes=10),
        image(32),
    ),
    "torchvision EfficientNet-B0": lambda: (
        torchvision.models.efficientnet_b0(num_classes=10),
        image(32),
    ),
    "torchvision DenseNet-121": lambda: (torchvision.models.densenet121(num_classes=10), image(32)),
    "torchvision ShuffleNetV2": lambda: (
        torchvision.models.shufflenet_v2_x1_0(num_classes=10),
        image(32),
    ),
    "torchvision ConvNeXt-tiny": lambda: (
        torchvision.models.convnext_tiny(num_classes=10),
        image(32),
    ),
    "timm ViT-tiny": lambda: (_vit(), image(32)),
    "timm Swin-tiny": lambda: (_swin(), image(56)),
    "ResNet-18, 224 px": lambda: (torchvision.models.resnet18(num_classes=10), image(224)),
    "ViT-tiny, 224 px": lambda: (_vit(224), image(224)),
    "nn.LSTM classifier": lambda: (TextClassifier("LSTM"), words()),
    "nn.GRU classifier": lambda: (TextClassifier("GRU"), words()),
    "nn.TransformerEncoder": lambda: (transformer(), torch.randn(2, 7, 64)),
    "U-Net": lambda: (UNet(), image(32)),
    "LoRA on timm ViT-tiny": lambda: (with_low_rank(_vit(), 16, ("qkv", "fc1")), image(32)),
    "Embedding classifier": lambda: (TextClassifier(), words()),
}
