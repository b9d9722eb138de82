"""A file with a ViT of 4 x 4 patches of 4 pixels, or of another size, and 16 numbers a token."""

from pathlib import Path

import torch

from data_prep.encoders.checkpoints import write_encoder
from data_prep.encoders.vit import build_vit

KWARGS = {"embed_dim": 16, "depth": 1, "num_heads": 2}


def tiny_encoder(folder: Path, image_size: int = 16, patch_size: int = 4) -> Path:
    kwargs = {"patch_size": patch_size, **KWARGS}
    model = build_vit("vit_tiny_patch16_224", image_size, seed=1, **kwargs)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    description = {
        "timm": "vit_tiny_patch16_224",
        "kwargs": {"img_size": image_size, **kwargs},
        "normalisation": "half",
        "label": "tiny",
    }
    file = folder / "tiny.safetensors"
    write_encoder(file, model, description, dtype="float32")
    return file
