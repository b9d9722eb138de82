"""From a shard back to the images that it was made of."""

from __future__ import annotations

from math import isqrt

import numpy as np

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.masks.kinds import Grid
from data_prep.splits.rows import Rows
from flower_ist.tokens.meta import Mask
from flower_ist.tokens.shard import TokenShard


def rows_of_shard(shard: TokenShard, data: ImageSet, examples: Rows) -> Rows:
    """Return the rows of ``data`` that some examples of a shard were made of.

    Raises:
        PrepError: an image's id is not there, or its class is another one.
    """
    order = np.argsort(data.image_ids, kind="stable")
    wanted = shard.image_ids[examples]
    found = np.searchsorted(data.image_ids, wanted, sorter=order)
    rows = order[np.minimum(found, len(order) - 1)]
    classes = np.array(shard.meta.class_names)[shard.labels[examples]]
    wrong = (data.image_ids[rows] != wanted) | (
        np.array(data.class_names)[data.labels[rows]] != classes
    )
    if wrong.any():
        first = int(wrong.argmax())
        raise PrepError(
            f"{data.source} ({data.split}) has no image {wanted[first]} of class "
            f"{str(classes[first])!r}: give the source and the split that the shard was made of."
        )
    return rows


def square_grid(mask: Mask) -> Grid:
    """Return rows and columns of the patches that a mask was drawn on.

    Raises:
        PrepError: their number is no square.
    """
    side = isqrt(mask.patches)
    if side * side != mask.patches:
        raise PrepError(f"{mask.patches} patches are no square grid: their masks cannot be drawn.")
    return side, side
