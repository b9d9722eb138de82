"""A folder of secrets is written whole or not at all, and is private at every moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flower_ist.deploy.folder import File, write_folder
from flower_ist.deploy.plan import DeployError

FILES = {"a/b/key": File(b"secret", 0o600), "run.sh": File(b"#!/bin/sh\n", 0o755)}


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The most careless setting a user can have."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("open_umask")
def test_files_have_their_modes_and_folders_are_closed(tmp_path: Path) -> None:
    write_folder(tmp_path / "new", FILES)
    assert (tmp_path / "new/a/b/key").read_bytes() == b"secret"
    assert mode(tmp_path / "new/a/b/key") == 0o600
    assert mode(tmp_path / "new/run.sh") == 0o755
    assert {mode(tmp_path / "new" / name) for name in ("", "a", "a/b")} == {0o700}


@pytest.mark.usefixtures("open_umask")
def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fsync = os.fsync

    def look(handle: int) -> None:
        seen.append(os.fstat(handle).st_mode & 0o777)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("the mode was changed afterwards"))
    write_folder(tmp_path / "new", FILES)
    assert seen == [0o600, 0o755]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "taken"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(DeployError, match="exists already and is left as it is"):
        write_folder(target, FILES)
    assert os.listdir(tmp_path) == ["taken"]
    assert kind != "file" or target.read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeployError, match="new cannot be written: No space left on device"):
        write_folder(tmp_path / "new", FILES)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def appear(handle: int) -> None:
        (tmp_path / "new").mkdir(exist_ok=True)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(DeployError, match="exists already"):
        write_folder(tmp_path / "new", FILES)
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(tmp_path / "new") == []


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot be written: No such file or directory"):
        write_folder(tmp_path / "not" / "there", FILES)
