"""What ``flower-ist predict`` calls: images by their names -> tokens of a model's recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.progress import image_progress
from data_prep.stream.paths import batches, count_images, image_paths, watched_batches
from data_prep.stream.tokens import open_encoding, stream_tokens
from flower_ist.console import terminal
from flower_ist.tokens.recipe import Recipe


def image_tokens(
    recipe: Recipe,
    images: Sequence[str],
    watch: Path | None = None,
    *,
    encoder: str = "",
    weights: str = "",
    views: int = 1,
    mask_ratio: float | None = None,
    on_error: str = "stop",
    tell: Callable[[str], object] = lambda sentence: None,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 2,
    show_bar: bool = False,
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield batches of paths and their tokens (n, V, D), V views an image.

    Args:
        recipe: How the model's tokens were made.
        images: As :func:`data_prep.stream.paths.image_paths` takes them.
        watch: Instead of ``images``, a folder whose new files are taken without an end.
        encoder: As prep's, where it is not the embedded one.
        weights: As prep's.
        views: Masks of each image.
        mask_ratio: Share of patches dropped, where it is not the recipe's.
        on_error: ``stop`` or ``skip``.
        tell: Takes a sentence for each image that was skipped.
        device: Of the encoder.
        batch_size: Images encoded at once.
        workers: Threads that decode ahead; none where a folder is watched.
        show_bar: Show progress on standard error, if that is a terminal.

    Raises:
        PrepError: the encoder, a path or an image cannot be used.
    """
    encoding = open_encoding(
        recipe,
        encoder,
        weights,
        device=device,
        mask_ratio=mask_ratio,
    )
    stream = partial(stream_tokens, encoding, views=views, on_error=on_error, tell=tell)
    if watch is not None:
        # An image must not wait for the next ones to be taken.
        yield from stream(watched_batches(watch, batch_size), workers=0)
        return
    console = terminal(stderr=True, quiet=not (show_bar and sys.stderr.isatty()))
    found = batches(image_paths(images, sys.stdin), batch_size)
    with (
        image_progress(console, "Classifying images", count_images(images)) as advance,
        closing(stream(found, workers=workers)) as tokens,
    ):
        for batch in tokens:
            yield batch
            advance(len(batch[0]))
