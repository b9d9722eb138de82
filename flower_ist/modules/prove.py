"""Prove that axes are right for a module, before it is cut.

Three experiments on a float64 copy with random constants and running statistics:

* permutation: the neurons of a width in another order leave the output as it is;
* slice: a slice, fitted, computes what the whole does without the other neurons' outgoing weights;
* scale: to first order in the outgoing weights, the mean of the slices is the whole.

What is declared wrongly trains without a complaint, and badly. Here it is one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flower_ist.errors import FlowerIstError
from flower_ist.modules.fit import fit
from flower_ist.modules.subject import State, Subject, as_inputs, slopes, times_along
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.partition import Indices, partition

TOLERANCE = 1e-7


class ProofError(FlowerIstError):
    """Axes are wrong for a module."""


def prove(
    model: nn.Module, axes: Axes, example_input: Any, *, scaled: bool = True, seed: int = 0
) -> None:
    """Show that a module can be cut along these axes.

    Args:
        model: the whole module; it is not changed.
        axes: derived or declared.
        example_input: its argument, or a tuple of them; two short examples are enough.
        scaled: show the scale as well; schemes that do not scale need not.
        seed: of the experiments.

    Raises:
        ProofError: with one sentence for each failure, which names tensor and width.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    declared = {**axes.shapes, **axes.frozen}
    for name in {**declared, **shapes}:
        if shapes.get(name) != declared.get(name):
            raise ProofError(
                f"The axes are not of this module: {name!r} is {declared.get(name, 'missing')} "
                f"there and {shapes.get(name, 'missing')} here."
            )
    subject = Subject(model, as_inputs(example_input), seed)
    if found := failures(subject, axes, scaled=scaled):
        raise ProofError(" ".join(found.values()))


def failures(subject: Subject, axes: Axes, *, scaled: bool = True) -> dict[str, str]:
    """Return a sentence for each width that fails an experiment."""
    found: dict[str, str] = {}
    experiments = [_permute, _slice, *([_scale] if scaled else [])]
    for experiment in experiments:
        left = [width for width in axes.widths if width not in found]
        if not left:
            break
        found |= experiment(subject, axes, left)
    return {width: found[width] for width in axes.widths if width in found}


def _permute(subject: Subject, axes: Axes, widths: Iterable[str]) -> dict[str, str]:
    """All widths at once; one by one only if that fails."""
    before = subject.outputs(subject.state)
    orders = {width: _derangement(subject, axes.widths[width]) for width in widths}

    def error(chosen: Iterable[str]) -> float:
        indices = _all_neurons(axes) | {width: orders[width] for width in chosen}
        reordered = Cut(axes, indices, scaled=False).take(subject.state)
        return _difference(subject.outputs(subject.state | reordered), before)

    if error(orders) <= TOLERANCE:
        return {}
    wrong = {width: found for width in orders if (found := error([width])) > TOLERANCE}
    return {
        width: f"Width {width!r} of {_where(axes, width)} is not one width: with its neurons in "
        f"another order the output changes by {found:.1e} of its largest value."
        for width, found in wrong.items()
    } or _together(axes, orders, "their neurons in another order")


