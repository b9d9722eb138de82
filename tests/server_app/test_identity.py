"""What a checkpoint keeps of a run's identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flower_ist.runs.checkpoint import Checkpoint
from flower_ist.tokens.shard import open_shard
from server_app.identity import RunIdentity
from server_app.settings import Settings


@pytest.mark.parametrize("kept", [["a", "b"], {"b": "of an", "a": "older release"}])
def test_the_clients_names_are_kept(
    blob_config: Callable[..., dict[str, Any]], blobs: Path, kept: object
) -> None:
    """Older releases kept a hash of their data, too: now these may change."""
    settings, shard = Settings.from_run_config(blob_config()), open_shard(blobs / "test")
    begun = RunIdentity(settings, shard, None)
    begun.local_steps = 7
    facts = json.loads(json.dumps(begun.facts())) | {"clients": kept}
    identity = RunIdentity(settings, shard, Checkpoint(1, {}, {}, 0, facts))
    identity.note("c")
    assert identity.facts()["clients"] == ["a", "b", "c"]
    assert identity.local_steps == 7
