"""What clients know of all tokens: the recipe's prior, or one that was tried in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.closed_form import Statistics, full_gram
from flower_ist.token_prior import ClassGaussians, Floats, TokenPrior
from flower_ist.tokens import TokenShard
from tried_ideas.federation import Federation
from tried_ideas.ideas import Idea

# Share of the mean variance that is added to each variance before it is whitened: directions of
# hardly any variance would become as large as the others.
_SHRINKAGE = 0.1


def token_prior(idea: Idea, federation: Federation) -> TokenPrior:
    """Return what the clients train with."""
    if idea.whiten:
        return WhiteningPrior.of(federation.statistics)
    exact = TokenPrior.from_statistics(federation.statistics, replay=idea.replay)
    prior = TokenPrior.from_tensors(exact.to_tensors())  # as it travels
    if idea.class_covariance:
        gaussians = OwnCovariances.of(prior, federation.clients)
        prior = TokenPrior(prior.mean, prior.spread, gaussians)
    return prior


def bytes_before_training(idea: Idea, federation: Federation) -> int:
    """Return the tensors' bytes of the statistics (up, int16) and the prior (down), all clients.

    As the app sends them, symmetric matrices as a triangle; a covariance a class needs a Gram
    matrix a class, whitening one more matrix, and a skip the ridge head.
    """
    dim, num_classes = federation.dim, federation.num_classes
    triangle = dim * (dim + 1) // 2
    matrices = num_classes if idea.class_covariance else 1
    up = 8 * num_classes + 4 * num_classes * dim + (4 * dim + 2 * triangle) * matrices
    down = 4 * 2 * dim
    if idea.replay:
        down += 4 * num_classes + 2 * num_classes * dim + (2 * dim + triangle) * matrices
    if idea.whiten:
        down += 4 * triangle
    if idea.skip and not idea.train_skip:
        down += 4 * num_classes * (dim + 1)
    return len(federation.clients) * (up + down)


@dataclass(frozen=True, kw_only=True)
class OwnCovariances(ClassGaussians):
    """A Gaussian for each class, each with a covariance of its own.

    Attributes:
        factors: (C, D, D) lower triangular; ``factor``, the common one, is not used.
    """

    factors: Floats

    @classmethod
    def of(cls, prior: TokenPrior, clients: Sequence[TokenShard]) -> OwnCovariances:
        """Return the Gaussians of all clients' tokens, as their summed statistics would give them.

        Args:
            prior: of the recipe, with Gaussians.
            clients: whose tokens they are.
        """
        common = prior.gaussians
        assert common is not None
        num_classes, dim = common.means.shape
        factors = np.repeat(common.factor[None].astype(np.float32), num_classes, axis=0)
        for label in np.flatnonzero(common.shares):
            statistics = Statistics.empty(num_classes, dim, gram=True)
            for shard in clients:
                tokens, labels = shard.batch(np.flatnonzero(shard.labels == label))
                statistics.add_tokens(prior.standardise(tokens), labels)
            # With the tokens of one class alone, the covariance within a class is this class' own.
            alone = TokenPrior.from_statistics(statistics, standardise=False).gaussians
            factors[label] = common.factor if alone is None else alone.factor
        return cls(common.shares, common.means, common.factor, factors=factors)

    def draw(self, classes: NDArray[np.integer], generator: np.random.Generator) -> Floats:
        """Draw as :meth:`ClassGaussians.draw` does, with each class' own factor."""
        virtual: Floats = generator.standard_normal(
            (len(classes), self.means.shape[1]), dtype=np.float32
        )
        for label in np.unique(classes):
            rows = classes == label
            virtual[rows] = self.means[label] + virtual[rows] @ self.factors[label].T
        return virtual


@dataclass(frozen=True, kw_only=True)
class WhiteningPrior(TokenPrior):
    """A prior with which tokens get the identity as their covariance, instead of unit variances.

    Attributes:
        matrix: (D, D) symmetric M; a token x becomes M (x - mean).
    """

    matrix: Floats

    @classmethod
    def of(cls, statistics: Statistics) -> WhiteningPrior:
        """Return the prior of the tokens that were summed up: M = covariance^(-1/2), shrunk."""
        gram, counts = full_gram(statistics), statistics.counts
        total, dim = counts.sum(), len(gram)
        mean = statistics.sums.sum(axis=0) / total
        scatter = gram - total * np.outer(mean, mean)
        covariance = scatter / total
        shrunk = covariance + _SHRINKAGE * np.trace(covariance) / dim * np.eye(dim)
        eigenvalues, q = np.linalg.eigh(shrunk)
        matrix = (q / np.sqrt(eigenvalues)) @ q.T
        # The statistics that the clients' whitened tokens would have.
        white = Statistics(
            counts=counts,
            sums=(statistics.sums - counts[:, None] * mean) @ matrix,
            gram=(matrix @ scatter @ matrix)[np.triu_indices(dim)],
        )
        prior = TokenPrior.from_statistics(white, standardise=False)
        return cls(
            mean.astype(np.float32),
            prior.spread,
            prior.gaussians,
            matrix=matrix.astype(np.float32),
        )

    def standardise(self, tokens: Floats) -> Floats:
        """Return whitened tokens (n, D)."""
        return np.asarray((tokens - self.mean) @ self.matrix, dtype=np.float32)

    def fold(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a net for tokens as they are: ``W M (x - mean) + b``."""
        first = weights["fc1.weight"] @ self.matrix
        return {
            **weights,
            "fc1.weight": first,
            "fc1.bias": weights["fc1.bias"] - first @ self.mean,
        }
