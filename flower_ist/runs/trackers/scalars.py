"""The numbers of a run log's lines, under names for trackers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What is no measurement: the x axis, and what identifies the run.
_LEFT_OUT = ("round", "seed", "settings", "resumed_after")
_TOTALS = ("wire_bytes_down", "wire_bytes_up")


def scalars(
    rounds: Sequence[Mapping[str, Any]], per_client: bool = False
) -> Iterator[tuple[int, dict[str, int | float]]]:
    """Yield each round's number and its numbers, exactly as the log has them.

    Nested fields are joined with ``/``: ``seconds/train``, ``message_types/query/wire_bytes_up``.
    ``total/wire_bytes_down`` and ``total/wire_bytes_up`` are the sums up to the end of the round.

    Args:
        rounds: all lines of the log, from the first on.
        per_client: give ``clients/NAME/...`` too.
    """
    left_out = _LEFT_OUT if per_client else (*_LEFT_OUT, "clients")
    totals = dict.fromkeys(_TOTALS, 0)
    for line in rounds:
        for field in _TOTALS:
            totals[field] += line.get(field, 0)
        found = dict(_flat({key: line[key] for key in line if key not in left_out}))
        yield line["round"], found | {f"total/{field}": total for field, total in totals.items()}


def run_key(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return a name of 32 characters that a run keeps, wherever its folder is and when resumed.

    It is the SHA-256 of the log's first line, which holds all settings and measured seconds.
    """
    return hashlib.sha256(json.dumps(rounds[0], sort_keys=True).encode()).hexdigest()[:32]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int | float]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
