"""The text of another library's error, as part of a sentence."""

from __future__ import annotations


def first_line(err: BaseException) -> str:
    """Return the first line of an error's text without its final stop, or the error's type.

    Of a system error it is the reason alone: the sentence around it names the file.
    """
    text = (err.strerror if isinstance(err, OSError) else None) or str(err)
    lines = text.strip().splitlines() or [type(err).__name__]
    return lines[0].strip().rstrip(".:")
