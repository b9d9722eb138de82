"""What the commands share: settings as options, how they stop, the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from data_prep.options import ON_ERROR_HELP
from flower_ist.console import say, terminal

console = terminal()
S = TypeVar("S")

OnError = Annotated[str, typer.Option(help=ON_ERROR_HELP)]


def command_of(settings: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """Make a command of a function of settings: each field becomes an option or an argument.

    The fields are those that :func:`data_prep.options.option` and ``argument`` return; the
    function's docstring is the command's help.
    """
    hints = get_type_hints(settings)

    def decorate(run: Callable[[S], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            run(settings(**values))

        # What must be given comes first: a function takes no other order.
        given = sorted(fields(settings), key=lambda field: field.default is not MISSING)  # type: ignore[arg-type]
        parameters = [_parameter(field, hints[field.name]) for field in given]
        command.__name__, command.__doc__ = run.__name__, run.__doc__
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(field: Field[Any], kind: Any) -> Parameter:
    about = field.metadata
    if about.get("argument"):
        info = typer.Argument(help=about["help"])
    else:
        # Without a name typer would add a second flag that turns a flag off.
        flag = about["flag"] or f"--{field.name.replace('_', '-')}"
        info = typer.Option(flag, help=about["help"], rich_help_panel=about["panel"])
    return Parameter(
        field.name,
        Parameter.POSITIONAL_OR_KEYWORD,
        default=Parameter.empty if field.default is MISSING else field.default,
        annotation=Annotated[kind, info],
    )


@contextmanager
def resumable(kept: str) -> Iterator[None]:
    """End with a sentence and code 130 when the user stops the command; say what is kept."""
    try:
        yield
    except KeyboardInterrupt as err:
        say(f"Stopped: give the same command again to go on; {kept}.", err=True)
        raise typer.Exit(code=130) from err
