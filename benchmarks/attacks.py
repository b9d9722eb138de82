"""Replay attacks on a real federation on loopback, and print what held.

For each attack: a SuperLink, its gateway and three honest nodes, as ``flower-ist deploy init``
starts them, train the demo for two rounds while somebody with or without a registered key does
harm. What has to hold: the run completes, every honest node's reply counts in every round, and the
gateway's memory stays below 200 MiB.

    make attacks
    python benchmarks/attacks.py header_flood     # one of them
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hostile import claims, network
from hostile.federation import Federation, Run
from hostile.node import HostileNode

HONEST = 3
SETTINGS = {"num-rounds": 2, "round-timeout": 60.0, "node-timeout": 120.0}
MAX_GATEWAY_MIB = 200.0

Attack = Callable[[Federation], AbstractContextManager[object]]

# A hostile node has the key after the honest ones'; without a key the fourth stays unused.
ATTACKS: dict[str, Attack] = {
    "none": lambda _: nullcontext(),
    "huge_reply": network.huge_reply,
    "half_announced_reply": network.half_announced_reply,
    "header_flood": network.header_flood,
    "slow_connections": network.slow_connections,
    "large_bodies": network.large_bodies,
    "told_name": claims.told_name,
    "told_facts": claims.told_facts,
    "told_first": claims.told_first,
    "count_lie": claims.count_lie,
    "spread_lie": claims.spread_lie,
}


def replay(name: str, attack: Attack) -> bool:
    """Replay one attack, print a line, and return whether all held."""
    with (
        tempfile.TemporaryDirectory(prefix="attack-") as folder,
        Federation(Path(folder), nodes=HONEST + 1, honest=HONEST) as federation,
    ):
        with attack(federation) as attacker:
            hostile = attacker if isinstance(attacker, HostileNode) else None
            # The hostile node is online already; one that is left out could not be waited for.
            run = federation.run({**SETTINGS, "min-available-nodes": HONEST})
        memory = federation.memory("gateway")
        online = federation.online()
    honest = honest_replies(run)
    held = (
        run.status == "finished:completed"
        and honest == [HONEST] * len(run.rounds)
        and online >= HONEST
        and memory < MAX_GATEWAY_MIB
        # A hostile node that was never asked has not attacked.
        and (hostile is None or hostile.asked > 0)
    )
    if hostile is not None and hostile.errors:
        print(f"    it was told: {hostile.errors[0]}")
    print(
        f"{name:24} {'held' if held else 'DID NOT HOLD':12} {run.status:20} "
        f"honest replies {honest}, online after it {online}, {run.seconds:.0f} s, "
        f"gateway {memory:.0f} MiB",
        flush=True,
    )
    return held


def honest_replies(run: Run) -> list[int]:
    """Return how many honest nodes' replies counted in each round."""
    names = [f"demo-{number}" for number in range(HONEST)]
    return [
        sum(name in line["clients"] and name not in line["failures"] for name in names)
        for line in run.rounds
    ]


def main() -> int:
    """Replay the attacks that the command line names, or all."""
    names = sys.argv[1:] or list(ATTACKS)
    held = [replay(name, ATTACKS[name]) for name in names]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
