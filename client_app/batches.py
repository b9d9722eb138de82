"""A round's batches: the client's own examples, and virtual ones of the classes it lacks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client_app.local_settings import LocalSettings
from flower_ist.classifier.features import RandomFeatures
from flower_ist.statistics.prior import TokenPrior
from flower_ist.tokens.shard import TokenShard

# Rows are read from the map for several batches at once: one gather instead of many small ones.
_BATCHES_PER_READ = 16
# A shard that a round reads whole is decoded once, if it takes no more than this in float32.
_DECODED_BYTES = 1 << 25
_VIRTUAL_STREAM = 1

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


class Batches:
    """The batches of one client in one round, in an order set only by seed, round and name.

    Args:
        shard: the client's examples.
        settings: of the round.
        client: its name.
        prior: the distribution of all clients' tokens. With it tokens are standardized, and with
            its Gaussians a share of every batch, :meth:`ClassGaussians.shortfall`, is virtual; at
            least one example is real.
    """

    def __init__(
        self,
        shard: TokenShard,
        settings: LocalSettings,
        client: str,
        prior: TokenPrior | None = None,
    ) -> None:
        self.settings = settings
        self._shard = shard
        self._entropy = [settings.seed, settings.server_round, zlib.crc32(client.encode())]
        self._prior = prior
        self._gaussians = None if prior is None else prior.gaussians
        share, self._lacking = 0.0, np.empty(0)
        if self._gaussians is not None:
            counts = np.bincount(shard.labels, minlength=len(self._gaussians.shares))
            share, self._lacking = self._gaussians.shortfall(counts)
        size = settings.batch_size
        self.virtual_per_batch = min(round(share * size), size - 1)
        self.real_per_batch = size - self.virtual_per_batch
        self._features = None
        if settings.random_features:
            self._features = RandomFeatures.draw(
                settings.seed, settings.random_features, shard.meta.dim
            )

    @property
    def dim(self) -> int:
        """The number of entries in a token, including random features if there are any."""
        return self._shard.meta.dim if self._features is None else self._features.dim

    @property
    def highest_label(self) -> int:
        """The highest label of the examples, including virtual ones."""
        virtual = np.flatnonzero(self._lacking)[-1] if self.virtual_per_batch else 0
        return int(max(self._shard.labels.max(), virtual))

    def order(self) -> NDArray[np.intp]:
        """Return the rows of all batches' own examples, (local_steps * real_per_batch,).

        Whole epochs in new orders follow one another. Every strategy sees the same batches.
        """
        needed = self.settings.local_steps * self.real_per_batch
        generator = np.random.default_rng(self._entropy)
        epochs = -(-needed // len(self._shard))
        rows = [generator.permutation(len(self._shard)) for _ in range(epochs)]
        return np.concatenate(rows)[:needed] if rows else np.empty(0, dtype=np.intp)

    def __iter__(self) -> Iterator[Batch]:
        """Yield tokens (batch_size, D) and labels (batch_size,)."""
        order, size = self.order(), self.real_per_batch
        shard, prior = self._decoded(len(order))
        virtual = self._virtual_reads()
        for start in range(0, len(order), size * _BATCHES_PER_READ):
            tokens, labels = shard.batch(order[start : start + size * _BATCHES_PER_READ])
            if prior is not None:
                tokens = prior.standardize(tokens, out=tokens)
            count = len(tokens) // size
            if self.virtual_per_batch:
                tokens, labels = _interleave(tokens, labels, *next(virtual), count)
            if self._features is not None:
                tokens = self._features.of(tokens)
            yield from zip(
                tokens.reshape(count, -1, tokens.shape[1]), labels.reshape(count, -1), strict=True
            )

    def _decoded(self, reads: int) -> tuple[TokenShard, TokenPrior | None]:
        """Return the shard to read, and the prior that its tokens must still be standardized with.

        Decoding float16 takes as long as a small net's whole forward pass, so that a round of many
        epochs does it once.
        """
        shard, prior = self._shard, self._prior
        if reads < len(shard) or 4 * len(shard) * shard.meta.dim > _DECODED_BYTES:
            return shard, prior
        tokens, _ = shard.batch(slice(None))
        if prior is not None:
            tokens = prior.standardize(tokens, out=tokens)
        return replace(shard, tokens=tokens, scales=None), None

    def _virtual_reads(self) -> Iterator[Batch]:
        """Yield the virtual tokens and labels of as many batches as one read serves."""
        if self._gaussians is None or not self.virtual_per_batch:
            return
        generator = np.random.default_rng([*self._entropy, _VIRTUAL_STREAM])
        for start in range(0, self.settings.local_steps, _BATCHES_PER_READ):
            count = (
                min(_BATCHES_PER_READ, self.settings.local_steps - start) * self.virtual_per_batch
            )
            labels = generator.choice(len(self._lacking), size=count, p=self._lacking)
            yield self._gaussians.draw(labels, generator), labels


def _interleave(
    tokens: NDArray[np.float32],
    labels: NDArray[np.int64],
    virtual_tokens: NDArray[np.float32],
    virtual_labels: NDArray[np.int64],
    count: int,
) -> Batch:
    """Put each batch's virtual examples after its real ones; there are ``count`` batches."""
    dim = tokens.shape[1]
    rows = [tokens.reshape(count, -1, dim), virtual_tokens.reshape(count, -1, dim)]
    names = [labels.reshape(count, -1), virtual_labels.reshape(count, -1)]
    return np.concatenate(rows, axis=1).reshape(-1, dim), np.concatenate(names, axis=1).reshape(-1)
