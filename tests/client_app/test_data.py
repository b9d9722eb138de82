"""Which shard a client trains on: on a device, in simulation, and without any data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client_app import data
from client_app.data import open_client_shard
from flower_ist.tokens.demo import train_shard
from flower_ist.tokens.edit import drop, join, joined_meta
from flower_ist.tokens.shard import ShardError, TokenShard, open_shard, verify_shard
from tests.fakes.shards import make_meta, write_small


def opened(node_config: dict[str, Any], run_config: dict[str, Any] | None = None) -> TokenShard:
    return open_client_shard(Context(1, 2, node_config, RecordDict(), run_config or {}))


def partition(number: int, of: int) -> dict[str, Any]:
    return {"partition-id": number, "num-partitions": of}


def test_a_device_opens_the_shard_of_its_node_config(blobs):
    node_config = {"data-path": str(blobs / "client-3"), **partition(1, 8)}
    assert opened(node_config, {"data-dir": "/nowhere"}).meta.client == "client-3"


def test_in_simulation_the_partition_picks_a_shard_of_the_data_folder(blobs):
    shard = opened(partition(5, 8), {"data-dir": str(blobs)})
    assert (shard.meta.client, len(shard)) == ("client-5", 65)


@pytest.mark.parametrize("run_config", [{}, {"data-dir": ""}])
def test_without_a_folder_the_partition_gets_its_share_of_the_demo_tokens(run_config):
    shard = opened(partition(1, 4), run_config)
    assert (shard.meta.client, len(shard)) == ("demo-1", 1000)
    assert (shard.image_ids == train_shard(1, 4).image_ids).all()


def test_a_device_without_data_is_told_how_to_name_them():
    with pytest.raises(ShardError, match=r"names no data: .*--node-config .*data-path='/path"):
        opened({}, {"data-dir": "/somewhere"})


@pytest.mark.parametrize(
    ("node_config", "run_config"),
    [
        ({"data-path": "/no/such/shard"}, {}),
        ({"data-path": 5}, {}),
    ],
)
def test_a_missing_shard_is_a_sentence(node_config, run_config):
    with pytest.raises(ShardError, match=r"^There is no token shard at /.*: check the path\.$"):
        opened(node_config, run_config)


def test_a_missing_data_folder_is_named_by_its_setting():
    with pytest.raises(ShardError, match=r"^'data-dir' is '/no/folder', but holds no shard 'cl"):
        opened(partition(0, 2), {"data-dir": "/no/folder"})


def test_more_clients_than_shards_is_a_sentence(blobs):
    with pytest.raises(
        ShardError, match=r"^'data-dir' is '/.*', but holds no shard 'client-8': give"
    ):
        opened(partition(8, 9), {"data-dir": str(blobs)})
    with pytest.raises(ShardError, match="serve 1 to 400 clients, not 401"):
        opened(partition(0, 401))


def test_a_shard_is_opened_once_and_a_failure_is_not_remembered(tmp_path: Path):
    node_config = {"data-path": str(tmp_path / "shard")}
    with pytest.raises(ShardError, match="There is no token shard"):
        opened(node_config)
    write_small(tmp_path)
    assert opened(node_config) is opened(node_config)


class Reads:
    """How often a shard is verified, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(data, "verify_shard", self)

    def __call__(self, shard: TokenShard, where: str) -> None:
        self.count += 1
        verify_shard(shard, where)


def context_of(folder: Path) -> Context:
    return Context(1, 2, {"data-path": str(folder)}, RecordDict(), {})


def in_a_new_process(context: Context) -> TokenShard:
    """Each message has a process of its own: nothing is left but the context's state."""
    data._open.cache_clear()
    return open_client_shard(context)


def test_a_shard_is_verified_once_in_a_run(tmp_path: Path, monkeypatch):
    reads, context = Reads(monkeypatch), context_of(write_small(tmp_path))
    for _ in range(3):
        in_a_new_process(context)
    assert reads.count == 1
    in_a_new_process(context_of(tmp_path / "shard"))
    assert reads.count == 2


def test_a_shard_that_changes_is_verified_again(tmp_path: Path, monkeypatch):
    """A number that is not finite, put in between two messages, with the size as it was."""
    reads, folder = Reads(monkeypatch), write_small(tmp_path)
    context = context_of(folder)
    in_a_new_process(context)
    os.utime(folder / "labels.npy", ns=(1, 1))
    in_a_new_process(context)
    in_a_new_process(context)
    assert reads.count == 2
    raw = bytearray((folder / "tokens.npy").read_bytes())
    raw[-2:] = b"\0\x7e"
    (folder / "tokens.npy").write_bytes(raw)
    for _ in range(2):
        with pytest.raises(ShardError, match="array 'tokens' does not match its hash"):
            in_a_new_process(context)


def test_a_process_that_goes_on_opens_a_changed_shard_anew(tmp_path: Path):
    context = context_of(write_small(tmp_path))
    before = open_client_shard(context)
    (tmp_path / "shard" / "tokens.npy").unlink()
    with pytest.raises(ShardError, match=r"tokens\.npy is missing"):
        open_client_shard(context)
    assert write_small(tmp_path / "again") == tmp_path / "again" / "shard"
    (tmp_path / "again" / "shard" / "tokens.npy").rename(tmp_path / "shard" / "tokens.npy")
    assert open_client_shard(context) is not before


def test_images_that_join_or_leave_are_seen_at_the_next_message_and_verified(tmp_path, monkeypatch):
    reads, folder = Reads(monkeypatch), write_small(tmp_path)
    context = context_of(folder)
    assert len(in_a_new_process(context)) == 3
    rows = {"tokens": np.ones((1, 3), np.int8), "scales": np.ones(1, np.float32)}
    meta = joined_meta(open_shard(folder).meta, make_meta(num_examples=1))
    join(folder, meta, [(rows, np.array([1]), np.array([9]))])
    grown = in_a_new_process(context)
    assert (len(grown), grown.image_ids[-1], reads.count) == (4, 9, 2)
    drop(folder, [7])
    assert in_a_new_process(context).image_ids.tolist() == [5, 2**40, 9]
    assert reads.count == 3


def test_a_shard_that_is_replaced_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    folder = write_small(tmp_path)
    real = open_shard

    def replaced(path: Path) -> TokenShard:
        monkeypatch.setattr(data, "open_shard", real)
        drop(folder, [7])
        raise ShardError("Its arrays are those of another meta file.")

    monkeypatch.setattr(data, "open_shard", replaced)
    assert len(open_client_shard(context_of(folder))) == 2
