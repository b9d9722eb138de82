"""Derive the axes of any module: which widths it has, and which of them are cut."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from flower_ist.errors import ArgumentError
from flower_ist.modules.balance import balanced
from flower_ist.modules.choose import choose
from flower_ist.modules.graph import DeriveError, Tied, export, tied_axes
from flower_ist.modules.prove import failures
from flower_ist.modules.report import report
from flower_ist.modules.subject import Subject, as_inputs
from flower_ist.modules.widths import Width
from flower_ist.submodels.axes import Axes, Shape
from flower_ist.submodels.check import FEW_NEURONS
from flower_ist.submodels.parts import Part

# A width of which a slice would have fewer neurons is not cut by default.
_FEWEST_NEURONS = 4
_MOST_PROOFS = 8


@dataclass(frozen=True)
class DerivedAxes(Axes):
    """Axes that were derived from a module and proven for it.

    Attributes:
        whole: width or tensor that is not cut -> why.
        num_slices: the number of slices that the widths were chosen for.
        balanced: the widths whose scale is shared by incoming and outgoing weights.
    """

    whole: Mapping[str, str] = field(default_factory=dict)
    num_slices: int = 4
    balanced: frozenset[str] = frozenset()

    def report(self) -> str:
        """Return a table of the widths and what they save, warnings, and what stays whole."""
        return report(self)


def derive_axes(
    model: nn.Module,
    example_input: Any,
    *,
    num_slices: int = 4,
    widths: str | Collection[str] = "inner",
) -> DerivedAxes:
    """Derive which axes of a module's tensors belong to which hidden width, and prove it.

        axes = derive_axes(model, torch.zeros(2, 3, 32, 32))
        print(axes.report())
        strategy = ISTStrategy(axes, num_slices=4)

    The module's graph is read with ``torch.export``; nothing is read or proven on a client. A width
    that fails a proof stays whole, with the reason, so what is returned is right for this module.
    Parameters with ``requires_grad=False`` stay on the clients, and what is tied to them is whole.

    Args:
        model: the whole module; it is not changed.
        example_input: its argument, or a tuple of them; two short examples are enough.
        num_slices: K of the strategy; a width of fewer than four neurons a slice is whole unless
            it is asked for.
        widths: ``inner``: of widths that meet in one weight only one, such that the most bytes are
            saved; ``all``; or the names of some, as the report of ``all`` gives them.

    Raises:
        DeriveError: torch cannot export the module, or nothing of it can be cut.
        ArgumentError: there is no such width.
    """
    inputs = as_inputs(example_input)
    tied = tied_axes(model, export(model, inputs))
    found, whole = _axes(model, tied)
    whole |= _too_few(found, num_slices, widths)
    subject = Subject(model, inputs)
    for _ in range(_MOST_PROOFS):
        chosen = _chosen(found, whole, widths, num_slices)
        if not chosen:
            reasons = "; ".join(f"{name!r}: {why}" for name, why in list(whole.items())[:5])
            raise DeriveError(
                f"No width of {type(model).__name__} is cut: {reasons or 'there is none'}. Use "
                "fewer slices, or name the widths to cut."
            )
        axes = balanced(subject, only(found, chosen))
        failed = failures(subject, axes)
        if not failed:
            break
        whole |= failed
    else:
        raise DeriveError(f"No proof for {type(model).__name__}: {next(iter(failed.values()))}")
    unused = {w: _neighbor(found, w, chosen) for w in found.widths if w not in chosen}
    return DerivedAxes(
        axes.shapes,
        axes.parts,
        axes.widths,
        axes.frozen,
        whole={**{w: why for w, why in unused.items() if why}, **whole},
        num_slices=num_slices,
        balanced=frozenset(
            part.width
            for parts in axes.parts.values()
            for axis in parts
            for part in axis
            if part.width and part.summed and part.power != 1.0
        ),
    )


def only(axes: Axes, widths: Collection[str]) -> Axes:
    """Return the same axes with only these widths cut."""

    def uncut(axis: tuple[Part, ...]) -> tuple[Part, ...]:
        parts: list[Part] = []
        for part in axis:
            if part.width not in widths:
                part = Part(None, part.length(axes.widths))
                if parts and parts[-1].width is None:
                    part = Part(None, parts.pop().block + part.block)
            parts.append(part)
        return tuple(parts)

    parts = {name: tuple(uncut(axis) for axis in all_) for name, all_ in axes.parts.items()}
    return replace(axes, parts=parts, widths={w: n for w, n in axes.widths.items() if w in widths})


def _axes(model: nn.Module, tied: Tied) -> tuple[Axes, dict[str, str]]:
    """Return all widths that a layer sums over, and why the other axes are whole."""
    names: dict[Width, str] = {}
    summed: set[Width] = set()
    stays = {n for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    frozen: set[Width] = set()
    for name in [*tied.order, *tied.axes]:
        for axis, runs in enumerate(tied.axes[name]):
            for width, _ in runs:
                if width is not None:
                    names.setdefault(width, _unused_name(name, set(names.values())))
                    if (name, axis) in tied.summed:
                        summed.add(width)
                    if name in stays:
                        frozen.add(width)
    whole: dict[str, str] = {}
    for width, name in names.items():
        if width in frozen:
            whole[name] = "tied to a tensor that is frozen and stays on the clients"
        elif width not in summed:
            whole[name] = "no layer sums over it"
    cut = {width: name for width, name in names.items() if name not in whole}
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if n not in stays}
    for name in shapes:
        for axis, runs in enumerate(tied.axes[name][:2]):
            reasons = tied.why_whole(name, axis)
            if reasons and not any(w is not None for w, _ in runs):
                whole[f"{name}[{axis}]"] = "; ".join(reasons)
    parts = {
        name: tuple(
            tuple(
                Part(cut[w], block, summed_axis, float(summed_axis))
                if w in cut
                else Part(None, block if w is None else w.count * block)
                for w, block in runs
            )
            or (Part(None, 0),)
            for axis, runs in enumerate(tied.axes[name])
            for summed_axis in ((name, axis) in tied.summed,)
        )
        for name in shapes
    }
    frozen_shapes: dict[str, Shape] = {
        n: tuple(t.shape) for n, t in model.state_dict().items() if n in stays
    }
    return Axes(shapes, parts, {n: w.count for w, n in cut.items()}, frozen_shapes), whole


def _unused_name(tensor: str, used: set[str]) -> str:
    """Return a name for a width: the module's whose tensor comes first."""
    module, parametrized, _ = tensor.partition(".parametrizations.")
    if not parametrized:
        module = tensor.rpartition(".")[0] or tensor
    return next(
        name
        for k in range(len(used) + 1)
        for name in [f"{module}.{k}" if k else module]
        if name not in used
    )


