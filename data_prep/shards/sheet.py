"""A picture of a shard's images beside their masks, which are drawn again from the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.images.pixels import masked_pixels
from data_prep.masks.draw import draw_mask, square_grid
from data_prep.masks.kinds import Grid
from flower_ist.console import shortened
from flower_ist.figure import new_figure, plain_texts, to_png
from flower_ist.files import write_file
from flower_ist.tokens.meta import Mask
from flower_ist.tokens.shard import TokenShard

_DROPPED = np.array([183, 202, 226], dtype=np.uint8)
"""The color of dropped patches: no gray image has it, and black is too common."""
_MOST_VIEWS = 4
_PANELS_ACROSS = 8
_LONGEST_NAME = 26


def draw_sheet(shard: TokenShard, data: ImageSet, file: Path, count: int = 16) -> Path:
    """Draw some images of a shard, each as it is and under the masks of its first views.

    The images are taken at even distances in the shard and found in ``data`` by their ids. Where
    ``data`` holds masked images, what was dropped there is dropped on both sides.

    Args:
        shard: The shard whose masks are drawn.
        data: The images that it was made of, in any order; more of them do no harm.
        file: A PNG; replaced if it exists.
        count: The most images drawn, at least 1.

    Raises:
        PrepError: the source lacks an image, has another label for it or was masked otherwise, the
            count is below 1, or the picture cannot be written.
    """
    if count < 1:
        raise PrepError(f"A sheet needs at least 1 image, not {count}.")
    mask = shard.meta.mask
    if data.mask is not None and _drawing(data.mask) != _drawing(mask):
        raise PrepError(
            f"{data.source} holds images masked by {_drawing(data.mask)}, but the shard was masked "
            f"by {_drawing(mask)}: give the source that the shard was made of."
        )
    images = len(shard) // mask.views
    chosen = np.unique(np.linspace(0, images - 1, min(count, images)).round().astype(np.intp))
    examples = chosen * mask.views
    classes = np.array(shard.meta.class_names)[shard.labels[examples]]
    rows = data.find(shard.image_ids[examples], classes)
    grid = square_grid(mask)
    epochs = range(min(mask.views, _MOST_VIEWS))
    figure_rows = [_panels(data, row, mask, grid, epochs) for row in rows]
    titles = [data.class_names[label] for label in data.labels[rows]]
    with plain_texts():
        write_file(file, to_png(_figure(figure_rows, titles, _caption(shard, len(rows)))))
    return file


def shown_pixels(
    pixels: NDArray[np.uint8], grid: Grid, kept: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return an image (H, W, C) as RGB (H, W, 3) with its dropped patches in a color.

    Args:
        pixels: C = 1 or 3.
        grid: Rows and columns of patches.
        kept: (k,) patches that are shown, in row order.
    """
    left = masked_pixels(np.ones((1, *pixels.shape[:2], 1), dtype=np.uint8), grid, kept[None])[0]
    return np.where(left == 1, pixels, _DROPPED)


def _panels(
    data: ImageSet, row: np.intp, mask: Mask, grid: Grid, epochs: range
) -> list[NDArray[np.uint8]]:
    image = data.take(np.array([row]))
    pixels = image.native_pixels()[0]
    kept = [draw_mask(mask, image.image_ids, epoch)[0] for epoch in epochs]
    return [
        np.broadcast_to(pixels, (*pixels.shape[:2], 3)),
        *(shown_pixels(pixels, grid, k) for k in kept),
    ]


def _figure(rows: list[list[NDArray[np.uint8]]], titles: list[str], caption: str) -> Any:
    """Lay the images' panels out in columns of blocks, the class names above the blocks."""
    panels = len(rows[0])
    across = max(1, min(_PANELS_ACROSS // panels, len(rows)))
    down = -(-len(rows) // across)
    figure = new_figure(width=max(6.0, 1.4 * panels * across), height=0.6 + 1.6 * down)
    blocks = figure.subfigures(down, across, squeeze=False, wspace=0.06).ravel()
    for block, images, title in zip(blocks, rows, titles, strict=False):
        block.suptitle(shortened(title, _LONGEST_NAME), fontsize=8)
        for axes, image in zip(block.subplots(1, panels, squeeze=False)[0], images, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
    figure.suptitle(caption, fontsize=9)
    return figure


def _caption(shard: TokenShard, images: int) -> str:
    mask = shard.meta.mask
    of = len(shard) // mask.views
    return (
        f"{images} of {of} images and their masks: {mask.kind} {mask.ratio:g}, "
        f"{mask.kept} of {mask.patches} patches kept, seed {mask.seed}"
    )


def _drawing(mask: Mask) -> str:
    """Say what a mask is drawn from; its views do not count."""
    return f"{mask.kind} {mask.ratio:g} of {mask.patches} patches with seed {mask.seed}"
