"""A folder of secrets is written whole or not at all, and is private at every moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flower_ist.deploy.writer import File, write_folder
from flower_ist.files import NotWrittenError

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
    # The key and its two folders, the script and its folder, which is the new one.
    assert seen[:-1] == [0o600, 0o700, 0o700, 0o755, 0o700]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWrittenError, match=r"new cannot be written \(No space left on device"):
        write_folder(tmp_path / "new", FILES)
    assert os.listdir(tmp_path) == []
