"""Errors of the system: each command ends with one sentence, whatever path it was given."""

import errno
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from data_prep.commands.app import app
from data_prep.commands.common import errors_as_sentences
from tests.fakes.tiny_encoder import tiny_encoder


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    text = typer.unstyle(result.stderr)
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    return text


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that may not be entered, as Python up to 3.13 tells of it; tests may be root's."""
    folder, stat = tmp_path / "closed", Path.stat

    def refusing(self, **options):
        if folder in self.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    for name in ("exists", "is_file", "is_dir"):
        monkeypatch.setattr(Path, name, lambda self, name=name: bool(self.stat()))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("prep", "{closed}/img", "--out", "{closed}/../out"),
        (
            "prep",
            "{closed}/../img",
            "--encoder",
            "{closed}/e.safetensors",
            "--out",
            "{closed}/../o",
        ),
        (
            "mask",
            "{closed}/../img",
            "--out",
            "{closed}/k",
            "--image-size",
            "8",
            "--patch-size",
            "2",
        ),
        ("pretrain", "{closed}/img", "--out", "{closed}/../out"),
        ("inspect", "{closed}/x"),
        ("probe", "{closed}/x", "--test", "{closed}/x"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_folder_that_may_not_be_entered_is_a_sentence(closed, arguments):
    assert "Permission denied." in call(*(text.format(closed=closed) for text in arguments))


def test_a_name_that_is_too_long_is_a_sentence(fashion_folder, tmp_path):
    options = ("--out", tmp_path / "out", "--encoder", tiny_encoder(tmp_path))
    text = call("prep", fashion_folder, *options, "--client", "z" * 300, "--workers", 0)
    assert "File name too long" in text


def test_an_error_without_a_path_is_told_as_it_is(capsys):
    with pytest.raises(typer.Exit), errors_as_sentences():
        raise OSError("cannot write mode F as PNG")
    assert capsys.readouterr().err == "Error: cannot write mode F as PNG.\n"


def test_a_reader_that_is_gone_is_no_error_of_ours(capsys):
    """As in ``inspect DATA | head -1``."""
    with pytest.raises(BrokenPipeError), errors_as_sentences():
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    assert capsys.readouterr().err == ""
