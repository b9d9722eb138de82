"""What a run was begun with: ``resume=true`` does not continue with other settings or data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from flower_ist.differences import differences
from flower_ist.grids.names import NameBook
from flower_ist.runs.checkpoint import Checkpoint
from flower_ist.tokens.shard import TokenShard
from server_app.settings import Settings, SettingsError

# Keys that may differ when a run goes on: how long, where, how patiently, and how it is kept. The
# data folder may have moved: what lies in it is compared instead.
_FREE = frozenset(
    {
        "num-rounds",
        "target-accuracy",
        "patience",
        "resume",
        "keep-checkpoints",
        "output-dir",
        "data-dir",
        "node-timeout",
        "round-timeout",
    }
)


class RunIdentity:
    """Settings and data that a run was begun with, as a checkpoint keeps them, and what follows.

    Clients are known by name. Those that were away may come back, and new ones may join, as in any
    run. Images may join their shards or leave them, too; what else a shard must have in common with
    the server's is checked when a client is met (:mod:`server_app.admission`).

    Attributes:
        local_steps: steps that a client takes in a round, which follow from the clients that the
            run was begun with; None for a new run, until its clients are met.
        names: which node each client's name belongs to.

    Args:
        settings: of the run.
        shard: the server's.
        checkpoint: of the run that goes on; None for a new one.

    Raises:
        SettingsError: the checkpoint's settings or the server's data were others.
    """

    def __init__(
        self, settings: Settings, shard: TokenShard, checkpoint: Checkpoint | None
    ) -> None:
        self._settings = settings.to_run_config()
        self._server = _hash(shard.meta.to_json())
        self.local_steps: int | None = None
        self.names = NameBook()
        if checkpoint is not None:
            self._compare(checkpoint.facts)
            self.local_steps = checkpoint.facts["local_steps"]
            self.names.load_state(checkpoint.facts["names"])

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, with the names of all clients met so far."""
        return {
            "settings": self._settings,
            "server_data": self._server,
            "names": self.names.state(),
            "local_steps": self.local_steps,
        }

    def _compare(self, facts: Mapping[str, Any]) -> None:
        if differ := differences(facts["settings"], self._settings, leave_out=_FREE):
            raise SettingsError(
                f"The run in 'output-dir' was begun with other settings ({differ}): go on with the "
                "same settings, or choose another 'output-dir'."
            )
        if facts["server_data"] != self._server:
            raise SettingsError(
                "The server's test shard is not the one with which the run in 'output-dir' was "
                "begun: give it the same data again, or choose another 'output-dir'."
            )


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
