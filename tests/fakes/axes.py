"""Axes in short form, to compare with what a test expects."""

from __future__ import annotations

from flower_ist.submodels.axes import Axes


def labels_of(axes: Axes) -> dict[str, tuple[str | tuple[str | None, ...] | None, ...]]:
    """Name of each tensor -> for each axis its width, None, or the widths of its parts."""
    return {
        name: tuple(
            axis[0].width if len(axis) == 1 else tuple(part.width for part in axis)
            for axis in parts
        )
        for name, parts in axes.parts.items()
    }


def summed_of(axes: Axes) -> dict[str, tuple[int, ...]]:
    """Name of each tensor -> the cut axes over which the layer sums its inputs."""
    return {
        name: tuple(i for i, axis in enumerate(parts) if any(part.summed for part in axis))
        for name, parts in axes.parts.items()
    }
