"""The clients and the server's shards of a seed, and the sums that are known before round 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client_app.statistics import shard_statistics
from flower_ist.closed_form import Head, Statistics
from flower_ist.closed_form_strategy import ClosedFormStrategy
from flower_ist.demo_tokens import test_shard, train_shard
from flower_ist.tokens import ShardError, TokenShard, open_shard, test_folder
from server_app.validation import score_on, split_shard

_DEMO_CLIENTS = 4
_VALIDATION_SHARE = 0.5
# The app's default.
_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Federation:
    """What a run of the app with ``validation-share=0.5`` would see.

    Attributes:
        seed: of the run.
        clients: their shards, in order of their names, as the app meets them.
        validation: one half of the server's shard, to choose by.
        test: the other half.
        statistics: the sum of all clients' statistics, as they travel: in int16.
    """

    seed: int
    clients: Sequence[TokenShard]
    validation: TokenShard
    test: TokenShard
    statistics: Statistics

    @classmethod
    def open(cls, tokens: Path | None, seed: int) -> Federation:
        """Open a folder with ``client-0`` ... and ``test``; None: the demo tokens, four clients.

        Raises:
            ShardError: there is no client, or a shard cannot be read.
        """
        if tokens is None:
            clients = [train_shard(k, _DEMO_CLIENTS) for k in range(_DEMO_CLIENTS)]
            server = test_shard()
        else:
            clients = [open_shard(folder) for folder in tokens.glob("client-*")]
            server = open_shard(test_folder(tokens))
        if not clients:
            raise ShardError(f"{tokens} holds no client-0: give a folder of flower-ist prep.")
        clients.sort(key=lambda shard: shard.meta.client)
        validation, test = split_shard(server, _VALIDATION_SHARE, seed)
        assert validation is not None
        total = Statistics.empty(server.meta.num_classes, server.meta.dim, gram=True)
        for shard in clients:
            sent = shard_statistics(shard, gram=True).to_tensors("int16")
            total.add(Statistics.from_tensors(sent))
        return cls(seed, clients, validation, test, total)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.test.meta.num_classes

    @property
    def dim(self) -> int:
        """D."""
        return self.test.meta.dim

    def ridge(self) -> Head:
        """Return the ridge head, for tokens as they are, with the best penalty on validation."""
        strategy = ClosedFormStrategy(
            method="ridge",
            penalties=_PENALTIES,
            score=score_on(self.validation),
        )
        return strategy.solve([self.statistics])
