"""How two sets of facts differ, in words: the entries that differ and nothing else.

Every refusal that compares says it with this: the whole of both sides, cut to fit a line, often
shows two equal texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

_MOST = 8
"""The most entries that are named."""
_MOST_OF_A_LIST = 3
_LONGEST = 60
"""The most characters of a value."""
_ABSENT = object()


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, leave_out: frozenset[str] = frozenset()
) -> str:
    """Return which entries differ and how, or an empty text where all are equal.

    ``seed was 0 and is 1; mask.ratio was not given and is 0.5``. Of mappings and lists within, only
    what differs in them is named; of a long text, the part around the first difference.

    Args:
        before: JSON-like values by name.
        now: the same.
        leave_out: names that may differ.
    """
    found = _of_mappings("", before, now, leave_out)
    shown = list(islice(found, _MOST))
    if rest := sum(1 for _ in found):
        shown.append(f"and {rest} more")
    return "; ".join(shown)


def _of_mappings(
    owner: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    leave_out: frozenset[str] = frozenset(),
) -> Any:
    for name in dict.fromkeys((*now, *before)):
        one, other = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if one == other or name in leave_out:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _of_mappings(f"{owner}{name}.", one, other)
        elif _is_list(one) and _is_list(other):
            yield f"{owner}{name} {_of_lists(one, other)}"
        else:
            was, is_now = _shown(one, other), _shown(other, one)
            yield f"{owner}{name} was {was} and is {is_now}"


def _of_lists(before: Sequence[Any], now: Sequence[Any]) -> str:
    """Return what only one of two lists has, or from where on their order differs."""
    one, other = Counter(map(repr, before)), Counter(map(repr, now))
    parts = [
        f"{word} {_listed(list(only.elements()))}"
        for word, only in (("without", one - other), ("with", other - one))
        if only
    ]
    if parts:
        return "is " + " and ".join(parts)
    place = next(k for k, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
    return (
        f"has another order from place {place} on, which was {_shown(before[place], now[place])} "
        f"and is {_shown(now[place], before[place])}"
    )


def _listed(entries: Sequence[str]) -> str:
    shown = ", ".join(_cut(entry, 0) for entry in entries[:_MOST_OF_A_LIST])
    rest = len(entries) - _MOST_OF_A_LIST
    return f"{shown} and {rest} more" if rest > 0 else shown


def _shown(value: object, other: object) -> str:
    if value is _ABSENT:
        return "not given"
    text = value if isinstance(value, str) and value else repr(value)
    against = other if isinstance(other, str) else repr(other)
    pairs = enumerate(zip(text, against, strict=False))
    first = next((k for k, (a, b) in pairs if a != b), min(len(text), len(against)))
    return _cut(text, first)


def _cut(text: str, first: int) -> str:
    """Return at most ``_LONGEST`` characters of a text, those around place ``first`` among them."""
    if len(text) <= _LONGEST:
        return text
    start = max(0, min(first - _LONGEST // 3, len(text) - _LONGEST))
    cut = text[start : start + _LONGEST]
    return f"{'...' * (start > 0)}{cut}{'...' * (start + _LONGEST < len(text))}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
