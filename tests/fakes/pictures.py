"""Folders of real image files in class folders, and a run's folder with a model of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from data_prep.shards.prep import PrepSettings, prep
from flower_ist.classifier.mlp import initial_weights
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.meta import encoder_settings
from flower_ist.tokens.recipe import Recipe
from flower_ist.tokens.shard import open_shard
from tests.fakes.tiny_encoder import tiny_encoder

COLORS = {"blue": (30, 40, 200), "green": (30, 190, 60), "red": (210, 30, 40)}


def write_pictures(folder: Path, count: int, *, size: int = 20, seed: int = 0) -> Path:
    """Write ``count`` noisy PNGs of each color into a folder of its name."""
    generator = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(color) + generator.normal(0, 12, (size, size + 3, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{number}.png")
    return folder


@dataclass(frozen=True)
class PictureRun:
    """Pictures, their shards, the encoder of these, and the folder of a run on them."""

    pictures: Path
    shards: Path
    encoder: Path
    run: Path


def picture_run(folder: Path, **settings: object) -> PictureRun:
    """Prepare 3 x 20 pictures with the tiny encoder, and save a ridge head with a random net."""
    pictures = write_pictures(folder / "pictures", 20)
    encoder = tiny_encoder(folder)
    shards = folder / "shards"
    prep(PrepSettings(str(pictures), shards, encoder=str(encoder), clients=2, **settings))
    write_model(folder / "run", shards)
    return PictureRun(pictures, shards, encoder, folder / "run")


def write_model(run: Path, shards: Path, hidden: int = 8) -> None:
    """Write a ``model.safetensors`` of a fixed head and an untrained net, as a run does."""
    test = open_shard(shards / "test")
    meta = test.meta
    sums = Statistics.empty(meta.num_classes, meta.dim, gram=True)
    for part in sorted(shards.glob("client-*")):
        sums.add_tokens(*open_shard(part).batch(slice(None)))
    head = ridge_head(RidgePath.of(sums).solve(1e-4))
    tensors = initial_weights([meta.dim, hidden, meta.num_classes], 0)
    tensors |= {"skip.weight": 4 * head["fc1.weight"], "skip.bias": 4 * head["fc1.bias"]}
    run.mkdir()
    header = {
        "format": "flower-ist-mlp",
        "class_names": json.dumps(meta.class_names),
        "encoder": meta.encoder.name,
        "encoder_sha256": meta.encoder.weights_sha256,
        "encoder_settings": encoder_settings(meta.encoder),
        "recipe": json.dumps(Recipe.of(meta).to_json()),
    }
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(arrays, run / "model.safetensors", header)
