"""What commands share: settings as options, and one sentence for each error."""

import errno
import os
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from data_prep import PrepError
from data_prep.commands.app import app
from data_prep.commands.common import command_of, resumable
from data_prep.options import argument, option
from flower_ist.command_group import Commands
from tests.fakes import ROOT
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


@dataclass(frozen=True)
class Base:
    _: KW_ONLY
    shade: str = option("The color.", "red", panel="Paint", flag="--color")
    dry: bool = option("Without paint.", False)


@dataclass(frozen=True)
class Painting(Base):
    place: Path = argument("Where.")
    coats: int = option("How many.")


def painter(run):
    app = Commands("Paint.")
    app.later()(command_of(Painting)(run))
    return lambda *arguments: CliRunner().invoke(app, ["paint", *map(str, arguments)])


def test_fields_of_settings_become_arguments_options_and_panels():
    """What must be given comes first, though a base class with defaults is declared before it."""
    painted = []

    def paint(settings: Painting) -> None:
        """Paint a place."""
        painted.append(settings)

    call = painter(paint)
    assert call("wall", "--coats", 2, "--color", "blue", "--dry").exit_code == 0
    assert call("wall", "--coats", 2).exit_code == 0
    assert painted == [Painting(Path("wall"), 2, shade=c, dry=c == "blue") for c in ("blue", "red")]
    assert call("wall").exit_code == 2
    shown = typer.unstyle(call("--help").output)
    for text in ("Paint a place.", "The color. [default: red]", "Where. [required]"):
        assert text in shown
    assert shown.index("─ Options ─") < shown.index("─ Paint ─") < shown.index("--color")


def test_an_error_of_settings_or_of_their_command_is_a_sentence():
    def paint(settings: Painting) -> None:
        raise PrepError("The paint is out.")

    result = painter(paint)("wall", "--coats", 1)
    assert (result.exit_code, result.stderr) == (1, "Error: The paint is out.\n")


def test_a_command_that_is_stopped_says_what_is_kept(capsys):
    with pytest.raises(typer.Exit) as end, resumable("the wall is half red"):
        raise KeyboardInterrupt
    assert end.value.exit_code == 130
    stopped = "Stopped: give the same command again to go on; the wall is half red.\n"
    assert capsys.readouterr().err == stopped


@pytest.mark.parametrize("command", ["prep", "mask", "pretrain", "inspect", "probe"])
def test_no_help_imports_what_only_the_work_needs(command):
    code = (
        "import sys\n"
        "from data_prep.commands.app import app\n"
        "try:\n"
        f"    app(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Usage" in result.stdout
    heavy = {"torch", "timm", "torchvision", "datasets", "flwr", "flwr_datasets", "matplotlib"}
    assert not heavy & set(result.stdout.splitlines()[-1].split())
