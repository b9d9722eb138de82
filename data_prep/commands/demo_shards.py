"""The demo tokens inside ``flower_ist``: 4,000 training and 2,000 test images of Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import Progress

from data_prep.images.image_set import ImageSet
from data_prep.shards.encode import Encoding
from data_prep.sources.open import read_fashion_mnist
from data_prep.splits.rows import balanced_parts, first_of_each_class
from flower_ist.tokens.meta import ShardMeta
from flower_ist.tokens.shard import TokenShard
from flower_ist.tokens.writer import quantize_rows, write_text

PARTS = {"train": 4, "test": 2}
"""Text files a split; each stays below 1 MB, the largest file a Flower app bundle may carry."""
PER_CLASS = {"train": 400, "test": 200}


def write_demo_tokens(folder: Path, out: Path, encoding: Encoding) -> list[Path]:
    """Encode the first images of each class of Fashion-MNIST into int8 text shards.

    Every file holds 1,000 images, as many of each class, in a random order drawn from the seed. The
    same encoding on the same machine gives the same files.

    Args:
        folder: Holds Fashion-MNIST's idx files.
        out: Gets ``train-0.json`` ... ``train-3.json``, ``test-0.json`` and ``test-1.json``.
        encoding: Encoder and mask; its token type must be int8.

    Returns:
        The files written.

    Raises:
        PrepError: the images cannot be used.
        ShardError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with Progress() as progress:
        for split, parts in PARTS.items():
            data = read_fashion_mnist(folder, split)
            count = PER_CLASS[split]
            chosen = first_of_each_class(data.labels, count, len(data.class_names))
            source = f"{data.source} (MIT), first {count} of each class of the {split} set"
            for part, rows in enumerate(balanced_parts(chosen, parts, encoding.mask.seed)):
                name = f"{split}-{part}"
                task = progress.add_task(f"Encoding {name}", total=len(rows))
                images = data.take(rows)
                tokens = []
                for batch in encoding.batches(images):
                    tokens.append(batch)
                    progress.advance(task, len(batch))
                meta = encoding.meta(images, f"demo-{name}", source=source)
                write_text(_in_memory(meta, np.concatenate(tokens), images), out / f"{name}.json")
                written.append(out / f"{name}.json")
    return written


def _in_memory(meta: ShardMeta, tokens: np.ndarray, data: ImageSet) -> TokenShard:
    quantized, scales = quantize_rows(tokens)
    return TokenShard(
        meta=meta,
        tokens=quantized,
        labels=data.labels.astype(np.int32),
        image_ids=data.image_ids,
        scales=scales,
    )
