"""flower_ist/console.py is the only module that prints, and no text of a user is markup."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.fakes import ROOT

# What interprets a text, or prints it past the one function that escapes it.
PRINTERS = {"echo", "secho", "Console", "from_markup", "get_console", "TextColumn", "Text", "track"}
# `track` has no text but ours, and a column of ours has no text of a user.
ALLOWED = {
    ("data_prep/images/check.py", "track"),
    ("flower_ist/console.py", "Console"),
    ("flower_ist/console.py", "Text"),
    ("flower_ist/console.py", "TextColumn"),
    ("flower_ist/console.py", "echo"),
    ("flower_ist/console.py", "print"),
    ("flower_ist/console.py", "secho"),
}


def prints(tree: ast.AST) -> Iterator[str]:
    """Yield the names of calls that print a text, or that make of a text what rich may read."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in PRINTERS:
            yield name
        first = call.args[0] if call.args else None
        literal = isinstance(first, ast.Constant | ast.JoinedStr)
        if name == "print" and (isinstance(call.func, ast.Name) or literal):
            yield name
        if name == "print" and any(keyword.arg == "markup" for keyword in call.keywords):
            yield name
        if name == "rule" and literal:
            yield name


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("print(x)", ["print"]),
        ("console.print(f'{x}')", ["print"]),
        ("console.print(table)", []),
        ("typer.echo(x)", ["echo"]),
        ("rich.console.Console()", ["Console"]),
        ("Text(name)", ["Text"]),
        ("cell(name)", []),
    ],
)
def test_the_rule_finds_what_it_is_for(code, found):
    assert list(prints(ast.parse(code))) == found


def test_nothing_else_prints():
    found = set()
    for package in ("flower_ist", "client_app", "server_app", "data_prep"):
        for file in sorted((ROOT / package).rglob("*.py")):
            module = file.relative_to(ROOT).as_posix()
            found |= {(module, name) for name in prints(ast.parse(file.read_text()))}
    assert found == ALLOWED


def test_no_table_has_a_plain_text_of_a_user():
    """A cell that is a variable alone may be a user's name: it goes through ``cell``."""
    for package in ("flower_ist", "data_prep"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(file.read_text())):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_row":
                    names = [
                        ast.unparse(argument)
                        for argument in call.args
                        if isinstance(argument, ast.Attribute)
                    ]
                    assert not names, f"{file}: {names}"
