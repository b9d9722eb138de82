"""Who may go on with a run: clients that come back with the same data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flower_ist.grids.clients import Client
from flower_ist.tokens.shard import open_shard
from server_app.identity import RunIdentity
from server_app.settings import Settings


def test_a_client_may_not_come_back_with_tokens_of_another_space(
    blob_config: Callable[..., dict[str, Any]], blobs: Path
) -> None:
    """A checkpoint or a client of an older release tells its weights alone, and is believed."""
    settings, shard = Settings.from_run_config(blob_config()), open_shard(blobs / "test")
    older = {"num-examples": 60, "encoder-sha256": "00"}
    facts = {**older, "encoder-settings": "layer=0"}
    other = Client(2, "a", {**facts, "encoder-settings": "layer=2"})
    identity = RunIdentity(settings, shard, None)
    assert identity.why_changed(Client(1, "a", facts)) == ""
    assert identity.why_changed(Client(2, "a", facts)) == ""
    assert "its data are not those with which this run was begun" in identity.why_changed(other)
    identity = RunIdentity(settings, shard, None)
    assert identity.why_changed(Client(1, "a", older)) == ""
    assert identity.why_changed(Client(2, "a", facts)) == ""
    changed = Client(3, "a", {**facts, "num-examples": 61})
    assert "its data are not those" in identity.why_changed(changed)
