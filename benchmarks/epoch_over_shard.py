"""One epoch over a token shard in random batches, against the authors' loader.

Their loader keeps 50 tokens in each ``.pt`` file and opens a file for every single item. Here both
hold the same float32 tokens, both are read in the same random order, and every batch is converted
to two tensors. For both, data read before are in the machine's cache.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from timing import in_turns, speed_up

from flower_ist.tokens.shard import Encoder, Mask, ShardMeta, TokenShard, open_shard
from flower_ist.tokens.writer import ShardWriter

FILE_ROWS = 50
CLASSES = 10


def main(rows: int = 5000, dim: int = 768, batch: int = 64, repeats: int = 3) -> None:
    """Print one table: seconds an epoch in both ways, and the speed-up."""
    order = np.random.default_rng(0).permutation(rows)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        shard = _write(Path(folder) / "shard", files, rows, dim)
        ways = {
            "shard": partial(_over_shard, shard, order, batch),
            "files": partial(_over_files, files, order, batch),
        }
        if ways["shard"]() != ways["files"]():
            raise SystemExit("The two ways must read the same tokens.")
        seconds = in_turns(ways, repeats)
    print(f"{rows} tokens of {dim} float32 numbers, batches of {batch}, median of {repeats}")
    print(f"a .pt file holds {FILE_ROWS} of them and is opened for every item")
    print("| one epoch | seconds | times |")
    print("|---|---|---|")
    print(f"| .pt files | {median(seconds['files']):.3f} | 1 |")
    gain = speed_up(seconds, "shard", "files")
    print(f"| a shard, memory-mapped | {median(seconds['shard']):.4f} | {gain:.0f} |")


def _write(folder: Path, files: Path, rows: int, dim: int) -> TokenShard:
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((rows, dim), np.float32)
    labels = rng.integers(0, CLASSES, rows)
    meta = ShardMeta(
        num_examples=rows,
        dim=dim,
        class_names=tuple(map(str, range(CLASSES))),
        encoder=Encoder("none", "", 224, 16),
        mask=Mask("random", 0.5, 0, 196, 98),
        image_bytes=0,
        image_file_bytes=0,
        masked_image_bytes=0,
        token_dtype="float32",
    )
    with ShardWriter(folder, meta) as writer:
        writer.append(tokens, labels, np.arange(rows))
    files.mkdir()
    for start in range(0, rows, FILE_ROWS):
        part = slice(start, start + FILE_ROWS)
        content = {"tokens": torch.tensor(tokens[part]), "labels": torch.tensor(labels[part])}
        torch.save(content, files / f"{start // FILE_ROWS}.pt")
    return open_shard(folder)


def _over_shard(shard: TokenShard, order: NDArray[np.int64], batch: int) -> float:
    total = 0.0
    for start in range(0, len(order), batch):
        tokens, labels = map(torch.from_numpy, shard.batch(order[start : start + batch]))
        total += float(tokens[0, 0]) + int(labels[-1])
    return total


def _over_files(files: Path, order: NDArray[np.int64], batch: int) -> float:
    total = 0.0
    for start in range(0, len(order), batch):
        items = [_item(files, int(row)) for row in order[start : start + batch]]
        tokens = torch.stack([token for token, _ in items])
        labels = torch.stack([label for _, label in items])
        total += float(tokens[0, 0]) + int(labels[-1])
    return total


def _item(files: Path, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    content = torch.load(files / f"{row // FILE_ROWS}.pt", weights_only=True)
    return content["tokens"][row % FILE_ROWS], content["labels"][row % FILE_ROWS]


if __name__ == "__main__":
    typer.run(main)
