"""Names that cannot be encoded, printed or drawn, or that look like markup."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from flower_ist.console import cell, is_unicode, print_text, printable, shortened, terminal
from flower_ist.figure import add_legend, new_figure, plain_texts
from tests.fakes import ROOT
from tests.fakes.shards import write_small

NAMES = {
    "[bold]cat[/bold]": "[bold]cat[/bold]",
    "[/]": "[/]",
    ":smile:": ":smile:",
    "caf\udce9": r"caf\xe9",
    "\x1b[31mred": r"\x1b[31mred",
    "two\nlines": r"two\nlines",
    "left\u202eright": r"left\u202eright",
    "naïve 猫 \u200d": "naïve 猫 \u200d",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_a_name_is_printed_as_it_is_or_with_escapes(name, shown):
    assert printable(name) == shown
    assert is_unicode(shown)
    for console in (terminal(file=io.StringIO(), width=200), Console(file=io.StringIO())):
        print_text(console, f"Wrote {name.replace(chr(10), ' ')}.")
        table = Table()
        table.add_column(cell(name))
        table.add_row(cell(name))
        console.print(table)
        text = console.file.getvalue()
        assert text.count(shown) >= 2
        assert "\x1b" not in text


def test_plain_strings_in_a_table_of_our_console_are_no_markup():
    console = terminal(file=io.StringIO(), width=100)
    table = Table(title="[red]title")
    table.add_column("[x]")
    table.add_row("[/y] and more")
    console.print(table)
    assert all(text in console.file.getvalue() for text in ("[red]title", "[x]", "[/y]"))


def test_a_shortened_name_has_no_more_characters_than_asked_for():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"


@pytest.mark.filterwarnings("error")
def test_figures_draw_any_name():
    """As a tick, a title and a legend: also a formula that cannot be read, and a leading _."""
    with plain_texts():
        figure = new_figure(4, 3)
        axes = figure.add_subplot()
        names = ["$\\bad{$", "_x", "a^b_c", "two\nlines", "猫", "caf\udce9", "\x1b"]
        for k, name in enumerate(names):
            axes.plot([k], [k], label=printable(name))
        axes.set_xticks(range(len(names)), [printable(name) for name in names])
        axes.set_title("$\\bad{$")
        add_legend(axes)
        assert [text.get_text() for text in axes.get_legend().get_texts()][1] == "_x"
        figure.savefig(io.BytesIO(), format="png")


PROGRAM = "from flower_ist.cli import app; app()"


def run(*words, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, env=environment, check=False
    )


@pytest.mark.parametrize("strict", [{"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "C"}])
def test_commands_print_any_path_on_any_output(tmp_path, strict):
    """A run folder and a shard folder with brackets, a Latin-1 byte and Chinese in their names."""
    folder = os.path.join(os.fsencode(tmp_path), "[bold]猫".encode() + b"\xe9[x]")
    write_small(tmp_path).rename(os.fsdecode(folder))
    done = run("inspect", folder, **strict)
    assert done.returncode == 0, done.stderr
    assert b"[bold]" in done.stdout
    assert b"[x]" in done.stdout
    missing = run("report", folder + b"x", **strict)
    assert missing.returncode == 1
    assert missing.stderr.startswith(b"Error: ")
    assert b"[bold]" in missing.stderr
    assert b"Traceback" not in missing.stderr
    assert np.count_nonzero([b"\x1b" in part for part in (done.stdout, missing.stderr)]) == 0
