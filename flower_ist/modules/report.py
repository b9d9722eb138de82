"""Say which widths of a module are cut, what that saves, and what stays whole and why."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from flower_ist.submodels.check import cautions

if TYPE_CHECKING:
    from flower_ist.modules.derive import DerivedAxes

_MOST_NAMES = 3


def report(axes: DerivedAxes) -> str:
    """Return a table of widths, then warnings, then what stays whole, grouped by reason."""
    total = sum(math.prod(shape) for shape in axes.shapes.values())
    lines = [
        "| width | neurons | tensors | share of the weights | scale |",
        "|---|---|---|---|---|",
    ]
    for width, count in axes.widths.items():
        owned = [n for n, ps in axes.parts.items() if any(p.width == width for a in ps for p in a)]
        share = sum(math.prod(axes.shapes[name]) for name in owned) / total
        scale = "both sides" if width in axes.balanced else "outgoing"
        lines.append(f"| {width} | {count} | {len(owned)} | {100 * share:.1f} % | {scale} |")
    sizes = {width: -(-count // axes.num_slices) for width, count in axes.widths.items()}
    lines.append(
        f"\nOne of {axes.num_slices} slices holds {100 * axes.share(sizes):.1f} % of {total:,} "
        "weights that travel."
    )
    if axes.frozen:
        stays = sum(math.prod(shape) for shape in axes.frozen.values())
        lines.append(f"{stays:,} frozen weights stay on the clients.")
    lines += [f"Warning: {warning}" for warning in cautions(axes, axes.num_slices)]
    by_reason = reasons(axes)
    if by_reason:
        lines.append("\nWhole:")
    for why, names in by_reason.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"* {', '.join(names[:_MOST_NAMES])}{more}: {why}")
    return "\n".join(lines)


def reasons(axes: DerivedAxes) -> dict[str, list[str]]:
    """Return why widths and tensors stay whole, each reason with their names."""
    by_reason: dict[str, list[str]] = {}
    for name, why in axes.whole.items():
        reason = re.sub(r" \(\w+\)", "", why)  # without the operation's own name
        by_reason.setdefault(reason, []).append(name)
    return by_reason
