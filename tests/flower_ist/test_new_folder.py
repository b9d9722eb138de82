"""A new folder appears whole or not at all, and never in the place of another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flower_ist.files import NotWrittenError, new_file, new_folder
from tests.fakes.full_disk import files_of_at_most


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _fill(folder: Path) -> None:
    with new_folder(folder) as unfinished:
        (unfinished / "a").mkdir()
        with new_file(unfinished / "a" / "b") as stream:
            stream.write(b"content")


def test_a_folder_is_made_with_those_above_it(tmp_path):
    _fill(tmp_path / "x" / "y" / "folder")
    assert (tmp_path / "x" / "y" / "folder" / "a" / "b").read_bytes() == b"content"
    assert _names(tmp_path / "x" / "y") == ["folder"]


@pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere"])
def test_no_folder_is_overwritten(tmp_path, kind):
    target = tmp_path / "taken"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(NotWrittenError, match="taken exists already: choose another folder or"):
        _fill(target)
    assert _names(tmp_path) == ["taken"]
    assert kind != "file" or target.read_text() == "mine"


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path):
    with (
        pytest.raises(NotWrittenError, match="exists already"),
        new_folder(tmp_path / "new") as unfinished,
    ):
        shutil.copytree(unfinished, tmp_path / "new")
    assert _names(tmp_path) == ["new"]
    assert _names(tmp_path / "new") == []


def test_a_folder_may_be_filled_elsewhere(tmp_path):
    (tmp_path / "scratch").mkdir()
    with new_folder(tmp_path / "x" / "new", scratch=tmp_path / "scratch") as unfinished:
        assert unfinished.parent == tmp_path / "scratch"
    assert _names(tmp_path / "scratch") == []
    assert _names(tmp_path / "x") == ["new"]


def test_a_full_disk_leaves_no_folder_and_another_files_error_is_not_the_folders(tmp_path):
    with (
        files_of_at_most(5),
        pytest.raises(NotWrittenError, match=r"new cannot be written \(File too large"),
        new_folder(tmp_path / "new") as unfinished,
        new_file(unfinished / "file") as stream,
    ):
        stream.write(bytes(10))
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "new"):
        (tmp_path / "source").read_bytes()
    assert _names(tmp_path) == []
