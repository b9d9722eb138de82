"""The one source of chance in data_prep: numbers that depend on their address only.

numpy promises that the raw stream of a bit generator stays the same in every release; it does not
promise that of ``Generator`` methods such as ``permutation``. Philox is counter-based: a seed and a
counter name a number, so anyone can draw it again without the draws before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.masks.names import check_seed

MASKS, SPLITS, FIXED_MASKS, BLOCK_MASKS = range(4)
"""Purposes: draws for different purposes are independent under one seed."""


def noise(
    count: int, seed: int, purpose: int, *, first: int, second: int = 0
) -> NDArray[np.uint64]:
    """Return ``count`` uniform 64-bit numbers; ``first`` and ``second`` say which of a purpose.

    Raises:
        PrepError: the seed is out of range.
    """
    check_seed(seed)
    # The counter's first word counts blocks of four numbers, so no two addresses share a stream.
    counter = np.array([0, first, second, purpose], dtype=np.uint64)
    return np.random.Philox(key=seed, counter=counter).random_raw(count)
