"""Linear heads in closed form, from statistics that clients sum and send once.

On frozen features a linear classifier needs no rounds. A client's statistics are sums over its
tokens x (D,) of C classes:

    counts (C,)        n_c = number of tokens of class c
    sums   (C, D)      s_c = sum of the tokens of class c
    gram   (D, D)      G   = sum of x x^T, as its packed upper triangle of D (D + 1) / 2 numbers

Sums of sums are the sums over all data, so the server computes from them what it would compute from
the data itself, however it is split. Pure numpy, float64.

On the wire they are float64 (exact), float32, ``int16`` or ``compact``. The last two round the Gram
matrix, and the last one the sums too, as in :mod:`flower_ist.statistics.codec`; what it leaves is
compressed. With D = 384 and 10 classes that is 622, 311, 165 and about 69 kB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError
from flower_ist.statistics.codec import (
    COMPACT_LEVELS,
    LEVELS,
    decode_gram,
    decode_means,
    encode_gram,
    encode_means,
)
from flower_ist.wire.protocol import CLASS_SUMS_AND_GRAM, COMPACT

# int16 changes a square's scatter by 6e-4 of itself (encode_gram: 2 e + e^2 at D = 384), and
# compact, which keeps squares, rounds a class's mean to a 256th of the tokens' standard deviation.
_GRAM_TOLERANCE = 1e-2
_TINY = 1e-12
_NO_GRAM = f"There is no Gram matrix: ask the clients for {CLASS_SUMS_AND_GRAM}."

# The bias of a class that no client has: it must never be predicted.
NEVER = -1e4

Floats = NDArray[np.float64]
Head = dict[str, NDArray[np.float32]]


@dataclass
class Statistics:
    """Summed statistics of tokens: counts (C,) int64, sums (C, D), packed gram or None.

    ``packed`` are the bytes that a client sent, if they are known, and ``share`` is the share of
    them that counts: what was added to a sum can be read again, and taken out of it.
    """

    counts: NDArray[np.int64]
    sums: Floats
    gram: Floats | None
    packed: bytes = b""
    share: float = 1.0

    @classmethod
    def empty(cls, num_classes: int, dim: int, *, gram: bool) -> Statistics:
        """Return the statistics of no tokens."""
        return cls(
            counts=np.zeros(num_classes, np.int64),
            sums=np.zeros((num_classes, dim)),
            gram=np.zeros(dim * (dim + 1) // 2) if gram else None,
        )

    @classmethod
    def total(cls, parts: Sequence[Statistics]) -> Statistics:
        """Return the statistics of the tokens of all parts, at least one; they are not changed."""
        num_classes, dim = parts[0].sums.shape
        total = cls.empty(num_classes, dim, gram=parts[0].gram is not None)
        for part in parts:
            total.add(part)
        return total

    def add_tokens(self, tokens: NDArray[Any], labels: NDArray[np.integer]) -> None:
        """Add tokens (n, D) with labels (n,). This takes memory for n D and D D float64 numbers."""
        tokens = tokens.astype(np.float64)
        one_hot = (labels[:, None] == np.arange(len(self.counts))).astype(np.float64)
        self.counts += one_hot.sum(axis=0).astype(np.int64)
        self.sums += one_hot.T @ tokens
        if self.gram is not None:
            self.gram += _upper(tokens.T @ tokens)

    def add(self, other: Statistics) -> None:
        """Add the statistics of other tokens."""
        self.counts += other.counts
        self.sums += other.sums
        if self.gram is not None and other.gram is not None:
            self.gram += other.gram

    def subtract(self, other: Statistics) -> None:
        """Take out the statistics of tokens that were added."""
        self.counts -= other.counts
        self.sums -= other.sums
        # Of a class without tokens no rounding error may stay.
        self.sums[self.counts == 0] = 0.0
        if self.gram is not None and other.gram is not None:
            self.gram -= other.gram

    def scaled(self, share: float) -> Statistics:
        """Return the statistics of a share of the tokens, as if drawn from all of them alike.

        Counts stay whole numbers, and no class that is held is lost.

        Args:
            share: above 0 and at most 1.
        """
        counts = np.where(self.counts > 0, np.maximum(1, np.rint(share * self.counts)), 0)
        shares = np.divide(counts, self.counts, out=np.zeros(len(counts)), where=self.counts > 0)
        gram = None if self.gram is None else share * self.gram
        whole, sums = counts.astype(np.int64), shares[:, None] * self.sums
        return Statistics(whole, sums, gram, self.packed, share * self.share)

    def squares(self) -> Floats:
        """Return the sum of each coordinate's squares (D,).

        Raises:
            ArgumentError: the statistics have no Gram matrix.
        """
        if self.gram is None:
            raise ArgumentError(_NO_GRAM)
        diagonal: Floats = self.gram[np.cumsum([0, *range(self.sums.shape[1], 1, -1)])]
        return diagonal

    def means(self) -> Floats:
        """Return the mean of each class's tokens (C, D); 0 for a class without tokens."""
        means: Floats = self.sums / np.maximum(self.counts, 1)[:, None]
        return means

    def digest(self) -> str:
        """Return a hash: two clients with the same one have copies of the same tokens."""
        arrays = [self.counts, self.sums] + ([] if self.gram is None else [self.gram])
        found = hashlib.sha256()
        for array in arrays:
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def to_tensors(self, dtype: str) -> dict[str, NDArray[Any]]:
        """Return the tensors to send, those of :func:`statistics_layout`.

        Args:
            dtype: one of :data:`STATISTICS_DTYPES`.
        """
        tensors: dict[str, NDArray[Any]] = {"counts": self.counts}
        if self.gram is not None and dtype == COMPACT:
            total, count = self.sums.sum(axis=0), int(self.counts.sum())
            spreads, factor = encode_gram(full_gram(self), total, count, COMPACT_LEVELS)
            mean, means = encode_means(self.sums, self.counts, spreads)
            return tensors | {"mean": mean, "means": means, "spreads": spreads, "factor": factor}
        tensors["sums"] = self.sums.astype(_sums_dtype(dtype))
        if self.gram is not None and dtype == "int16":
            tensors["spreads"], tensors["factor"] = encode_gram(
                full_gram(self), self.sums.sum(axis=0), int(self.counts.sum())
            )
        elif self.gram is not None:
            tensors["gram"] = self.gram.astype(dtype)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Statistics:
        """Return the statistics that tensors hold, as views of them where dtypes allow.

        Args:
            tensors: of :func:`statistics_layout`, with finite floats. Counts may be anything: see
                :meth:`why_implausible`.

        Raises:
            ArgumentError: a spread is below 0.
        """
        counts = tensors["counts"].astype(np.int64, copy=False)
        if "spreads" not in tensors:
            gram = tensors.get("gram")
            sums = tensors["sums"].astype(np.float64, copy=False)
            return cls(counts, sums, None if gram is None else gram.astype(np.float64, copy=False))
        spreads, factor = tensors["spreads"], tensors["factor"]
        if (spreads < 0).any():
            raise ArgumentError("its tokens' spread is below 0 somewhere")
        count, levels = float(counts.sum(dtype=np.float64)), None
        if "means" in tensors:
            sums = decode_means(tensors["mean"], tensors["means"], counts, spreads)
        else:
            sums, levels = tensors["sums"].astype(np.float64, copy=False), LEVELS
        total = sums.sum(axis=0)
        return cls(counts, sums, _upper(decode_gram(spreads, factor, total, count, levels)))

    def why_implausible(self, num_examples: float, max_token: float) -> str:
        """Return why no tokens of at most ``max_token`` have these sums, or an empty string."""
        # Each count is bounded before they are summed: the sum of huge ones would wrap around.
        wrong = ((self.counts < 0) | (self.counts > num_examples)).any()
        if wrong or self.counts.sum() != num_examples:
            return f"its class counts do not add up to its {num_examples:g} examples"
        if (np.abs(self.sums) > self.counts[:, None] * max_token).any():
            return f"its class sums need tokens above max_token = {max_token:g}"
        if self.gram is not None and (np.abs(self.gram) > num_examples * max_token**2).any():
            return f"its Gram matrix needs tokens above max_token = {max_token:g}"
        if self.gram is not None and self._scatters_less_than_nothing():
            return "its Gram matrix is too small for its class sums"
        return ""

    def _scatters_less_than_nothing(self) -> bool:
        """Return whether the scatter around the class means would have to be negative.

        A sum of squares is at least that of n_c tokens at each mean: ``sum_c s_c^2 / n_c``.
        """
        held = self.counts > 0
        least = (self.sums[held] ** 2 / self.counts[held, None]).sum(axis=0)
        return bool((self.squares() < (1 - _GRAM_TOLERANCE) * least - _TINY).any())


