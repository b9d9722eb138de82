"""What ``flower-ist evaluate`` calls: labeled images -> tokens under several mask ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.images.prefetch import prefetch
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from data_prep.patches.read import check_mask_fits
from data_prep.progress import image_progress
from data_prep.shards.encode import Batch
from data_prep.sources.open import read_source
from data_prep.stream.tokens import open_encoding
from flower_ist.console import terminal
from flower_ist.tokens.recipe import Recipe

Example = tuple[dict[float, NDArray[np.float32]], NDArray[np.int64], list[str]]
"""Mask ratio -> tokens (n, D), labels (n,), and n owners, or none if they are unknown."""


def labeled_tokens(
    recipe: Recipe,
    class_names: Sequence[str],
    source: str,
    *,
    split: str = "test",
    mask_ratios: str = "none",
    tell: Callable[[str], object] = lambda sentence: None,
    on_error: str = "stop",
    encoder: str = "",
    weights: str = "",
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 2,
) -> Iterator[Example]:
    """Yield batches of labeled images as tokens, under the recipe's own mask ratio first.

    Image ids are prep's, and so are the masks: under its own ratio an image has the token that it
    has in a shard, but for the rounding.

    Args:
        recipe: How the model's tokens were made.
        class_names: Of the model; images of other classes are refused.
        source: As prep's.
        split: ``test`` or ``train``, where the source publishes both.
        mask_ratios: More ratios, with commas between them; ``none`` for none.
        tell: Takes a sentence for each image that was skipped.
        on_error: ``stop`` or ``skip``.
        encoder: As prep's, where it is not the embedded one.
        weights: As prep's.
        device: Of the encoder.
        batch_size: Images encoded at once.
        workers: Threads that decode ahead.

    Raises:
        PrepError: the encoder, the ratios or the images cannot be used.
    """
    encoding = open_encoding(recipe, encoder, weights, device=device)
    mask = encoding.mask
    masks = {mask.ratio: mask}
    for ratio in _ratios(mask_ratios):
        masks[ratio] = make_mask(mask.kind, ratio, mask.seed, mask.patches)
    data = read_source(
        source,
        split,
        on_error,
        classes=class_names,
        workers=workers,
        reading=encoding.reading,
    )
    for sentence in (*data.left_out, *(unusual.sentence() for unusual in data.unusual)):
        tell(sentence)
    for sentence in data.skipped:
        tell(f"Skipped: {sentence}")
    record = encoding.encoder.record
    check_mask_fits(data, mask, record.image_size, record.patch_size)
    if data.mask is not None:  # what was dropped already cannot be kept
        masks = {mask.ratio: mask}

    def prepare(rows: NDArray[np.intp]) -> tuple[ImageSet, Batch]:
        part = data.take(rows)
        return part, encoding.prepare(part)

    order = np.arange(len(data))
    parts = (order[start : start + batch_size] for start in range(0, len(data), batch_size))
    with (
        image_progress(terminal(stderr=True), "Encoding images", len(data)) as advance,
        closing(prefetch(prepare, parts, workers)) as prepared,
    ):
        for part, batch in prepared:
            tokens = {
                ratio: encoding.encoder.encode(batch.pixels, draw_mask(each, part.image_ids))
                for ratio, each in masks.items()
            }
            yield tokens, part.labels, [] if part.owners is None else part.owners.tolist()
            advance(len(part))


def _ratios(text: str) -> list[float]:
    if text.strip() in ("", "none"):
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PrepError(
            f"The mask ratios {text!r} cannot be read: write them as 0,0.5 or none."
        ) from None
