"""Tiny stand-ins for what data_prep reads: a ViT and Fashion-MNIST's files."""

import gzip
import struct

import numpy as np
import pytest
import torch

from data_prep.encoders.torchvision_guard import guard_torchvision

guard_torchvision()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402


def idx_bytes(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny_vit():
    """A random ViT of 4 x 4 patches with every parameter away from its initial zero."""

    def build(**options):
        torch.manual_seed(0)
        size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
        model = VisionTransformer(**{"num_classes": 0, "global_pool": "token"} | size | options)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return build


@pytest.fixture
def fashion_folder(tmp_path):
    """40 training and 20 test images of 8 x 8 pixels, classes in turn, one file not gzipped."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = rng.integers(0, 256, (count, 8, 8)) // 2 + 12 * labels[:, None, None]
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder
