"""Share a slice's scale between the two sides of its neurons, where the module allows it.

A slice's outgoing weights count H / n times (docs/method.md). If they carry all of it, plain SGD
moves them n / H times as far as in the whole net, and the incoming weights H / n times as far. If a
neuron's output is proportional to its incoming weights, as behind ReLU, a linear map or the scale
of a normalization, each side can carry the square root: the slice computes the same, and SGD moves
every weight as far as in the whole net, whoever trains it and however.

Whether that is so is found out by differentiating: the output must not change when a width's
incoming weights are multiplied by c and its outgoing ones divided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from flower_ist.modules.subject import Subject, slopes, times_along
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.parts import Part

# Where the parts of a width lie: (tensor, axis, number of the part).
Place = tuple[str, int, int]

_MOST_PROPOSALS = 3
_TOLERANCE = 1e-9
# A factor that is as far from 1 as a slice's.
_FACTOR = 2.0


def balanced(subject: Subject, axes: Axes) -> Axes:
    """Return the axes with half of the power on each side of the widths that allow it."""
    proposals = {width: list(_proposals(subject, axes, width)) for width in axes.widths}
    gains: dict[str, frozenset[Place]] = {}
    for turn in range(max(map(len, proposals.values()), default=0)):
        tried = {
            width: sides[turn]
            for width, sides in proposals.items()
            if width not in gains and turn < len(sides)
        }
        unlike = _unlike(subject, axes, tried)
        gains |= {width: tried[width] for width, share in unlike.items() if share <= _TOLERANCE}
    while gains and (wrong := _wrong(subject, axes, gains)):
        del gains[wrong]
    return replace(
        axes,
        parts={
            name: tuple(
                tuple(_shared(part, (name, axis, k), gains) for k, part in enumerate(all_))
                for axis, all_ in enumerate(parts)
            )
            for name, parts in axes.parts.items()
        },
    )


def _shared(part: Part, place: Place, gains: Mapping[str, frozenset[Place]]) -> Part:
    if part.width is None or part.width not in gains:
        return part
    return part._replace(power=0.5 if part.summed or place in gains[part.width] else 0.0)


def _proposals(subject: Subject, axes: Axes, width: str) -> Iterator[frozenset[Place]]:
    """Yield what may carry a width's scale: the parameters of one module, the last one first."""
    trained = {name for name, _ in subject.model.named_parameters(remove_duplicate=False)}
    places: list[Place] = [
        (name, axis, k)
        for name, parts in axes.parts.items()
        if name in trained
        for axis, all_ in enumerate(parts)
        for k, part in enumerate(all_)
        if part.width == width and not part.summed
    ]
    modules: dict[str, list[Place]] = {}
    for place in places:
        modules.setdefault(place[0].rpartition(".")[0], []).append(place)
    yielded = 0
    for module in reversed(modules.values()):
        several = {k for _, _, k in module}
        choices = [module] if len(several) == 1 else []
        if len(several) > 1:  # the value of q, k and v, or one half of a gated unit
            choices = [[p for p in module if p[2] == k] for k in sorted(several, reverse=True)]
        for choice in choices:
            yield frozenset(choice)
            yielded += 1
            if yielded == _MOST_PROPOSALS:
                return


def _unlike(
    subject: Subject, axes: Axes, tried: Mapping[str, frozenset[Place]]
) -> dict[str, float]:
    """Return how much the output changes with c, for each width, in parts of what one side does."""
    incoming, outgoing = (
        {width: torch.ones((), dtype=torch.float64, requires_grad=True) for width in tried}
        for _ in range(2)
    )
    state = _scaled(subject, axes, tried, incoming, outgoing)
    out = subject.vector(subject.call(subject.model, state))
    factors = {(w, k): side[w] for k, side in enumerate((incoming, outgoing)) for w in tried}
    found = slopes(out, factors)
    return {
        w: abs(found[w, 0] - found[w, 1]) / abs(found[w, 1]) if found[w, 1] else np.inf
        for w in tried
    }


def _wrong(subject: Subject, axes: Axes, gains: Mapping[str, frozenset[Place]]) -> str | None:
    """Return a width whose sides cannot share a factor that is far from 1."""
    before = subject.outputs(subject.state)

    def error(widths: Mapping[str, frozenset[Place]]) -> float:
        up = {width: torch.tensor(_FACTOR, dtype=torch.float64) for width in widths}
        down = {width: 1 / factor for width, factor in up.items()}
        with torch.no_grad():
            state = _scaled(subject, axes, widths, up, down)
            after = subject.vector(subject.call(subject.model, state)).numpy()
        return float(np.abs(after - before).max() / np.abs(before).max(initial=1e-300))

    if error(gains) <= _TOLERANCE:
        return None
    errors = {width: error({width: places}) for width, places in gains.items()}
    return max(errors, key=errors.__getitem__)


def _scaled(
    subject: Subject,
    axes: Axes,
    gains: Mapping[str, frozenset[Place]],
    incoming: Mapping[str, Tensor],
    outgoing: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the state with each width's gains and its outgoing weights times a factor each."""
    one = torch.ones((), dtype=torch.float64)
    state: dict[str, Tensor] = {}
    for name, parts in axes.parts.items():
        tensor = torch.as_tensor(subject.state[name])
        for axis, all_ in enumerate(parts):
            factors = []
            for k, part in enumerate(all_):
                width = part.width or ""
                gain = (name, axis, k) in gains.get(width, ())
                side = incoming if gain else outgoing if part.summed else {}
                factors.append(side.get(width, one))
            if any(factor is not one for factor in factors):
                lengths = [part.length(axes.widths) for part in all_]
                tensor = times_along(tensor, axis, factors, lengths)
        state[name] = tensor
    return state
