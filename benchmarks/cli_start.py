"""How soon ``flower-ist`` and each of its commands answer ``--help``, against typer and rich alone.

    python benchmarks/cli_start.py

Seconds of the processor, so that what else the machine does counts little; the least of several
runs. It fails where one takes more than three times as long as ``import typer, rich``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import typer

from flower_ist.cli import app

REPEATS = 7
LIMIT = 3.0


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, the program's own help first."""
    yield words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


def seconds(code: str) -> float:
    """Return what the processor spends on a Python program, at least."""
    spent = []
    for _ in range(REPEATS):
        before = _children()
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        spent.append(_children() - before)
    return min(spent)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Print the table, and return 1 if a command is too slow."""
    base = seconds("import typer, rich")
    slowest = 0.0
    print(f"{base:7.3f} s  1.00 x  import typer, rich")
    for words in commands(typer.main.get_command(app)):
        arguments = [*words, "--help"]
        took = seconds(f"from flower_ist.cli import app; app({arguments}, prog_name='flower-ist')")
        slowest = max(slowest, took / base)
        print(f"{took:7.3f} s {took / base:5.2f} x  flower-ist {' '.join(arguments)}")
    print(f"The slowest takes {slowest:.2f} times as long; at most {LIMIT:g} times are allowed.")
    return int(slowest > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
