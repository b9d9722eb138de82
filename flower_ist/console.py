r"""The one place that prints. What a user or another machine named is printed as it is.

Names of folders, classes, clients and runs are text: square brackets in them are no markup, bytes
that are no UTF-8 and control characters are shown as escapes (``\xe9``, ``\x1b``), and what the
terminal's encoding lacks is escaped by :func:`survive_any_encoding`.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn
    from rich.text import Text

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURN_AROUND = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""They change the order in which a line is shown, and so what it seems to say."""


def printable(text: object) -> str:
    """Return a name on one line, with escapes for what cannot be printed or moves the cursor."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(map(_escaped, shown))


def shortened(name: str, most: int) -> str:
    """Return at most ``most`` characters of a :func:`printable` name, for a figure."""
    shown = printable(name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def is_unicode(text: str) -> bool:
    """Return whether a text has no bytes that are no UTF-8, which Python keeps as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def say(text: str, *, err: bool = False, nl: bool = True, color: str | None = None) -> None:
    """Print lines of plain text.

    Args:
        text: may have several lines; other control characters are escaped.
        err: to standard error.
        nl: end the last line.
        color: of the text, on a terminal.
    """
    import typer

    typer.secho(_lines(text), err=err, nl=nl, fg=color)


def print_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are, for another program."""
    import typer

    typer.echo(content, nl=False)


def print_text(console: Console, text: str) -> None:
    """Print a text on a console as it is, without breaking its lines; nothing if it is empty."""
    if text:
        console.print(_lines(text), highlight=False, markup=False, emoji=False, soft_wrap=True)


def terminal(**options: Any) -> Console:
    """Return rich's console for standard output; strings in tables are no markup either.

    Args:
        options: of rich's ``Console``.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def cell(text: object, style: str = "") -> Text:
    """Return a name as a cell of a table."""
    from rich.text import Text

    return Text(printable(text), style=style)


def text_column(template: str) -> TextColumn:
    """Return a column of a progress bar: ``{task.description}`` and the like."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)


def survive_any_encoding() -> None:
    """Print escapes for what the encoding of standard output lacks, even a strict one."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name, as Python keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    hidden = unicodedata.category(character) in _UNPRINTABLE or character in _TURN_AROUND
    return character.encode("unicode_escape").decode() if hidden else character
