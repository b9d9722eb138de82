"""Compare two lists of class names, and describe how they differ in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

_NAME_CHARACTERS = 60
_LIST_CHARACTERS = 3000


def class_difference(theirs: Sequence[str], ours: Sequence[str], who: str, us: str) -> str:
    """Return how two lists of class names differ, on one line; an empty string if they are equal.

    Names that only one side has come first, then both lists in full. Either side may be hostile:
    names are quoted with escapes and cut at 60 characters, and a list is cut after about 3,000.

    Args:
        theirs: Names in the order of the labels.
        ours: The same for the other side.
        who: What to call the first side, such as ``the client``.
        us: What to call the second side.
    """
    if list(theirs) == list(ours):
        return ""
    sides = ((who, _only(theirs, ours)), (us, _only(ours, theirs)))
    parts = [f"only {side} has {_listed(names)}" for side, names in sides if names]
    if not parts:
        same = len(theirs) == len(ours)
        parts = ["the names are the same in another order" if same else "a name is there twice"]
    lists = (
        f"{who} has {len(theirs)}: {_listed(theirs)}",
        f"{us} has {len(ours)}: {_listed(ours)}",
    )
    return "; ".join((*parts, *lists))


def _only(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in dict.fromkeys(names) if name not in known]


def _listed(names: Sequence[str]) -> str:
    shown: list[str] = []
    left = _LIST_CHARACTERS
    for name in names:
        # Cut before it is quoted: a name may be of any length.
        short = repr(name[:_NAME_CHARACTERS]) + ("..." if len(name) > _NAME_CHARACTERS else "")
        left -= len(short) + 2
        if left < 0:
            return f"[{', '.join(shown)}, and {len(names) - len(shown)} more]"
        shown.append(short)
    return f"[{', '.join(shown)}]"
