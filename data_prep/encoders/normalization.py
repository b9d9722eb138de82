"""How pixels are scaled before a network sees them: a mean and a deviation per color."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data_prep import PrepError

Rgb = tuple[float, float, float]

NORMALIZATIONS: dict[str, tuple[Rgb, Rgb]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of RGB in [0, 1], by the name a shard's meta data carry."""


def resolve(name: str, config: Mapping[str, Any] | None = None) -> str:
    """Return the name to record: one of ``NORMALIZATIONS`` or ``mean/deviation`` in numbers.

    Args:
        name: A name in ``NORMALIZATIONS``; six numbers as in ``0.4,0.4,0.4/0.2,0.2,0.2``; or
            ``model`` for what the network's configuration says.
        config: timm's configuration of the network, with ``mean`` and ``std``.

    Raises:
        PrepError: the name is unknown, or the configuration lacks the numbers.
    """
    if name == "model":
        wanted = (tuple((config or {}).get("mean", ())), tuple((config or {}).get("std", ())))
        if [len(part) for part in wanted] != [3, 3]:
            raise PrepError(
                "The model's configuration names no normalization: choose imagenet or half."
            )
    else:
        wanted = values(name)
    # One spelling for equal numbers: it tells whether two shards' tokens live in one space.
    known = [key for key, numbers in NORMALIZATIONS.items() if numbers == wanted]
    return known[0] if known else "/".join(",".join(str(float(x)) for x in part) for part in wanted)


def values(name: str) -> tuple[Rgb, Rgb]:
    """Return the mean and standard deviation of RGB that a resolved name stands for.

    Raises:
        PrepError: the name is unknown, or its numbers are out of range.
    """
    if name in NORMALIZATIONS:
        return NORMALIZATIONS[name]
    try:
        mean, deviation = (tuple(map(float, part.split(","))) for part in name.split("/"))
        (r, g, b), (dr, dg, db) = mean, deviation
    except ValueError:
        raise PrepError(
            f"The normalization {name!r} is unknown: use one of "
            f"{', '.join(['model', *NORMALIZATIONS])} or six numbers, mean/deviation."
        ) from None
    if not all(map(math.isfinite, (r, g, b))) or not all(0 < d < math.inf for d in (dr, dg, db)):
        raise PrepError(f"The normalization {name!r} needs finite means and deviations above 0.")
    return (r, g, b), (dr, dg, db)
