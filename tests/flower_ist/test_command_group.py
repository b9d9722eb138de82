"""How a command ends: one sentence for what the user can mend, a traceback for our defects."""

from __future__ import annotations

import errno

import pytest
import typer
from typer.testing import CliRunner

from flower_ist.command_group import Commands
from flower_ist.errors import ArgumentError, FlowerIstError


def ends_with(error: BaseException):
    """Run a command that raises ``error``."""
    app = Commands("test")

    @app.later()
    def one() -> None:
        raise error

    return CliRunner().invoke(app, ["one"])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FlowerIstError("It is full: make room."), "It is full: make room."),
        (ArgumentError("There is no rule 'x': choose 'mean'."), "There is no rule 'x': choose"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied."),
        (
            ModuleNotFoundError("no", name="timm"),
            "timm is not installed: pip install 'flower-ist[prep]'.",
        ),
        (
            ModuleNotFoundError("no", name="onnx.checker"),
            "onnx.checker is not installed: pip install 'flower-ist[export]'.",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_1(error, sentence):
    result = ends_with(error)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    text = typer.unstyle(result.stderr)
    assert text.startswith(f"Error: {sentence}")
    assert text.count("\n") == 1


@pytest.mark.parametrize("name", ["flower_ist.gone", "jinja2", None])
def test_no_extra_brings_a_module_of_ours(name):
    defect = ModuleNotFoundError("no", name=name)
    assert ends_with(defect).exception is defect


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, TypeError, OSError])
def test_a_defect_keeps_its_traceback(kind):
    """As numpy's 'operands could not be broadcast together', which no user can mend."""
    defect = kind("operands could not be broadcast together")
    assert ends_with(defect).exception is defect


def test_a_reader_that_is_gone_is_no_error_of_ours():
    """As in ``inspect DATA | head -1``."""
    result = ends_with(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert (result.exit_code, result.stderr) == (1, "")
