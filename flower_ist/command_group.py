"""How all command lines of this project end at an error that is the user's to mend."""

from __future__ import annotations

from typing import Any

import click
import typer
from typer.core import TyperGroup

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


def fail(sentence: str) -> typer.Exit:
    """Print an error and return the exception that ends the command with code 1."""
    typer.secho(f"Error: {sentence}", fg=typer.colors.RED, err=True)
    return typer.Exit(1)
