"""Which rows go where: seeded permutations and class-balanced choices, pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.noise import SPLITS, noise

Rows = NDArray[np.intp]

_HOLD_OUT, CLIENTS, _PARTS = 0, 1, 2


def permutation(count: int, seed: int, stream: int = 0) -> Rows:
    """Return a permutation of ``count`` rows that stays the same in every numpy release.

    Streams of one seed are independent of each other and of the masks drawn from that seed.
    """
    return np.argsort(noise(count, seed, SPLITS, first=stream), kind="stable")


def iid_split(count: int, parts: int, seed: int) -> list[Rows]:
    """Deal rows at random to ``parts`` disjoint sets whose sizes differ by at most one.

    Raises:
        PrepError: there are fewer rows than parts.
    """
    if not 1 <= parts <= count:
        raise PrepError(f"{count} images cannot be split into {parts} parts: use 1 to {count}.")
    return [np.sort(rows) for rows in np.array_split(permutation(count, seed, CLIENTS), parts)]


def first_of_each_class(labels: NDArray[np.integer], per_class: int, classes: int) -> list[Rows]:
    """Return the first ``per_class`` rows of each class in their order, one array a class.

    Raises:
        PrepError: a class has fewer rows.
    """
    ends = np.cumsum(np.bincount(labels, minlength=classes))[: classes - 1]
    by_class = np.split(np.argsort(labels, kind="stable"), ends)
    chosen = [rows[:per_class] for rows in by_class]
    for c, rows in enumerate(chosen):
        if len(rows) < per_class:
            raise PrepError(f"Class {c} has {len(rows)} images, {per_class} are needed.")
    return chosen


def balanced_parts(chosen: list[Rows], parts: int, seed: int) -> list[Rows]:
    """Deal each class's rows in turn to ``parts`` sets, then shuffle each set.

    The shuffle makes every strided share of the sets a random one: dealt class by class, every
    tenth row would be of one class.
    """
    shares = [np.concatenate([rows[part::parts] for rows in chosen]) for part in range(parts)]
    return [rows[permutation(len(rows), seed, _PARTS + part)] for part, rows in enumerate(shares)]


def hold_out(count: int, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return ``(train rows, test rows)``: a random share of ``count`` rows becomes the test set.

    Raises:
        PrepError: the share leaves one of the two empty.
    """
    tests = round(count * share)
    if not 0 < tests < count:
        raise PrepError(f"A test share of {share} of {count} images leaves a set empty.")
    order = permutation(count, seed, _HOLD_OUT)
    return np.sort(order[tests:]), np.sort(order[:tests])


def stratified_hold_out(labels: NDArray[np.integer], share: float, seed: int) -> tuple[Rows, Rows]:
    """Return ``(train rows, test rows)`` with the same share of each class held out at random.

    The test set gets ``round(N * share)`` rows, dealt to the classes by largest remainder. Each
    class keeps at least one row for training, so the test set is smaller where classes are tiny.

    Raises:
        PrepError: the share leaves one of the two empty.
    """
    counts = np.bincount(labels)
    tests = np.zeros_like(counts)
    if 0 < share < 1:
        exact, room = counts * share, np.maximum(counts - 1, 0)
        tests = np.minimum(np.floor(exact).astype(counts.dtype), room)
        missing = round(len(labels) * share) - int(tests.sum())
        # Largest remainder first; of equal ones the first class.
        by_remainder = np.argsort(np.floor(exact) - exact, kind="stable")
        open_classes = by_remainder[tests[by_remainder] < room[by_remainder]]
        tests[open_classes[:missing]] += 1
    if not tests.any():
        raise PrepError(f"A test share of {share} of {len(labels)} images leaves a set empty.")
    order = permutation(len(labels), seed, _HOLD_OUT)
    by_class = order[np.argsort(labels[order], kind="stable")]
    drawn = np.split(by_class, np.cumsum(counts)[:-1])
    train = np.concatenate([rows[count:] for rows, count in zip(drawn, tests, strict=True)])
    test = np.concatenate([rows[:count] for rows, count in zip(drawn, tests, strict=True)])
    return np.sort(train), np.sort(test)
