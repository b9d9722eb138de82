"""Unfinished work: the plan that must match, chunk files, and what is left after a failure."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.shards.work_folder import PLAN_FILE, WorkFolder, remove_work
from flower_ist.files import NotWrittenError

PLAN = {"encoder": "vit", "mask ratio": 0.5, "shards": {"client-0": 3}, "names": ("a", "b")}
ROWS = {"tokens": np.arange(6, dtype=np.int8).reshape(2, 3), "scales": np.ones(2, np.float32)}


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "out" / ".prep", PLAN)


def test_a_chunk_is_finished_when_its_file_is_whole(work):
    assert not work.has(7)
    work.write(7, ROWS)
    assert work.has(7)
    found = work.read(7)
    assert list(found) == ["tokens", "scales"]
    for name, array in ROWS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert sorted(path.name for path in work.path.iterdir()) == ["chunk-000007.npz", PLAN_FILE]


def test_the_same_plan_finds_the_finished_chunks(work):
    work.write(0, ROWS)
    again = WorkFolder(work.path, dict(PLAN))
    assert again.has(0)
    assert not again.has(1)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"mask ratio": 0.75}, r"\(mask ratio was 0\.5 and is 0\.75\)"),
        (
            {"encoder": "cnn", "mask ratio": 0.75},
            r"\(encoder was vit and is cnn; mask ratio was 0\.5 and is 0\.75\)",
        ),
        ({"names": ("b", "a")}, r"\(names has another order from place 0 on, which was a and is b"),
        ({"encoder": ""}, r"\(encoder was vit and is ''\)"),
        ({"new": 1}, r"\(new was not given and is 1\)"),
        ({"encoder": "word " * 30}, r"encoder was vit and is (word )+\.\.\.\): give"),
    ],
)
def test_another_plan_is_refused_with_all_that_differs(work, change, difference):
    work.write(0, ROWS)
    with pytest.raises(PrepError, match=difference) as error:
        WorkFolder(work.path, PLAN | change)
    assert f"or remove {work.path} to start a new run." in str(error.value)


def test_a_setting_that_only_the_found_plan_has_is_a_difference(work):
    work.write(0, ROWS)
    with pytest.raises(PrepError, match=r"\(mask ratio was 0\.5 and is not given\)"):
        WorkFolder(work.path, {k: v for k, v in PLAN.items() if k != "mask ratio"})


def test_a_plan_without_a_finished_chunk_is_replaced_and_its_own_command_finds_out(work):
    other = WorkFolder(work.path, PLAN | {"encoder": "cnn"})
    with pytest.raises(PrepError, match=r"of another command \(encoder was cnn and is vit\)"):
        work.write(0, ROWS)
    assert not work.has(0)
    other.write(0, ROWS)
    assert other.has(0)


def test_of_two_that_start_at_once_one_makes_the_folder(tmp_path, monkeypatch):
    """The other's rename comes second, and then it must have the same plan."""
    path = tmp_path / ".prep"
    real = os.rename

    def second(source, target):
        monkeypatch.setattr(os, "rename", real)
        WorkFolder(path, PLAN).write(0, ROWS)
        real(source, target)

    for plan in (PLAN, PLAN | {"encoder": "cnn"}):
        monkeypatch.setattr(os, "rename", second)
        if plan == PLAN:
            assert WorkFolder(path, plan).has(0)
        else:
            with pytest.raises(PrepError, match="encoder was vit and is cnn"):
                WorkFolder(path, plan)
        assert [entry.name for entry in tmp_path.iterdir()] == [".prep"]
        remove_work(WorkFolder(path, PLAN).path)


@pytest.mark.parametrize("step", ["savez", "fsync", "replace"])
def test_a_full_disk_leaves_no_chunk_and_a_sentence(work, monkeypatch, step):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np if step == "savez" else os, step, full)
    with pytest.raises(
        NotWrittenError, match=r"\(No space left on device\): make room, then resume"
    ):
        work.write(3, ROWS)
    assert [path.name for path in work.path.iterdir()] == [PLAN_FILE]


def test_a_damaged_chunk_is_named(work):
    work.write(2, ROWS)
    file = work.path / "chunk-000002.npz"
    content = bytearray(file.read_bytes())
    content[content.index(bytes(range(6)))] ^= 1
    file.write_bytes(content)
    with pytest.raises(PrepError, match=r"chunk-000002\.npz is damaged .*: remove it and start"):
        work.read(2)
    file.write_bytes(b"")
    with pytest.raises(PrepError, match="is damaged"):
        work.read(2)


def test_a_chunk_that_is_missing_is_told_from_a_damaged_one(work):
    with pytest.raises(FileNotFoundError):
        work.read(5)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_plan_that_is_no_plan_is_a_sentence(work, content):
    (work.path / PLAN_FILE).write_text(content)
    with pytest.raises(PrepError, match=r"plan\.json .*: remove .*\.prep and start"):
        WorkFolder(work.path, PLAN)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWrittenError, match=r"prep cannot be written \(Not a directory\)"):
        WorkFolder(tmp_path / "file" / ".prep", PLAN)


def test_removal_takes_the_plan_last_so_that_it_can_go_on(work, monkeypatch):
    """Ended in the middle, the plan is still there and tells whose work it was."""
    work.write(0, ROWS)
    (work.path / "half").mkdir()
    (work.path / "half" / "tokens.npy").write_bytes(b"x")
    real = Path.unlink

    def interrupted(path, missing_ok=False):
        if path.name == PLAN_FILE:
            raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove_work(work.path)
    assert json.loads((work.path / PLAN_FILE).read_text())["encoder"] == "vit"
    assert [path.name for path in work.path.iterdir()] == [PLAN_FILE]
    monkeypatch.undo()
    remove_work(WorkFolder(work.path, PLAN).path)
    assert not work.path.exists()
    remove_work(work.path)
