"""Tracked dicts in a checkpoint: each round writes its changes; all of them come back, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flower_ist.files import NotWrittenError
from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.tracked import TrackedDict
from tests.fakes.full_disk import files_of_at_most


def checkpoint(server_round: int, turns: TrackedDict[int], **facts: Any) -> Checkpoint:
    return Checkpoint(server_round, {}, {"turns": turns}, 0, facts)


def lines(folder: Path, begun: int = 0) -> list[str]:
    return (folder / f"checkpoints/changes-{begun:06d}.jsonl").read_text().splitlines()


def turns_after(folder: Path) -> tuple[int, dict[str, int]]:
    found: Any = Checkpoints(folder).last()
    return found.server_round, found.strategy["turns"]


def begun_files(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "checkpoints").glob("changes-*"))


def test_a_round_writes_what_it_has_changed(tmp_path):
    turns, names = TrackedDict({"a": 0, "b": 0}), TrackedDict({"a": [7, True]})
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(checkpoint(0, turns, names=names))
    turns["a"] = 1
    checkpoints.save(checkpoint(1, turns, names=names))
    names["c"] = [9, False]
    checkpoints.save(checkpoint(2, turns, names=names))
    assert lines(tmp_path) == [
        '{"0": {"a": 0, "b": 0}, "1": {"a": [7, true]}}',
        '{"0": {"a": 1}, "1": {}}',
        '{"0": {}, "1": {"c": [9, false]}}',
    ]
    assert turns_after(tmp_path) == (2, {"a": 1, "b": 0})
    found: Any = Checkpoints(tmp_path).last()
    assert found.facts == {"names": {"a": [7, True], "c": [9, False]}}
    for server_round, expected in ((2, {"a": 1, "b": 0}), (1, {"a": 1, "b": 0}), (0, {"a": 0})):
        assert turns_after(tmp_path)[0] == server_round
        assert turns_after(tmp_path)[1].items() >= expected.items()
        checkpoints.files()[-1].unlink()


@pytest.mark.parametrize("registered", [3, 3000])
def test_the_bytes_of_a_round_do_not_grow_with_the_dict(tmp_path, registered):
    """Twice 9 bytes like ``"0000": 2``, 2 between them, ``{"0": {`` and ``}}``, and an end: 30."""
    turns = TrackedDict({f"{k:04d}": 1 for k in range(registered)})
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(0, turns))
    sizes = []
    for server_round in range(1, 4):
        turns |= {"0000": 2, "0002": 2}
        checkpoints.save(checkpoint(server_round, turns))
        sizes.append(checkpoints.files()[-1].stat().st_size)
    assert [len(line) + 1 for line in lines(tmp_path)[1:]] == [30, 30, 30]
    assert max(sizes) - min(sizes) <= 8  # digits of the file's length


def test_what_a_killed_process_wrote_past_the_checkpoint_is_not_of_it(tmp_path):
    turns = TrackedDict({"a": 1})
    Checkpoints(tmp_path).save(checkpoint(0, turns))
    with (tmp_path / "checkpoints/changes-000000.jsonl").open("a") as file:
        file.write('{"0": {"a": 2}}\n{"0": {"a')
    assert turns_after(tmp_path) == (0, {"a": 1})


def test_another_process_begins_another_file_and_the_old_one_goes_with_its_rounds(tmp_path):
    turns = TrackedDict({"a": 1})
    for begun in (0, 2):
        checkpoints = Checkpoints(tmp_path, keep=2)
        for server_round in (begun, begun + 1):
            turns["b"] = server_round
            checkpoints.save(checkpoint(server_round, turns))
        assert turns_after(tmp_path) == (begun + 1, {"a": 1, "b": begun + 1})
    assert begun_files(tmp_path) == ["changes-000002.jsonl"]
    Checkpoints(tmp_path, keep=2).save(checkpoint(4, turns))
    assert begun_files(tmp_path) == ["changes-000002.jsonl", "changes-000004.jsonl"]
    checkpoints.files()[-1].unlink()
    assert turns_after(tmp_path) == (3, {"a": 1, "b": 3})


def test_another_dict_begins_another_file(tmp_path):
    """Of what the former one held, nothing may come back."""
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(checkpoint(0, TrackedDict({"a": 1})))
    checkpoints.save(checkpoint(1, TrackedDict({"b": 1})))
    assert turns_after(tmp_path) == (1, {"b": 1})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"1", b"2")),
    ],
)
def test_a_damaged_file_costs_the_rounds_that_are_in_it(tmp_path, spoil, caplog):
    turns = TrackedDict({"a": 1})
    Checkpoints(tmp_path).save(checkpoint(0, turns))
    Checkpoints(tmp_path).save(checkpoint(1, turns))
    spoil(tmp_path / "checkpoints/changes-000001.jsonl")
    assert turns_after(tmp_path) == (0, {"a": 1})
    assert "round-000001.safetensors is damaged and passed over: ['changes-00" in caplog.text


def test_after_a_full_disk_everything_is_written_anew(tmp_path):
    turns = TrackedDict({f"{k:04d}": 1 for k in range(1000)})
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(0, turns))
    turns["0000"] = 2
    before = lines(tmp_path)
    with files_of_at_most(len(before[0]) + 2), pytest.raises(NotWrittenError, match="changes-0"):
        checkpoints.save(checkpoint(1, turns))
    assert lines(tmp_path) == before
    checkpoints.save(checkpoint(2, turns))
    assert turns_after(tmp_path) == (2, dict(turns))
    assert begun_files(tmp_path) == ["changes-000000.jsonl", "changes-000002.jsonl"]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_files_of_rounds_that_are_done_again_do_not_outlive_them(tmp_path, keep):
    """A process went on from round 4, its rounds were damaged, another goes on from round 2."""
    turns = TrackedDict({"a": 1})
    for begun, end in ((0, 4), (4, 7)):
        checkpoints = Checkpoints(tmp_path, keep=9)
        for server_round in range(begun, end):
            checkpoints.save(checkpoint(server_round, turns))
    for file in checkpoints.files()[3:]:
        file.write_bytes(b"damaged")
    turns = TrackedDict(turns_after(tmp_path)[1])
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for server_round in range(3, 12):
        turns["b"] = server_round
        checkpoints.save(checkpoint(server_round, turns))
        assert turns_after(tmp_path) == (server_round, {"a": 1, "b": server_round})
    for kept in reversed(checkpoints.files()[-keep:]):
        assert turns_after(tmp_path)[0] == int(kept.stem.removeprefix("round-"))
        kept.unlink()


@pytest.mark.parametrize(
    "spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"x" + file.read_bytes())]
)
def test_a_file_that_somebody_changed_is_not_gone_on_with(tmp_path, spoil):
    turns, checkpoints = TrackedDict({"a": 1}), Checkpoints(tmp_path, keep=1)
    checkpoints.save(checkpoint(0, turns))
    spoil(tmp_path / "checkpoints/changes-000000.jsonl")
    checkpoints.save(checkpoint(1, turns))
    assert turns_after(tmp_path) == (1, {"a": 1})
    assert begun_files(tmp_path) == ["changes-000001.jsonl"]
