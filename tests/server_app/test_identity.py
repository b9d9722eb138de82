"""What a checkpoint keeps of a run's identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flower_ist.runs.checkpoint import Checkpoint
from flower_ist.tokens.shard import open_shard
from server_app.identity import RunIdentity
from server_app.settings import Settings


def test_a_run_of_an_older_release_goes_on(
    blob_config: Callable[..., dict[str, Any]], blobs: Path
) -> None:
    """It kept the clients' names once more."""
    settings, shard = Settings.from_run_config(blob_config()), open_shard(blobs / "test")
    begun = RunIdentity(settings, shard, None)
    begun.local_steps = 7
    facts = json.loads(json.dumps(begun.facts()))
    older = RunIdentity(settings, shard, Checkpoint(1, {}, {}, 0, {**facts, "clients": ["a"]}))
    assert older.local_steps == 7
    assert older.facts() == facts
