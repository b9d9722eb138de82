import errno

import pytest
from safetensors import SafetensorError

from data_prep import PrepError
from data_prep.atomic_file import atomic_file


def test_the_file_appears_at_the_end_and_replaces_the_old_one(tmp_path):
    file = tmp_path / "a.txt"
    for text in ("one", "two"):
        before = file.read_text() if file.exists() else None
        with atomic_file(file) as temporary:
            temporary.write_text(text)
            assert (file.read_text() if file.exists() else None) == before
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "No space left on device"),
        (SafetensorError("I/O error: no space\nmore"), "I/O error: no space"),
    ],
)
def test_a_failure_leaves_the_old_file_alone_and_says_why(tmp_path, error, reason):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def write_half():
        with atomic_file(file, "; free some space") as temporary:
            temporary.write_text("hal")
            raise error

    with pytest.raises(PrepError) as caught:
        write_half()
    assert str(caught.value) == f"{file} cannot be written: {reason}; free some space."
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"


def test_another_error_passes_and_leaves_nothing(tmp_path):
    def stop():
        with atomic_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("hal")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "f").write_text("")
    with (
        pytest.raises(
            PrepError, match=r"f/a\.txt cannot be written: (Not a directory|File exists)"
        ),
        atomic_file(tmp_path / "f" / "a.txt") as temporary,
    ):
        temporary.write_text("")
