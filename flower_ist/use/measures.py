"""How good a model is on labeled examples, counted a batch at a time in bounded memory. Numpy.

* The 95 % interval of an accuracy is Wilson's (JASA 22, 1927): it holds for few examples too.
* Precision of a class: of the answers with it, how many are right. Recall: of its examples, how
  many are found.
* Expected calibration error (Guo et al., ICML 2017): answers are sorted by their probability into
  15 bins of equal width; the mean over the examples of |accuracy - mean probability| of their bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many deviations


@dataclass(frozen=True)
class Share:
    """How many of some examples are right.

    Attributes:
        right: number of right answers.
        examples: number of examples.
    """

    right: int
    examples: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None of no examples."""
        return self.right / self.examples if self.examples else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, from 0 to 1 of no examples."""
        n, z2 = self.examples, _Z * _Z
        if not n:
            return 0.0, 1.0
        share = self.right / n
        middle = share + z2 / (2 * n)
        half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
        low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
        # Where all or none are right, rounding must not leave the share outside.
        return low if self.right else 0.0, high if self.right < n else 1.0


@dataclass(frozen=True)
class Bin:
    """The answers whose probability is in one of the bins.

    Attributes:
        right: how many are right.
        mean_probability: of the predicted class; 0 of none.
    """

    right: Share
    mean_probability: float


class Measures:
    """Counts answers and what was right.

    Args:
        class_names: C names.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        classes = len(self.class_names)
        self.confusion = np.zeros((classes, classes), np.int64)
        """(C, C): examples by their label (row) and the answer (column)."""
        self._bins = np.zeros((BINS, 3))  # examples, right ones, sum of the probabilities
        self._loss = 0.0
        self._owners: dict[str, NDArray[np.int64]] = {}

    def add(
        self,
        probabilities: NDArray[np.float64],
        labels: NDArray[np.integer[Any]],
        owners: Sequence[str] = (),
    ) -> None:
        """Count n examples: probabilities (n, C), labels (n,), and whose they are, if known."""
        answers, chances = probabilities.argmax(axis=1), probabilities.max(axis=1)
        right = answers == labels
        np.add.at(self.confusion, (labels, answers), 1)
        place = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
        np.add.at(self._bins, place, np.stack([np.ones(len(labels)), right, chances], axis=1))
        true = probabilities[np.arange(len(labels)), labels]
        # A probability of 0 would make the mean infinite for one example.
        self._loss -= float(np.log(np.maximum(true, np.finfo(np.float64).tiny)).sum())
        names = np.asarray(owners, dtype=object)
        for owner in dict.fromkeys(owners):
            counts = self._owners.setdefault(owner, np.zeros(2, np.int64))
            counts += (int(right[names == owner].sum()), int((names == owner).sum()))

    @property
    def accuracy(self) -> Share:
        """Of all examples."""
        return Share(int(self.confusion.trace()), int(self.confusion.sum()))

    @property
    def recall(self) -> Mapping[str, Share]:
        """Of the examples of each class, those that are found."""
        return self._by_class(self.confusion.sum(axis=1))

    @property
    def precision(self) -> Mapping[str, Share]:
        """Of the answers with each class, those that are right."""
        return self._by_class(self.confusion.sum(axis=0))

    @property
    def clients(self) -> Mapping[str, Share]:
        """Of each owner's examples, those that are right."""
        return {name: Share(int(right), int(n)) for name, (right, n) in self._owners.items()}

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self._loss / max(1, self.accuracy.examples)

    @property
    def bins(self) -> list[Bin]:
        """The answers by their probability, from 0 to 1."""
        return [
            Bin(Share(int(right), int(n)), float(total / n) if n else 0.0)
            for n, right, total in self._bins
        ]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, 0 to 1."""
        n, right, total = self._bins.T
        return float(np.abs(right - total).sum() / max(1, n.sum()))

    def _by_class(self, examples: NDArray[np.int64]) -> dict[str, Share]:
        counts = zip(self.class_names, self.confusion.diagonal(), examples, strict=True)
        return {name: Share(int(right), int(n)) for name, right, n in counts}
