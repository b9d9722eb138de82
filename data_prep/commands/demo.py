"""The command ``demo-tokens``: the shards in ``flower_ist``, 6,000 images of Fashion-MNIST.

They are 4,000 training and 2,000 test images, 1,000 a file, as many of each class in every file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.commands.common import console
from flower_ist.console import print_text

if TYPE_CHECKING:
    from data_prep.shards.encode import Encoding
    from flower_ist.tokens.shard import TokenShard

PARTS = {"train": 4, "test": 2}
"""Text files per split; each stays below 1 MB, the largest file a Flower app bundle may carry."""
PER_CLASS = {"train": 400, "test": 200}


def demo_tokens(
    fashion_mnist: Annotated[Path, typer.Argument(help="Folder with Fashion-MNIST's idx files.")],
    out: Annotated[Path, typer.Option(help="Folder for train-0.json ... test-1.json.")],
    encoder: Annotated[str, typer.Option(help="As prep's.")] = "embedded",
    weights: Annotated[str, typer.Option(help="As prep's.")] = "",
    image_size: Annotated[int | None, typer.Option(help="As prep's.")] = None,
    mask_ratio: Annotated[float, typer.Option(help="Share of patches dropped.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the masks, the order and random weights.")] = 0,
) -> None:
    """Make the demo tokens that the Flower app carries: int8 text shards of Fashion-MNIST.

    FASHION_MNIST is a folder with the data set's four published idx files.
    """
    from data_prep.encoders.open import open_encoder
    from data_prep.encoders.settings import EncoderSettings
    from data_prep.shards.encode import Encoding
    from flower_ist.files import make_folder
    from flower_ist.tokens.writer import write_text

    settings = EncoderSettings(encoder=encoder, weights=weights, image_size=image_size)
    opened = open_encoder(settings, seed)
    encoding = Encoding(opened, mask_ratio=mask_ratio, seed=seed, token_dtype="int8")
    make_folder(out)
    for split in PARTS:
        for name, shard in _encode(fashion_mnist, split, encoding):
            write_text(shard, out / f"{name}.json")
            meta = shard.meta
            print_text(
                console,
                f"{out / name}.json: {meta.num_examples} tokens of {meta.dim} "
                f"{meta.token_dtype}, {meta.mask.kept} of {meta.mask.patches} patches kept",
            )


def _encode(folder: Path, split: str, encoding: Encoding) -> Iterator[tuple[str, TokenShard]]:
    """Yield the names and shards of a split: the first images of each class, in a random order.

    The same encoding on the same machine gives the same shards.
    """
    import numpy as np

    from data_prep.progress import image_progress
    from data_prep.sources.arrays import FashionMnistSource
    from data_prep.splits.rows import balanced_parts, first_of_each_class
    from flower_ist.tokens.shard import TokenShard
    from flower_ist.tokens.writer import quantize_rows

    data = FashionMnistSource(folder).read(split)
    count = PER_CLASS[split]
    chosen = first_of_each_class(data.labels, count, len(data.class_names))
    source = f"{data.source} (MIT), first {count} of each class of the {split} set"
    for part, rows in enumerate(balanced_parts(chosen, PARTS[split], encoding.mask.seed)):
        name, images, tokens = f"{split}-{part}", data.take(rows), []
        with image_progress(console, f"Encoding {name}", len(rows)) as advance:
            for batch in encoding.batches(images):
                tokens.append(batch)
                advance(len(batch))
        stored, scales = quantize_rows(np.concatenate(tokens))
        yield (
            name,
            TokenShard(
                meta=encoding.meta(images, f"demo-{name}", source=source),
                tokens=stored,
                labels=images.labels.astype(np.int32),
                image_ids=images.image_ids,
                scales=scales,
            ),
        )
