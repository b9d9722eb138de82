"""Partitions of the hidden neurons: who trains which.

A partition is a pure function of ``(seed, server round, widths, number of slices, shares)``. It is
drawn again wherever it is needed, so it is neither sent nor saved. Pure numpy, no global state.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError

Indices = Mapping[str, NDArray[np.intp]]


class PartitionError(FlowerIstError):
    """The neurons cannot be divided as asked."""


def partition(
    seed: int,
    server_round: int,
    widths: Mapping[str, int],
    num_slices: int,
    shares: Sequence[float] | None = None,
) -> list[dict[str, NDArray[np.intp]]]:
    """Divide the neurons of each width at random into disjoint slices that cover them.

    Each width has a permutation of its own (Independent Subnetwork Training, Yuan et al., VLDB
    2022, https://arxiv.org/abs/1910.02120, algorithm 1); slice k takes the k-th run of it. Unlike
    the original, the width need not be a multiple of the number of slices.

    Args:
        seed: of the run, at least 0.
        server_round: at least 0; another round gives another partition.
        widths: number of neurons of each hidden width.
        num_slices: K, from 1 to the smallest width.
        shares: K positive numbers, the slices' relative sizes; equal if None. With equal shares
            sizes differ by at most one.

    Returns:
        K dictionaries: width -> sorted neuron indices.

    Raises:
        PartitionError: with one sentence that names the setting.
    """
    if seed < 0 or server_round < 0:
        raise PartitionError(
            f"Seed and server round must not be negative, but are {seed} and {server_round}."
        )
    slices: list[dict[str, NDArray[np.intp]]] = [{} for _ in range(num_slices)]
    for name, width in widths.items():
        order = permutation(seed, server_round, name, width)
        bounds = np.cumsum([0, *slice_sizes(width, num_slices, shares)])
        for k, indices in enumerate(slices):
            indices[name] = np.sort(order[bounds[k] : bounds[k + 1]])
    return slices


def slice_sizes(width: int, num_slices: int, shares: Sequence[float] | None = None) -> list[int]:
    """Return how many of ``width`` neurons each slice gets: at least one each, ``width`` in all.

    Shares are rounded by largest remainder; the first slices get what equal shares leave over.

    Raises:
        PartitionError: fewer neurons than slices, or shares that are not K positive numbers.
    """
    if num_slices < 1:
        raise PartitionError(f"The number of slices must be at least 1, not {num_slices}.")
    if num_slices > width:
        raise PartitionError(
            f"num_slices is {num_slices}, but {width} neurons cannot be divided into {num_slices} "
            "slices: use fewer slices or a wider layer."
        )
    if shares is None:
        shares = [1.0] * num_slices
    if len(shares) != num_slices or not all(np.isfinite(s) and s > 0 for s in shares):
        raise PartitionError(
            f"The shares must be {num_slices} positive numbers, one per slice, not {list(shares)}."
        )
    # One neuron each comes first, so that a tiny share still gets a slice that can be trained.
    relative = [share / max(shares) for share in shares]
    exact = [share / sum(relative) * (width - num_slices) for share in relative]
    sizes = [int(e) for e in exact]
    by_remainder = sorted(range(num_slices), key=lambda k: (sizes[k] - exact[k], k))
    for k in by_remainder[: width - num_slices - sum(sizes)]:
        sizes[k] += 1
    return [size + 1 for size in sizes]


def slice_turns(
    seed: int, server_round: int, num_slices: int, num_clients: int
) -> NDArray[np.intp]:
    """Return which of K fixed slices are trained in a round with fewer clients.

    The slices take turns, in an order that is drawn anew every K rounds. With n clients in each of
    these rounds every slice gets n turns; if n varies, all get equally many on average.

    Args:
        seed: of the run.
        server_round: at least 1.
        num_slices: K.
        num_clients: n, below K.

    Returns:
        (n,) numbers of slices, each once.
    """
    epoch, turn = divmod(server_round - 1, num_slices)
    order = permutation(seed, epoch, "slices", num_slices)
    return order[(turn * num_clients + np.arange(num_clients)) % num_slices]


def permutation(seed: int, server_round: int, name: str, width: int) -> NDArray[np.intp]:
    """Return a random order of ``range(width)``, the same for the same arguments anywhere.

    ``name`` keeps the orders of different things (widths, clients) independent of each other.
    """
    # numpy keeps the raw streams of its bit generators stable across releases, but not what its
    # Generator methods make of them: sorting raw draws gives the same order everywhere.
    entropy = [seed, server_round, zlib.crc32(name.encode())]
    raw = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(width)
    return np.argsort(raw, kind="stable")
