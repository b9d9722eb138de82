"""Examples that join a shard or leave it, also where the process is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flower_ist import files
from flower_ist.files import NotWrittenError, restore_folder
from flower_ist.tokens.edit import drop, join, joined_meta
from flower_ist.tokens.meta import ShardError
from flower_ist.tokens.shard import TokenShard, open_shard
from tests.fakes.shards import IDS, LABELS, TOKENS, make_meta, write_small

STEPS = ("write", "fsync", "mkdir", "rename", "unlink", "rmdir")


def new_rows():
    """Two examples: stored int8 tokens with their scales, labels and ids."""
    rows = {
        "tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int8),
        "scales": np.array([1.0, 2.0], np.float32),
    }
    return rows, np.array([2, 0]), np.array([2**40 + 1, 2**40 + 2])


def grow(folder: Path) -> None:
    new = make_meta(
        num_examples=2, class_names=("dog", "cat", "cow"), image_bytes=5, image_file_bytes=3,
        masked_image_bytes=1,
    )  # fmt: skip
    join(folder, joined_meta(open_shard(folder).meta, new), [new_rows()])


def content(shard: TokenShard) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in shard.arrays().items()}


def test_examples_join_and_labels_follow_the_new_schema(tmp_path):
    folder = write_small(tmp_path)
    before = content(open_shard(folder))
    grow(folder)
    shard = open_shard(folder, verify=True)
    after = content(shard)
    assert shard.meta.class_names == ("dog", "cat", "cow")
    # cat and dog were 0 and 1.
    assert after["labels"] == [*(1 - LABELS), 2, 0]
    assert after["image_ids"] == [*IDS, 2**40 + 1, 2**40 + 2]
    assert after["tokens"] == [*before["tokens"], [1, 2, 3], [4, 5, 6]]
    assert after["scales"] == [*before["scales"], 1.0, 2.0]
    assert (shard.meta.image_bytes, shard.meta.masked_image_bytes) == (3 * 784 + 5, 3 * 392 + 1)
    assert os.listdir(tmp_path) == ["shard"]


def test_a_class_of_the_shard_cannot_be_taken_away(tmp_path):
    with pytest.raises(ShardError, match="schema lacks the class 'dog' of the shard"):
        joined_meta(make_meta(), make_meta(class_names=("cat", "cow")))


def test_images_are_dropped_by_their_ids_with_all_their_views(tmp_path):
    folder = write_small(tmp_path)
    assert drop(folder, [7, 7]) == 1
    shard = open_shard(folder, verify=True)
    assert shard.image_ids.tolist() == IDS[1:].tolist()
    np.testing.assert_allclose(shard.batch(slice(None))[0], TOKENS[1:], atol=1 / 254)
    assert shard.meta.image_bytes == 2 * 784
    with pytest.raises(ShardError, match="has no image 7"):
        drop(folder, [5, 7])
    with pytest.raises(ShardError, match="would be left without any image: remove the folder"):
        drop(folder, IDS[1:].tolist())
    assert content(open_shard(folder, verify=True)) == content(shard)


def test_who_has_the_shard_open_keeps_the_old_one(tmp_path):
    folder = write_small(tmp_path)
    opened = open_shard(folder)
    before = content(opened)
    grow(folder)
    drop(folder, [int(IDS[0])])
    assert content(opened) == before


def test_a_damaged_shard_is_left_as_it_is(tmp_path):
    folder = write_small(tmp_path)
    with (folder / "labels.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    with pytest.raises(ShardError, match="does not match its hash"):
        grow(folder)
    assert os.listdir(tmp_path) == ["shard"]


def test_two_do_not_change_one_shard_at_once(tmp_path):
    folder = write_small(tmp_path)
    refused = pytest.raises(NotWrittenError, match="is being changed: wait, then try again")
    with refused, files.replacement_of(folder):
        drop(folder, [7])
    assert len(open_shard(folder, verify=True)) == 3


def died(act: Callable[[], object], at: int) -> bool:
    """Run ``act`` in a child that kills itself before its ``at``-th writing call."""
    if (child := os.fork()) == 0:
        seen = 0

        def count(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **options: object) -> object:
                nonlocal seen
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        for name in STEPS:
            setattr(os, name, count(getattr(os, name)))
        files._exchange = count(files._exchange)  # type: ignore[assignment]
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("exchange", [True, False], ids=["at once", "in two steps"])
@pytest.mark.parametrize("change", [grow, lambda folder: drop(folder, [7])], ids=["join", "drop"])
def test_a_kill_at_any_step_leaves_the_old_shard_or_the_new_one(
    tmp_path, monkeypatch, exchange, change
):
    if not exchange:  # what a file system does that knows no exchange
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    old = content(open_shard(write_small(tmp_path / "before")))
    change(write_small(tmp_path / "after"))
    new = content(open_shard(tmp_path / "after" / "shard"))
    outcomes = []
    for at in range(1, 200):
        folder = write_small(tmp_path / f"{at}")
        killed = died(lambda folder=folder: change(folder), at)
        if exchange:
            assert folder.is_dir()
        restore_folder(folder)
        found = content(open_shard(folder, verify=True))
        assert found in (old, new)
        outcomes.append(found == new)
        if not killed:
            break
        if found == old:
            change(folder)  # nothing is in its way
            assert content(open_shard(folder, verify=True)) == new
    assert not outcomes[0]
    assert outcomes[-1]
    assert len(outcomes) > 10
    assert outcomes == sorted(outcomes)


def test_a_shard_of_another_meta_is_written_whole(tmp_path):
    meta = replace(make_meta(), num_examples=9)
    folder = write_small(tmp_path)
    with pytest.raises(ShardError, match="3 of 9 examples"):
        join(folder, meta, [])
    assert len(open_shard(folder, verify=True)) == 3