def _slice(subject: Subject, axes: Axes, widths: Iterable[str]) -> dict[str, str]:
    kept = {
        width: np.sort(
            subject.random.permutation(axes.widths[width])[: -(-axes.widths[width] // 2)]
        )
        for width in widths
    }

    def error(chosen: Iterable[str]) -> float | str:
        cut = Cut(axes, _all_neurons(axes) | {width: kept[width] for width in chosen}, False)
        whole = subject.outputs(subject.state | _without(subject.state, cut))
        try:
            part = {n: torch.as_tensor(t) for n, t in cut.take(subject.state).items()}
            small = fit(subject.copy(), part)
            with torch.no_grad():
                return _difference(subject.vector(subject.call(small, {})).numpy(), whole)
        except Exception as err:  # whatever a user's forward raises with narrower tensors
            return f"{type(err).__name__}: {' '.join(str(err).split())[:150]}"

    def fails(result: float | str) -> bool:
        return isinstance(result, str) or result > TOLERANCE

    if not fails(error(kept)):
        return {}
    wrong = {width: found for width in kept if fails(found := error([width]))}
    return {
        width: f"A slice of width {width!r} of {_where(axes, width)} "
        + (
            f"cannot be computed: {found}."
            if isinstance(found, str)
            else f"differs by {found:.1e} from the whole without the other neurons' outgoing "
            "weights: some layer sees which neurons are missing, or it is summed elsewhere."
        )
        for width, found in wrong.items()
    } or _together(axes, kept, "a slice")


def _scale(subject: Subject, axes: Axes, widths: Iterable[str]) -> dict[str, str]:
    """Compare derivatives by a factor of a width's outgoing weights, at 0.

    There the activations of slices and whole are the same, so the mean of the slices' derivatives
    is the whole's, exactly, if and only if the scale is right. Widths in a row hide each other: the
    ones that were seen get their weights back, and the rest is looked at again.
    """
    unseen, found = list(widths), {}
    halves = partition(0, 1, {w: n for w, n in axes.widths.items() if n > 1}, 2)
    while unseen:
        whole = _derivatives(subject, axes, _all_neurons(axes), unseen)
        seen = [width for width in unseen if whole[width] != 0.0] or unseen[:1]
        if len(seen) < len(unseen):
            whole = _derivatives(subject, axes, _all_neurons(axes), seen)
        mean = dict.fromkeys(seen, 0.0)
        for half in halves:
            indices = _all_neurons(axes) | {w: half[w] for w in seen if w in half}
            for width, slope in _derivatives(subject, axes, indices, seen).items():
                mean[width] += slope * len(indices[width]) / axes.widths[width]
        for width in seen:
            if axes.widths[width] == 1:
                continue
            ratio = mean[width] / whole[width] if whole[width] else np.nan
            if not abs(ratio - 1) <= TOLERANCE:
                found[width] = _wrong_scale(axes, width, ratio)
        unseen = [width for width in unseen if width not in seen]
    return found


def _wrong_scale(axes: Axes, width: str, ratio: float) -> str:
    summed = [name for name in axes.shapes if _is_summed(axes, name, width)]
    where = ", ".join(map(repr, summed[:3])) or "no tensor"
    if np.isnan(ratio):
        return (
            f"Width {width!r} of {_where(axes, width)} has no outgoing weights of its own: it is "
            f"summed in {where}; a tensor that is looked up or added is not summed."
        )
    return (
        f"Slices of width {width!r}, summed in {where}, have the wrong scale: their mean is "
        f"{ratio:.3g} times the whole, not 1."
    )


def _derivatives(
    subject: Subject, axes: Axes, indices: Indices, widths: Iterable[str]
) -> dict[str, float]:
    """Return d(output along a random direction) / d(factor of a width's outgoing weights), at 0."""
    factors = {w: torch.zeros((), dtype=torch.float64, requires_grad=True) for w in widths}
    sizes = {width: len(rows) for width, rows in indices.items()}
    one, state = torch.ones((), dtype=torch.float64), dict[str, Tensor]()
    for name, part in Cut(axes, indices).take(subject.state).items():
        tensor = torch.as_tensor(part)
        for axis, parts in enumerate(axes.parts[name]):
            if any(p.summed and p.width in factors for p in parts):
                along = [
                    factors[p.width] if p.summed and p.width in factors else one for p in parts
                ]
                tensor = times_along(tensor, axis, along, [p.length(sizes) for p in parts])
        state[name] = tensor
    small = subject.model
    if sizes != axes.widths:
        small = fit(subject.copy(), {name: tensor.detach() for name, tensor in state.items()})
    return slopes(subject.vector(subject.call(small, state)), factors)


def _without(state: State, cut: Cut) -> State:
    """Return the whole with zeros for the outgoing weights of neurons that a slice lacks."""
    found: State = {}
    for name, axes in cut.axes.parts.items():
        tensor = state[name]
        for axis, parts in enumerate(axes):
            if any(part.summed for part in parts):
                kept = np.concatenate([_kept(part, cut) for part in parts])
                tensor = tensor * kept.reshape(-1, *[1] * (tensor.ndim - axis - 1))
        found[name] = tensor
    return found


def _kept(part: Any, cut: Cut) -> NDArray[np.float64]:
    length = part.length(cut.axes.widths)
    if part.width is None or not part.summed:
        return np.ones(length)
    return np.isin(np.arange(length) // part.block, cut.indices[part.width]).astype(np.float64)


def _all_neurons(axes: Axes) -> dict[str, NDArray[np.intp]]:
    return {width: np.arange(count) for width, count in axes.widths.items()}


def _derangement(subject: Subject, count: int) -> NDArray[np.intp]:
    order = subject.random.permutation(count)
    return np.roll(np.arange(count), 1) if (order == np.arange(count)).all() else order


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if one.shape != other.shape:
        return np.inf
    difference = float(np.abs(one - other).max(initial=0.0))
    largest = float(np.abs(other).max(initial=1e-300))
    return difference / largest if np.isfinite(difference) else np.inf


def _together(axes: Axes, widths: Iterable[str], what: str) -> dict[str, str]:
    """One sentence for all: each is right alone, and together they are not."""
    names = list(widths)
    return {
        names[0]: f"Widths {', '.join(map(repr, names))} are right one by one, but not together: "
        f"{what} changes the output; leave one of them whole."
    }


def _is_summed(axes: Axes, name: str, width: str) -> bool:
    return any(p.width == width and p.summed for parts in axes.parts[name] for p in parts)


def _where(axes: Axes, width: str) -> str:
    names = [n for n, a in axes.parts.items() if any(p.width == width for ps in a for p in ps)]
    return ", ".join(map(repr, names[:3])) + (" and others" if len(names) > 3 else "")
