"""What a checkpoint keeps of a run's identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.tokens.shard import open_shard
from flower_ist.wire._flwr import NodeInfo
from server_app.identity import RunIdentity
from server_app.settings import Settings


def test_steps_and_names_are_kept(
    blob_config: Callable[..., dict[str, Any]], blobs: Path, tmp_path: Path
) -> None:
    settings, shard = Settings.from_run_config(blob_config()), open_shard(blobs / "test")
    begun = RunIdentity(settings, shard, None)
    begun.local_steps = 7
    begun.names.assign([NodeInfo(node_id=5)], {5: "a"})
    Checkpoints(tmp_path).save(Checkpoint(1, {}, {}, 0, begun.facts()))
    identity = RunIdentity(settings, shard, Checkpoints(tmp_path).last())
    assert identity.local_steps == 7
    assert identity.facts()["settings"] == begun.facts()["settings"]
    found = identity.names.assign([NodeInfo(node_id=6)], {6: "a"})
    assert found == {6: ("a", 0)}
