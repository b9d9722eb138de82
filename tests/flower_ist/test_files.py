"""Files and folders appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flower_ist import files
from flower_ist.files import (
    NotWrittenError,
    append_file,
    cut_file,
    is_unfinished,
    make_folder,
    new_file,
    new_folder,
    output_file,
    remove_unfinished,
    whole_file,
    write_file,
)
from tests.fakes.full_disk import files_of_at_most


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fill(folder: Path) -> None:
    """Write a new folder with a file in a folder in it."""
    with new_folder(folder) as unfinished:
        (unfinished / "a").mkdir()
        with new_file(unfinished / "a" / "b") as stream:
            stream.write(b"content")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The most careless setting a user can have."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_file_appears_at_the_end_and_replaces_the_old_one(tmp_path):
    file = tmp_path / "a.txt"
    for text in ("one", "two"):
        before = file.read_text() if file.exists() else None
        with whole_file(file) as stream:
            stream.write(text.encode())
            stream.flush()
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == text
    assert names(tmp_path) == ["a.txt"]


def test_a_text_is_written_in_utf_8(tmp_path):
    write_file(tmp_path / "a", "Käse\n")
    assert (tmp_path / "a").read_bytes() == b"K\xc3\xa4se\n"


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_failure_at_any_step_is_one_sentence(tmp_path, monkeypatch, step):
    file = tmp_path / "file"
    write_file(file, b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(NotWrittenError) as caught:
        write_file(file, b"new")
    monkeypatch.undo()
    assert str(caught.value) == (
        f"{file} cannot be written (No space left on device): make room, then resume or start "
        "again."
    )
    assert names(tmp_path) == ["file"]
    assert file.read_bytes() == b"old"


def test_a_library_that_finds_the_disk_full_leaves_the_old_file(tmp_path):
    """The stream's own buffer is full only on closing, where what is left is not written again."""
    write_file(tmp_path / "file", b"old")
    for size in (10, 100_000):
        with (
            files_of_at_most(5),
            pytest.raises(NotWrittenError, match=r"File too large\): make room"),
            whole_file(tmp_path / "file") as stream,
        ):
            stream.write(bytes(size))
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_another_error_passes_and_leaves_nothing(tmp_path):
    def stop(place: Any) -> None:
        with place as unfinished:
            if isinstance(unfinished, Path):
                new_file(unfinished / "c").close()
            else:
                unfinished.write(b"half")
            raise KeyboardInterrupt

    for place in (whole_file(tmp_path / "a"), new_folder(tmp_path / "b")):
        with pytest.raises(KeyboardInterrupt):
            stop(place)
    assert names(tmp_path) == []


def test_a_write_that_takes_a_part_at_a_time_is_whole(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, rest: write(descriptor, rest[:3]))
    write_file(tmp_path / "file", b"0123456789")
    append_file(tmp_path / "file", b"abcdefg")
    assert (tmp_path / "file").read_bytes() == b"0123456789abcdefg"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_file(path, b"new"),
        lambda path: append_file(path, b"new"),
        lambda path: cut_file(path, 0),
        fill,
        make_folder,
        output_file,
    ],
)
def test_a_place_that_is_none_is_a_sentence_on_the_name_at_last(tmp_path, write):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "new"
    with pytest.raises(NotWrittenError) as caught:
        write(path)
    assert str(caught.value).startswith(f"{path} cannot be written (")
    assert str(caught.value).endswith("): check the folder, then resume or start again.")
    assert (tmp_path / "file").read_text() == "mine"


