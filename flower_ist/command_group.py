"""What the command lines of this project share: how they end at an error, how they start fast."""

from __future__ import annotations

from collections.abc import Container, Sequence
from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperCommand, TyperGroup

from flower_ist.errors import FlowerIstError


class CommandGroup(TyperGroup):
    """Commands that end with one sentence and exit code 1 at an error that is meant for the user.

    That is a :class:`FlowerIstError`, or what the system says of a path that the user gave. Any
    other exception is a defect of ours and keeps its traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except FlowerIstError as err:
            raise fail(str(err)) from err
        except OSError as err:
            if err.filename is None:
                raise
            raise fail(f"{err.filename}: {err.strerror}.") from err


def add_later(app: typer.Typer, name: str, summary: str, home: str) -> None:
    """Add a command whose module is imported when the command is called, its ``--help`` included.

    Args:
        app: gets the command.
        name: of the command.
        summary: what the list of commands says of it.
        home: where its function is, ``package.module:function``.
    """
    module, _, function = home.partition(":")

    class Later(TyperCommand):
        def make_context(self, *args: Any, **options: Any) -> click.Context:
            try:
                found = getattr(import_module(module), function)
            except ModuleNotFoundError as err:
                remedy = "run this in a checkout, after pip install -e '.[prep]'."
                raise fail(f"{err.name} is missing: {remedy}") from err
            alone = typer.Typer(add_completion=False)
            alone.command(name)(found)
            return typer.main.get_command(alone).make_context(*args, **options)

    @app.command(name, help=summary, cls=Later)
    def stands_in() -> None: ...


class ManyValues(TyperCommand):
    """A command whose ``--set`` and ``--sweep`` take all the values that follow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write each value with the option before it."""
        return super().parse_args(ctx, one_value_each(args, ("--set", "--sweep")))


def one_value_each(arguments: Sequence[str], options: Container[str]) -> list[str]:
    """Return arguments in which ``--sweep A B`` is written out as ``--sweep A --sweep B``."""
    written: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else ""
        elif option and written[-1] != option:
            written.append(option)
        written.append(argument)
    return written


def fail(sentence: str) -> typer.Exit:
    """Print an error and return the exception that ends the command with code 1."""
    typer.secho(f"Error: {sentence}", fg=typer.colors.RED, err=True)
    return typer.Exit(1)
