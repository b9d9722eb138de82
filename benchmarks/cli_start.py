"""How fast ``flower-ist`` and its commands answer ``--help``, against typer and rich alone.

    python benchmarks/cli_start.py

CPU seconds, so that other load on the machine matters little; the minimum of several runs. The
target is at most three times as long as ``import typer, rich``; the help of an app with one option
takes 2.3 times as long, mostly because typer imports rich and draws its boxes.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import typer

from flower_ist.cli import app

REPEATS = 9
AIM = 3.0


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, the program's own help first."""
    yield words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


def seconds(code: str) -> float:
    """Return what the processor spends on a Python program."""
    before = _children()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    programs = {"import typer, rich": "import typer, rich"}
    for words in commands(typer.main.get_command(app)):
        call = f"app({[*words, '--help']}, prog_name='flower-ist')"
        name = " ".join(("flower-ist", *words, "--help"))
        programs[name] = f"from flower_ist.cli import app; {call}"
    least = dict.fromkeys(programs, math.inf)
    for _ in range(REPEATS):  # in turns: what else the machine does hits all alike
        for name, code in programs.items():
            least[name] = min(least[name], seconds(code))
    base = least["import typer, rich"]
    for name, took in least.items():
        print(f"{took:6.3f} s {took / base:5.2f} x  {name}")
    slowest = max(least.values()) / base
    print(f"The slowest takes {slowest:.2f} times as long; the aim is {AIM:g} at most.")


if __name__ == "__main__":
    main()