def _too_few(axes: Axes, num_slices: int, widths: str | Collection[str]) -> dict[str, str]:
    """Return the widths that have too few neurons for a slice, and why."""
    fewest = _FEWEST_NEURONS if widths == "inner" else 1
    return {
        width: f"fewer than {fewest} neurons for each of {num_slices} slices; name it to cut it"
        if fewest > 1
        else f"{count} neurons are too few for {num_slices} slices"
        for width, count in axes.widths.items()
        if count < fewest * num_slices
    }


def _chosen(
    axes: Axes, whole: Mapping[str, str], widths: str | Collection[str], num_slices: int
) -> list[str]:
    able = [width for width in axes.widths if width not in whole]
    if widths == "inner":
        savings = {width: _savings(axes, width, num_slices) for width in able}
        return choose(savings, {w: n & set(able) for w, n in axes.neighbors().items()})
    if isinstance(widths, str):
        if widths != "all":
            raise ArgumentError(f"There are widths='inner' and 'all', or names, but no {widths!r}.")
        return able
    for width in widths:
        if width not in axes.widths:
            raise ArgumentError(f"There is no width {width!r}: choose of {', '.join(axes.widths)}.")
    return [width for width in able if width in widths]


def _savings(axes: Axes, width: str, num_slices: int) -> int:
    """Return twice the number of entries that belong to a width; half of it if slices get few."""
    found = 0
    for name, parts in axes.parts.items():
        for axis, all_ in enumerate(parts):
            owned = sum(p.length(axes.widths) for p in all_ if p.width == width)
            found += owned * math.prod(axes.shapes[name]) // max(1, axes.shapes[name][axis])
    return found if axes.widths[width] // num_slices < FEW_NEURONS else 2 * found


def _neighbor(axes: Axes, width: str, chosen: Collection[str]) -> str:
    meets = axes.neighbors()[width]
    if width in meets:
        return "it is on both sides of one weight"
    return next((f"next to {other!r}, which is cut" for other in chosen if other in meets), "")
