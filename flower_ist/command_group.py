"""What this project's command lines share: how they report errors, and how they start fast."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import click
import typer
from typer.core import TyperCommand, TyperGroup

from flower_ist.console import say, survive_any_encoding
from flower_ist.errors import FlowerIstError, first_line

F = TypeVar("F", bound=Callable[..., None])

# Modules that come with an extra; all others come with this package.
_EXTRAS = {
    **dict.fromkeys(("data_prep", "torch", "timm", "torchvision", "PIL"), "prep"),
    **dict.fromkeys(("datasets", "flwr_datasets", "pyarrow"), "prep"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    "matplotlib": "plot",
    "pillow_heif": "heic",
    "ray": "simulation",
}


class Commands(typer.Typer):
    """A group of commands whose modules are imported, and options read, only when they are called.

    Typer alone would import and read those of all commands whenever one is called.

    Args:
        help: what the group is for.
    """

    def __init__(self, help: str) -> None:  # noqa: A002 - typer's name
        self._later: dict[str, click.Command] = {}
        super().__init__(
            cls=type("_Group", (_Group,), {"later": self._later}),
            help=help,
            no_args_is_help=True,
            add_completion=False,
            # Their values may be whole arrays.
            pretty_exceptions_show_locals=False,
        )
        self.callback()(lambda: None)  # typer takes nothing else for a group yet

    def later(
        self, name: str | None = None, cls: type[TyperCommand] = TyperCommand
    ) -> Callable[[F], F]:
        """Make a function a command; its docstring is the help."""

        def add(function: F) -> F:
            named = name or function.__name__.replace("_", "-")
            self._later[named] = _Later(named, function.__doc__ or "", lambda: function, cls)
            return function

        return add

    def elsewhere(self, name: str, summary: str, home: str) -> None:
        """Add a command by the import path of its function, ``package.module:function``.

        Args:
            name: of the command.
            summary: its line in the list of commands.
            home: the import path.
        """
        module, _, function = home.partition(":")

        def find() -> Any:
            return getattr(import_module(module), function)

        self._later[name] = _Later(name, summary, find, TyperCommand)


class _Group(TyperGroup):
    """Commands that end with one sentence and exit code 1 on an error that is meant for the user.

    That is a :class:`FlowerIstError`, a system error about a path that the user gave, or the
    package of an extra that is missing. Any other exception is a bug of ours and keeps its
    traceback.
    """

    later: ClassVar[dict[str, click.Command]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands = {**self.later, **self.commands}

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program. Errors of the command line are printed, too."""
        survive_any_encoding()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FlowerIstError as err:
            raise fail(str(err)) from err
        except OSError as err:
            if err.filename is None:
                raise
            raise fail(f"{err.filename}: {first_line(err)}.") from err
        except ModuleNotFoundError as err:
            extra = _EXTRAS.get(str(err.name).partition(".")[0])
            if extra is None:
                raise
            sentence = f"{err.name} is not installed: pip install 'flower-ist[{extra}]'."
            raise fail(sentence) from err


class _Later(TyperCommand):
    """A placeholder in the list of commands for one that is built when it is called."""

    def __init__(
        self,
        name: str,
        summary: str,
        find: Callable[[], Callable[..., None]],
        cls: type[TyperCommand],
    ) -> None:
        super().__init__(name, help=summary)
        self._find, self._cls = find, cls

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        alone = typer.Typer(add_completion=False)
        alone.command(self.name, cls=self._cls)(self._find())
        return typer.main.get_command(alone).make_context(*args, **options)


class ManyValues(TyperCommand):
    """A command whose ``--set`` and ``--sweep`` take all the values that follow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the option before each of its values, then parse."""
        return super().parse_args(ctx, one_value_each(args, ("--set", "--sweep")))


def one_value_each(arguments: Sequence[str], options: Container[str]) -> list[str]:
    """Return the arguments with ``--sweep A B`` expanded to ``--sweep A --sweep B``."""
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
    say(f"Error: {sentence}", err=True, color="red")
    return typer.Exit(1)
