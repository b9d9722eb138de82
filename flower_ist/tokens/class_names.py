"""Compare two lists of class names, and describe how they differ in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

_NAME_CHARACTERS = 60
_LIST_CHARACTERS = 3000


def class_difference(theirs: Sequence[str], ours: Sequence[str], who: str, us: str) -> str:
    """Return how two lists of class names differ, on one line; an empty string if they are equal.

    Only what differs is named: the names that one side alone has, or else the first label whose
    names differ. Either side may be hostile: names are quoted with escapes and cut at 60
    characters, and a list is cut after about 3,000.

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
    if not parts and len(theirs) == len(ours):
        label = next(
            k for k, (one, other) in enumerate(zip(theirs, ours, strict=True)) if one != other
        )
        return (
            f"the names are the same in another order: label {label} is {_quoted(theirs[label])} "
            f"for {who} and {_quoted(ours[label])} for {us}"
        )
    return "; ".join(parts) or f"{who} has {len(theirs)} names and {us} {len(ours)}: one is twice"


def _only(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in dict.fromkeys(names) if name not in known]


def _listed(names: Sequence[str]) -> str:
    shown: list[str] = []
    left = _LIST_CHARACTERS
    for name in names:
        short = _quoted(name)
        left -= len(short) + 2
        if left < 0:
            return f"[{', '.join(shown)}, and {len(names) - len(shown)} more]"
        shown.append(short)
    return f"[{', '.join(shown)}]"


def _quoted(name: str) -> str:
    # Cut before it is quoted: a name may be of any length.
    return repr(name[:_NAME_CHARACTERS]) + ("..." if len(name) > _NAME_CHARACTERS else "")