def statistics_layout(
    num_classes: int, dim: int, kind: str, dtype: str
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the dtype and shape of each tensor that :meth:`Statistics.to_tensors` returns."""
    sums_dtype, triangle = np.dtype(_sums_dtype(dtype)), (dim * (dim + 1) // 2,)
    counts: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "counts": (np.dtype(np.int64), (num_classes,))
    }
    if kind == CLASS_SUMS_AND_GRAM and dtype == COMPACT:
        short = np.dtype(np.int16)
        return counts | {
            "mean": (sums_dtype, (dim,)),
            "means": (short, (num_classes, dim)),
            "spreads": (sums_dtype, (dim,)),
            "factor": (short, triangle),
        }
    sums = counts | {"sums": (sums_dtype, (num_classes, dim))}
    if kind == CLASS_SUMS_AND_GRAM and dtype == "int16":
        return sums | {"spreads": (sums_dtype, (dim,)), "factor": (np.dtype(np.int16), triangle)}
    return sums | {"gram": (sums_dtype, triangle)} if kind == CLASS_SUMS_AND_GRAM else sums


def full_gram(statistics: Statistics) -> Floats:
    """Return the Gram matrix (D, D) from its packed upper triangle.

    Raises:
        ArgumentError: the statistics have none.
    """
    if statistics.gram is None:
        raise ArgumentError(_NO_GRAM)
    dim = statistics.sums.shape[1]
    gram = np.empty((dim, dim))
    upper = np.triu_indices(dim)
    gram[upper] = gram[upper[::-1]] = statistics.gram
    return gram


def within_class_covariance(statistics: Statistics) -> Floats:
    """Return S (D, D), the covariance around the class means: ``(G - sum_c n_c m_c m_c^T) / N``."""
    held = statistics.counts > 0
    roots = statistics.sums[held] / np.sqrt(statistics.counts[held, None])
    covariance: Floats = (full_gram(statistics) - roots.T @ roots) / statistics.counts.sum()
    return covariance


def linear_head(weight: Floats, bias: Floats) -> Head:
    """Return an MLP without hidden layers, as :mod:`flower_ist.classifier.mlp` reads it.

    Args:
        weight: (C, D).
        bias: (C,).
    """
    return {"fc1.weight": weight.astype(np.float32), "fc1.bias": bias.astype(np.float32)}


def _sums_dtype(dtype: str) -> str:
    return "float32" if dtype in ("int16", COMPACT) else dtype


def _upper(matrix: Floats) -> Floats:
    """Return the packed upper triangle of a matrix (D, D)."""
    packed: Floats = matrix[np.triu_indices(len(matrix))]
    return packed
