"""Shards for tests: three tokens and ways to spoil them, and blobs of any number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flower_ist.tokens.meta import Encoder, Mask, ShardMeta
from flower_ist.tokens.shard import array_sha256
from flower_ist.tokens.writer import ShardWriter

TOKENS = np.array([[127.0, -63.5, 0.0], [0.5, 0.25, -1.0], [0.0, 0.0, 0.0]], dtype=np.float32)
LABELS = np.array([0, 1, 1])
IDS = np.array([7, 5, 2**40])
BLOB_CLASSES = ("circle", "square", "star")
BLOB_DIM = 12


def make_meta(**changes: Any) -> ShardMeta:
    meta = ShardMeta(
        num_examples=3,
        dim=3,
        class_names=("cat", "dog"),
        encoder=Encoder(name="vit", weights_sha256="00", image_size=28, patch_size=14),
        mask=Mask(kind="random", ratio=0.5, seed=3, patches=4, kept=2),
        image_bytes=3 * 784,
        image_file_bytes=3 * 784,
        masked_image_bytes=3 * 392,
        client="client-0",
    )
    return replace(meta, **changes)


def write_small(folder: Path, token_dtype: str = "int8") -> Path:
    """Write the three tokens as ``folder/shard``."""
    with ShardWriter(folder / "shard", make_meta(token_dtype=token_dtype)) as writer:
        writer.append(TOKENS[:2], LABELS[:2], IDS[:2])
        writer.append(TOKENS[2:], LABELS[2:], IDS[2:])
    return folder / "shard"


def edit_meta(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "meta.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def replace_array(folder: Path, name: str, array: np.ndarray) -> None:
    """Write another array with a matching hash: only its content can give it away."""
    np.save(folder / f"{name}.npy", array)
    edit_meta(folder, lambda meta: meta["sha256"].update({name: array_sha256(array)}))


def write_blobs(
    folder: Path,
    name: str,
    count: int,
    *,
    seed: int,
    dtype: str = "float16",
    shares: Sequence[float] | None = None,
) -> Path:
    """Write a shard of three Gaussian blobs (N, 12) that a linear probe separates mostly.

    ``shares`` of the classes, equal if None, are what labels are drawn with.
    """
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(len(BLOB_CLASSES), BLOB_DIM))
    if shares is None:
        labels = generator.integers(0, len(BLOB_CLASSES), count)
    else:
        labels = generator.choice(len(BLOB_CLASSES), count, p=shares)
    tokens = centers[labels] + generator.normal(size=(count, BLOB_DIM))
    meta = ShardMeta(
        num_examples=count,
        dim=BLOB_DIM,
        class_names=BLOB_CLASSES,
        encoder=Encoder(name="blobs", weights_sha256="0" * 64, image_size=8, patch_size=2),
        mask=Mask(kind="random", ratio=0.5, seed=0, patches=16, kept=8),
        image_bytes=64 * count,
        image_file_bytes=70 * count,
        masked_image_bytes=32 * count,
        token_dtype=dtype,
        client=name,
    )
    with ShardWriter(folder / name, meta) as writer:
        writer.append(tokens, labels, np.arange(count))
    return folder / name
