"""What the commands share: the console, errors as sentences, options of one meaning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_prep.errors import first_line
from flower_ist.errors import FlowerIstError
from flower_ist.tokens.shard import open_shard

console = Console()

OnError = Annotated[
    str, typer.Option(help="At an image that cannot be read: stop, or skip and list it at the end.")
]


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """End the command with one sentence and code 1 at an error of the package or of the system."""
    try:
        yield
    except FlowerIstError as err:
        typer.echo(f"Error: {err}", err=True)
        raise typer.Exit(code=1) from err
    except ModuleNotFoundError as err:
        typer.echo(
            f"Error: {err.name} is not installed: in the checkout, pip install -e '.[prep]'.",
            err=True,
        )
        raise typer.Exit(code=1) from err
    except BrokenPipeError:
        raise  # the reader of the output has seen enough, which typer knows how to end with
    except OSError as err:
        # Of a path that cannot be looked at: a folder that nobody may enter, a name too long.
        where = f"{err.filename}: " if err.filename else ""
        typer.echo(f"Error: {where}{first_line(err)}.", err=True)
        raise typer.Exit(code=1) from err


def describe_shard(path: Path) -> str:
    """Return a line on a shard that was written."""
    meta = open_shard(path).meta
    return (
        f"{path}: {meta.num_examples} tokens of {meta.dim} {meta.token_dtype}, "
        f"{meta.mask.kept} of {meta.mask.patches} patches kept"
    )