def test_all_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """Content, then the folder's names, the name, and the folder around it."""
    steps: list[tuple[str, str]] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append(("sync", path.relative_to(tmp_path).as_posix()))
        fsync(descriptor)

    def named(way: str) -> Callable[..., None]:
        real = getattr(os, way)

        def name(source: Path, target: Path) -> None:
            steps.append(("name", target.relative_to(tmp_path).as_posix()))
            real(source, target)

        return name

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named("replace"))
    monkeypatch.setattr(os, "rename", named("rename"))
    write_file(tmp_path / "file", b"content")
    temporary = steps[0][1]
    assert is_unfinished(Path(temporary))
    assert steps == [("sync", temporary), ("name", "file"), ("sync", ".")]
    steps.clear()
    fill(tmp_path / "folder")
    inside = [f"{steps[-3][1]}{name}" for name in ("/a/b", "/a", "")]
    assert steps == [*(("sync", name) for name in inside), ("name", "folder"), ("sync", ".")]


def test_names_of_unfinished_files_cannot_be_guessed(tmp_path):
    seen = set()
    for _ in range(3):
        with whole_file(tmp_path / "file"):
            (name,) = set(names(tmp_path)) - {"file"}
        seen.add(name)
        assert name.startswith(".file.")
        assert name.endswith(".tmp")
        assert len(name) == len(".file..tmp") + 16
    assert len(seen) == 3


@pytest.mark.parametrize("kind", ["file", "link", "link to nowhere"])
def test_nobody_can_have_an_unfinished_file_end_up_elsewhere(tmp_path, monkeypatch, kind):
    """Even who guesses the name and puts a link there gets nothing written to its end."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    victim, trap = tmp_path / "victim", tmp_path / ".file.guessed.tmp"
    victim.write_text("mine")
    if kind == "file":
        trap.write_text("theirs")
    else:
        trap.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(NotWrittenError, match="File exists"):
        write_file(tmp_path / "file", b"new")
    with pytest.raises(NotWrittenError, match="File exists"):
        fill(tmp_path / "file")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "file").exists()


@pytest.mark.usefixtures("open_umask")
def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("the mode was changed afterwards"))
    with whole_file(tmp_path / "key", 0o600) as stream:
        (name,) = names(tmp_path)
        stream.write(b"secret")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with new_folder(tmp_path / "closed", mode=0o700) as unfinished:
        assert unfinished.stat().st_mode & 0o777 == 0o700
        with new_file(unfinished / "key", 0o600) as stream:
            assert os.fstat(stream.fileno()).st_mode & 0o777 == 0o600
    assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o700


def test_what_is_appended_is_whole_or_not_there(tmp_path):
    file = tmp_path / "log"
    append_file(file, b"one\n")
    with files_of_at_most(6), pytest.raises(NotWrittenError, match=r"log cannot .*make room"):
        append_file(file, b"two\n")
    assert file.read_bytes() == b"one\n"
    append_file(file, b"two\n")
    assert file.read_bytes() == b"one\ntwo\n"
    cut_file(file, 4)
    assert file.read_bytes() == b"one\n"


def killed_in(write: Callable[[], None]) -> None:
    """Call in a child process that is killed as soon as it flushes anything to the disk."""
    child = os.fork()
    if child == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        write()
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: other threads may exist
def test_what_a_kill_leaves_does_no_harm_and_can_be_removed(tmp_path):
    (tmp_path / "sub").mkdir()
    write_file(tmp_path / "file", b"old")
    killed_in(lambda: write_file(tmp_path / "file", b"new"))
    killed_in(lambda: fill(tmp_path / "sub" / "folder"))
    assert (tmp_path / "file").read_bytes() == b"old"
    left = [path for path in tmp_path.rglob("*") if is_unfinished(path)]
    assert len(left) == 2
    write_file(tmp_path / "file", b"new")
    fill(tmp_path / "sub" / "folder")
    assert (tmp_path / "file").read_bytes() == b"new"
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["file", "sub"]
    assert names(tmp_path / "sub") == ["folder"]


@pytest.mark.parametrize(
    "write",
    [
        lambda file: append_file(file, b"more"),
        lambda file: cut_file(file, 1),
        lambda file: output_file(file).close(),
    ],
)
def test_what_changes_a_file_does_not_follow_a_link_that_others_planted(tmp_path, write):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(NotWrittenError, match="link cannot be written"):
        write(tmp_path / "link")
    assert victim.read_text() == "mine"
