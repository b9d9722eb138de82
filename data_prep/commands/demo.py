"""The command ``demo-tokens``, which makes the files that the Flower app carries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.commands.common import console, describe_shard, errors_as_sentences


def demo_tokens(
    fashion_mnist: Annotated[Path, typer.Argument(help="Folder with Fashion-MNIST's idx files.")],
    out: Annotated[Path, typer.Option(help="Folder for train-0.json ... test-1.json.")],
    encoder: Annotated[str, typer.Option(help="As prep's.")] = "embedded",
    weights: Annotated[str, typer.Option(help="As prep's.")] = "",
    image_size: Annotated[int | None, typer.Option(help="As prep's.")] = None,
    mask_ratio: Annotated[float, typer.Option(help="Share of patches dropped.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the masks, the order and random weights.")] = 0,
) -> None:
    """Make the demo tokens that the Flower app carries: int8 text shards of Fashion-MNIST.

    FASHION_MNIST is a folder with the data set's four published idx files.
    """
    with errors_as_sentences():
        from data_prep.commands.demo_shards import write_demo_tokens
        from data_prep.encoders.open import open_encoder
        from data_prep.shards.encode import Encoding

        opened = open_encoder(encoder, weights, image_size=image_size, seed=seed)
        encoding = Encoding(opened, mask_ratio=mask_ratio, seed=seed, token_dtype="int8")
        for file in write_demo_tokens(fashion_mnist, out, encoding):
            console.print(describe_shard(file), highlight=False)
