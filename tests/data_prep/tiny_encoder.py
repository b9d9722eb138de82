"""A file with a ViT of 4 x 4 patches of 4 pixels and 16 numbers a token."""

from pathlib import Path

import torch

from data_prep.checkpoints import write_encoder
from data_prep.encoders import build_vit

KWARGS = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


def tiny_encoder(folder: Path) -> Path:
    model = build_vit("vit_tiny_patch16_224", 16, seed=1, **KWARGS)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    description = {
        "timm": "vit_tiny_patch16_224",
        "kwargs": {"img_size": 16, **KWARGS},
        "normalisation": "half",
        "label": "tiny",
    }
    file = folder / "tiny.safetensors"
    write_encoder(file, model, description, dtype="float32")
    return file
