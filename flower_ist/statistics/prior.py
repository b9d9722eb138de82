"""The distribution of all clients' tokens: one Gaussian per class, from summed statistics.

A client sees only its own classes. Trained on them alone its net forgets the others, and so does
the average of such nets: that is the cost of a skewed split. The statistics that ridge regression
needs (:mod:`flower_ist.statistics.sums`) give the mean of each class and the covariance that the
classes share. Sent to the clients once, they have two uses:

* tokens are standardized by the mean and spread of all clients' tokens, not of one client's;
* a client whose class shares differ from the global ones draws virtual tokens of what it lacks.

If a closed-form head is inside the net (:mod:`flower_ist.classifier.skip`), it follows from the
same sums and is sent with them: C D numbers in float16.

Virtual features from class Gaussians: Luo et al., "No Fear of Heterogeneity: Classifier Calibration
for Federated Learning with Non-IID Data" (CCVR), NeurIPS 2021, https://arxiv.org/abs/2106.05001.
They retrain the classifier on the server after the last round. Here each client mixes virtual
tokens into its own batches in every round, to the extent that its class shares differ from the
global ones.

A prior's Gaussians are only sampled from, so they are sent at low precision: the class means in
64ths, and the covariance as in :mod:`flower_ist.statistics.compact_factor`. Pure numpy. With D =
384 and 10 classes, the prior of CIFAR-10's tokens takes 38 kB (compressed without loss), of which
32 kB are the covariance. With the head it takes 45 kB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import ArgumentError
from flower_ist.statistics.compact_factor import decode_factor, directions_of, encode_factor
from flower_ist.statistics.gaussians import ClassGaussians
from flower_ist.statistics.scale import TokenScale
from flower_ist.statistics.sums import Statistics, within_class_covariance
from flower_ist.wire.compact import Directions

Floats = NDArray[np.float32]

_MEAN_STEP = 1 / 64
# Shares are sent in float32.
_SHARES_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FixedHead:
    """A linear head that is not trained, for standardized tokens.

    Attributes:
        weight: (C, D).
        bias: (C,).
    """

    weight: Floats
    bias: Floats

    def of(self, tokens: Floats) -> Floats:
        """Return its outputs (C, B), one row per class.

        Args:
            tokens: (B, D) standardized tokens, or (B, D + F) with features appended.
        """
        outputs: Floats = self.weight @ tokens[:, : self.weight.shape[1]].T
        outputs += self.bias[:, None]
        return outputs


@dataclass(frozen=True)
class TokenPrior:
    """Mean and spread of all tokens, and the Gaussians of their classes.

    Attributes:
        mean: (D,) of all tokens; 0 if they are not standardized.
        spread: (D,) standard deviation of all tokens, above 0; 1 if they are not standardized.
        gaussians: of the classes; None if no tokens are drawn from them.
        head: a head whose outputs are added to the net's logits; None for no head.
    """

    mean: Floats
    spread: Floats
    gaussians: ClassGaussians | None = None
    head: FixedHead | None = None

    @classmethod
    def from_statistics(
        cls,
        statistics: Statistics,
        scale: TokenScale | None = None,
        *,
        replay: bool = True,
    ) -> TokenPrior:
        """Return the prior of the tokens that were summed.

        Args:
            statistics: with a Gram matrix, of at least one token.
            scale: what to standardize by; by default the mean and spread of these statistics. A net
                that is partly trained keeps the scale that it began with.
            replay: include the classes' Gaussians.

        Raises:
            ArgumentError: there is no Gram matrix or no token, or the tokens are too large for
                Gaussians to sample from.
        """
        counts, dim = statistics.counts, statistics.sums.shape[1]
        total = counts.sum()
        if total == 0:
            raise ArgumentError("The clients have no tokens: nothing can be learnt from them.")
        scale = scale or TokenScale.of(statistics)
        mean, spread = scale.mean, scale.spread
        gaussians = None
        if replay:
            class_means = (statistics.means() - mean) / spread
            class_means[counts == 0] = 0.0
            factor = directions_of(within_class_covariance(statistics) / np.outer(spread, spread))
            _check_width(class_means, factor)
            gaussians = ClassGaussians(
                shares=(counts / total).astype(np.float32),
                means=class_means.astype(np.float32),
                factor=factor.astype(np.float32),
                rest=np.zeros(dim, np.float32),
            )
        return cls(mean.astype(np.float32), spread.astype(np.float32), gaussians)

    def standardize(self, tokens: Floats, out: Floats | None = None) -> Floats:
        """Return tokens (n, D) minus the mean, divided by the spread; ``out`` may be the tokens."""
        standard: Floats = np.subtract(tokens, self.mean, out=out)
        standard /= self.spread
        return standard

    def with_head(self, weight: Floats, bias: Floats) -> TokenPrior:
        """Return the prior with a fixed head.

        Args:
            weight: (C, D), for raw tokens.
            bias: (C,).

        Raises:
            ArgumentError: its weights are too large for float16.
        """
        standard = (weight * self.spread).astype(np.float32)
        shifted = (bias + weight @ self.mean).astype(np.float32)
        if not (np.abs(standard) <= np.finfo(np.float16).max).all():
            raise ArgumentError(
                "The statistics of the clients' tokens vary too widely for a head: set "
                "'lda-skip' to false, or find the client whose tokens are not like the others'."
            )
        return replace(self, head=FixedHead(standard, shifted))

    def raw_head(self) -> tuple[Floats, Floats] | None:
        """Return weight (C, D) and bias (C,) of the head, if any, for raw tokens."""
        if self.head is None:
            return None
        weight = self.head.weight / self.spread
        return weight, np.asarray(self.head.bias - weight @ self.mean, np.float32)

    def fold(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a net for raw tokens, from one for standardized tokens.

        ``W ((x - mean) / spread) + b = (W / spread) x + (b - (W / spread) mean)``

        Args:
            weights: of an MLP (:mod:`flower_ist.classifier.mlp`); only its first layer changes.
        """
        first = weights["fc1.weight"] / self.spread
        return {
            **weights,
            "fc1.weight": first,
            "fc1.bias": weights["fc1.bias"] - first @ self.mean,
        }

    def directions(self) -> Directions | None:
        """Return the directions of the Gaussians' covariance, if there are any.

        Call it on a prior that has travelled: both ends of a message must have the same ones.
        """
        rows = None if self.gaussians is None else self.gaussians.factor
        if rows is None or not len(rows):
            return None
        # Across them tokens vary less than along the last one.
        return Directions.of(rows, float((rows[-1].astype(np.float64) ** 2).sum()) / 2)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the tensors to send, those of :func:`prior_layout`."""
        tensors: dict[str, NDArray[Any]] = {"mean": self.mean, "spread": self.spread}
        if self.gaussians is not None:
            step, factor = encode_factor(self.gaussians.factor)
            # What varies in all, and not along the directions that are sent.
            varies = (self.gaussians.factor**2).sum(axis=0) + self.gaussians.rest**2
            rest = np.maximum(varies - (decode_factor(step, factor) ** 2).sum(axis=0), 0.0)
            means, mean_step = self.gaussians.means, _step_of(self.gaussians.means)
            tensors |= {
                "shares": self.gaussians.shares,
                "mean_step": mean_step,
                "means": np.rint(means / mean_step).astype(np.int16),
                "step": step,
                "factor": factor,
                "rest": np.sqrt(rest).astype(np.float16),
            }
        if self.head is not None:
            weight = self.head.weight.astype(np.float16)
            tensors |= {"head_weight": weight, "head_bias": self.head.bias}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> TokenPrior:
        """Return the prior from tensors of :func:`prior_layout`.

        Raises:
            ArgumentError: they hold invalid numbers.
        """
        finite = all(np.isfinite(tensor).all() for tensor in tensors.values())
        if not finite or not (tensors["spread"] > 0).all():
            raise ArgumentError("The token prior holds values that are no sensible numbers.")
        gaussians = None
        if "factor" in tensors:
            shares = tensors["shares"].astype(np.float64)
            if (shares < 0).any() or abs(shares.sum() - 1) > _SHARES_TOLERANCE:
                raise ArgumentError("The token prior's class shares are not shares of one whole.")
            if tensors["step"] < 0 or tensors["mean_step"] < 0:
                raise ArgumentError("The token prior has a step below 0.")
            means = tensors["means"] * tensors["mean_step"]
            factor = decode_factor(tensors["step"], tensors["factor"])
            gaussians = ClassGaussians(
                tensors["shares"], means, factor, tensors["rest"].astype(np.float32)
            )
        head = None
        if "head_weight" in tensors:
            head = FixedHead(tensors["head_weight"].astype(np.float32), tensors["head_bias"])
        return cls(tensors["mean"], tensors["spread"], gaussians, head)


def prior_layout(
    dim: int, num_classes: int, *, replay: bool, skip: bool
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return the dtype and shape of each tensor that :meth:`TokenPrior.to_tensors` returns."""
    single, half = np.dtype(np.float32), np.dtype(np.float16)
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "mean": (single, (dim,)),
        "spread": (single, (dim,)),
    }
    if replay:
        layout |= {
            "shares": (single, (num_classes,)),
            "mean_step": (single, (1,)),
            "means": (np.dtype(np.int16), (num_classes, dim)),
            "step": (single, (1,)),
            "factor": (np.dtype(np.int8), (dim, dim)),
            "rest": (half, (dim,)),
        }
    if skip:
        layout |= {"head_weight": (half, (num_classes, dim)), "head_bias": (single, (num_classes,))}
    return layout


def _step_of(means: Floats) -> Floats:
    """Return the step (1,) of class means: a 64th of a deviation, more where int16 is too short."""
    largest = float(np.abs(means).max(initial=0.0))
    return np.array([max(_MEAN_STEP, largest / np.iinfo(np.int16).max * 1.001)], np.float32)


def _check_width(means: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
    """Refuse Gaussians that do not fit into float16."""
    if max(np.abs(means).max(), np.abs(factor).max()) > np.finfo(np.float16).max:
        raise ArgumentError(
            "The statistics of the clients' tokens vary too widely for virtual tokens: set "
            "'replay' to false, or find the client whose tokens are not like the others'."
        )
