"""What registered clients cost: CPU seconds of a round with 100 of 100 and of 10,000 sampled.

    python benchmarks/many_registered.py [--rounds 500] [--profile]

The real ServerApp with its whole chain of filters, checkpoints and run log, in this process. The
clients answer what they were sent, without training, so that the round is all there is. One in 20
is away, slow or gone in a round: it answers with an error, in the next round, or never; time is
virtual, so nobody waits.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from runs import PLAIN, ROOT

from flower_ist.grids.inprocess import FIRST_NODE_ID, RUN_ID, InProcessGrid
from flower_ist.runs import recorder
from flower_ist.runs.app import load_app
from flower_ist.runs.log import read_run
from flower_ist.tokens.demo import test_shard
from flower_ist.tokens.meta import encoder_settings
from flower_ist.wire.mod import packed_mod

SAMPLED = 100
AWAY = ("error", "late", "gone")
GONE = Error(5, "Error: Node Unavailable")  # what Flower answers for a node that is gone


def echo_app() -> ClientApp:
    """Return a ClientApp that tells a client's facts, and replies with what it was sent."""
    app = ClientApp(mods=[packed_mod])
    meta = test_shard().meta

    @app.query()
    def tell(message: Message, context: Context) -> Message:
        facts: dict[str, Any] = {
            "client-name": f"client-{int(context.node_config['partition-id']):06d}",
            "num-examples": 40,
            "token-dim": meta.dim,
            "token-dtype": meta.token_dtype,
            "class-names": list(meta.class_names),
            "encoder-sha256": meta.encoder.weights_sha256,
            "encoder-settings": encoder_settings(meta.encoder),
        }
        return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

    @app.train()
    def echo(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 40, "train-loss": 1.0, "local-steps": 1})
        content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return Message(content, reply_to=message)

    return app


class Contexts(Mapping[int, Context]):
    """The clients' contexts, each made when it is needed: devices are elsewhere."""

    def __init__(self, num_clients: int, config: dict[str, Any]) -> None:
        self._count = num_clients
        self._config = config

    def __getitem__(self, node_id: int) -> Context:
        """Make a context."""
        partition = node_id - FIRST_NODE_ID
        where: dict[str, bool | float | int | str] = {
            "partition-id": partition,
            "num-partitions": self._count,
        }
        return Context(RUN_ID, node_id, where, RecordDict(), self._config)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the node ids."""
        return iter(range(FIRST_NODE_ID, FIRST_NODE_ID + self._count))

    def __len__(self) -> int:
        """Return the number of clients."""
        return self._count


class UnsteadyGrid(InProcessGrid):
    """A grid in which one training client in 20 is away, slow or gone, drawn by seed and round."""

    def __init__(self, app: ClientApp, num_clients: int, config: dict[str, Any]) -> None:
        super().__init__(app, 0, config)
        self._contexts = Contexts(num_clients, config)  # type: ignore[assignment]
        self._draws = np.random.default_rng(0)
        self._late: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients; what a slow one answers is there in the next round."""
        late, self._late = self._late, {}
        ids: list[str] = []
        for message in messages:
            ids.extend(super().push_messages([message]))
            if message.metadata.message_type == "train" and self._draws.random() < 1 / 20:
                reply = self._replies.pop(ids[-1])
                fate = AWAY[self._draws.integers(len(AWAY))]
                if fate == "error":
                    self._replies[ids[-1]] = Message(GONE, reply_to=message)
                elif fate == "late":
                    self._late[ids[-1]] = reply
        self._replies |= late
        return ids


def run(registered: int, rounds: int, folder: Path, profile: bool) -> list[float]:
    """Return each round's CPU seconds but the first two's."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    app = load_app(ROOT)
    config: dict[str, Any] = {
        **app.config,
        **PLAIN,
        "strategy": "ist",
        "num-slices": 8,
        "num-rounds": rounds,
        "fraction-train": SAMPLED / registered,
        "min-train-nodes": SAMPLED // 2,
        "min-available-nodes": registered,
        "wire-dtype": "int8",
        "output-dir": str(folder / str(registered)),
    }
    grid: Grid = UnsteadyGrid(echo_app(), registered, dict(config))
    ends: list[float] = []
    profiler = cProfile.Profile(time.process_time)
    before = recorder.RoundRecorder.__call__

    def timed(self: Any, server_round: int, arrays: Any) -> Any:
        result = before(self, server_round, arrays)
        ends.append(time.process_time())
        if profile and server_round == 2:
            profiler.enable()
        return result

    recorder.RoundRecorder.__call__ = timed  # type: ignore[method-assign]
    context = Context(RUN_ID, 1, {}, RecordDict(), dict(config))
    app.server_app(grid, context)
    if profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(120)
    recorder.RoundRecorder.__call__ = before  # type: ignore[method-assign]
    lines = read_run(folder / str(registered))
    failed = sum(line["clients_failed"] for line in lines)
    print(
        f"{registered} registered: {1e3 * median(np.diff(ends)[1:]):.1f} ms a round, "
        f"{failed} of {rounds * SAMPLED} replies failed, run log {log_bytes(folder, registered)}"
    )
    return list(np.diff(ends)[1:])


def log_bytes(folder: Path, registered: int) -> str:
    """Return the bytes of round 0's line and of the longest later one."""
    sizes = [len(line) for line in (folder / str(registered) / "run.jsonl").open()]
    return f"round 0 {sizes[0]:,} bytes, later ones at most {max(sizes[1:]):,}"


def main() -> None:
    """Print the median round's CPU seconds for both, and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--registered", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        few = run(SAMPLED, min(100, options.rounds), Path(name), False)
        many = run(options.registered, options.rounds, Path(name), options.profile)
    print(f"{options.registered} over {SAMPLED} registered: {median(many) / median(few):.2f}")


if __name__ == "__main__":
    main()
