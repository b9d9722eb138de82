"""The server's test shard, and a part of it set apart for choices that must not see the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.statistics.sums import Head
from flower_ist.tokens.demo import test_shard
from flower_ist.tokens.shard import TokenShard, open_shard, test_folder
from server_app.settings import SettingsError


def server_shard(data_dir: str) -> TokenShard:
    """Open the test shard of a data folder and verify it; without a folder, the demo's.

    Raises:
        SettingsError: the folder holds none.
        ShardError: it is damaged.
    """
    if not data_dir:
        return test_shard()
    path = test_folder(Path(data_dir))
    if not path.exists():
        raise SettingsError(
            f"'data-dir' is {data_dir!r}, but holds no shard {path.name!r}: give the folder that "
            "prep wrote with --out, made without --test-share 0."
        )
    return open_shard(path, verify=True)


def split_rows(
    labels: NDArray[np.integer], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide rows into a validation and a test part, stratified by class.

    Args:
        labels: (N,).
        share: of each class' rows, rounded, that the validation part gets.
        seed: who is drawn; the same for all strategies.

    Returns:
        Sorted rows of the validation part and of the rest; disjoint, together all N.
    """
    generator = np.random.default_rng([seed, 2])
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(share * len(rows))]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def split_shard(shard: TokenShard, share: float, seed: int) -> tuple[TokenShard | None, TokenShard]:
    """Return the validation part and the test part; with a share of 0, None and the whole shard.

    The parts are copies in memory, in the stored dtype.

    Raises:
        SettingsError: a part would be empty.
    """
    if share == 0:
        return None, shard
    parts = split_rows(shard.labels, share, seed)
    if not all(len(rows) for rows in parts):
        raise SettingsError(
            f"'validation-share' is {share}, but of the server's {len(shard)} examples that leaves "
            f"{len(parts[0])} for validation and {len(parts[1])} for the test: choose another."
        )
    validation, test = (
        TokenShard(meta=shard.meta, **{n: array[rows] for n, array in shard.arrays().items()})
        for rows in parts
    )
    return validation, test


def score_on(validation: TokenShard | None) -> Callable[[Head], float] | None:
    """Return the function that gives a head's accuracy on the validation part, if there is one."""
    if validation is None:
        return None
    return lambda head: evaluate_arrays(head, validation)[0]
