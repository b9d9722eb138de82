"""The parts of an axis: whose entries lie where along it. Pure Python.

Most axes have one part: all entries belong to one hidden width, or to none. The weight of an LSTM
holds four gates one after the other, a fused projection q, k and v, a layer behind a concatenation
one run of columns for each branch:

    lstm.weight_hh (4 h, h)    axis 0: h | h | h | h      axis 1: h
    conv.weight (c, a + b)     axis 0: c                  axis 1: a | b
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from flower_ist.errors import FlowerIstError


class AxesError(FlowerIstError):
    """A declaration of axes does not fit the tensors."""


class Part(NamedTuple):
    """Consecutive entries of an axis.

    Attributes:
        width: the hidden width that they belong to; None if every slice has them all.
        block: entries that each neuron owns; without a width, their number.
        summed: the layer sums over them.
        power: a slice's are multiplied by ``(H / n) ** power`` (docs/method.md).
    """

    width: str | None
    block: int
    summed: bool = False
    power: float = 0.0

    def length(self, neurons: Mapping[str, int]) -> int:
        """Return the number of entries, given the number of neurons of each width."""
        return self.block if self.width is None else self.block * neurons[self.width]


# Of one axis: its width, None for no width, or its parts in order; a part is a width or None, all
# of one length, or (width, entries that each neuron owns), (None, number of entries).
AxisLabel: TypeAlias = str | Sequence[str | tuple[str | None, int] | None] | None


def spans(name: str, label: AxisLabel, length: int) -> list[tuple[str | None, int | None, int]]:
    """Return (width, entries that each neuron owns, number of entries) of an axis's parts.

    Where the label does not say how many entries a neuron owns, None stands for them. Where it
    does, the number of entries follows from the number of neurons, and 0 stands for it.

    Raises:
        AxesError: parts of one length do not fill the axis.
    """
    if label is None or isinstance(label, str):
        return [(label, None, length)]
    if length % max(1, len(label)) and any(not isinstance(part, tuple) for part in label):
        raise AxesError(
            f"An axis of {length} in {name!r} does not have {len(label)} parts of one length: "
            "declare each as (width, entries that each neuron owns)."
        )
    found: list[tuple[str | None, int | None, int]] = []
    for part in label:
        if isinstance(part, tuple):
            width, block = part
            if block < 1:
                raise AxesError(f"A part of {name!r} has {block} entries, but needs at least 1.")
            found.append((width, block, block if width is None else 0))
        else:
            found.append((part, None, length // len(label)))
    return found


def parts_of_axis(
    name: str,
    label: AxisLabel,
    length: int,
    neurons: Mapping[str, int],
    *,
    summed: bool,
) -> tuple[Part, ...]:
    """Return an axis's parts.

    Raises:
        AxesError: they do not fill the axis exactly, or a width does not divide its part.
    """
    parts = []
    for width, block, entries in spans(name, label, length):
        if width is None:
            parts.append(Part(None, entries))
            continue
        if block is None and entries % neurons[width]:
            raise AxesError(
                f"An axis of {entries} in {name!r} is not a multiple of width {width!r}, "
                f"which has {neurons[width]} neurons."
            )
        owned = entries // neurons[width] if block is None else block
        parts.append(Part(width, owned, summed, 1.0 if summed else 0.0))
    if sum(part.length(neurons) for part in parts) != length:
        raise AxesError(
            f"The parts of an axis in {name!r} have "
            f"{sum(part.length(neurons) for part in parts)} entries, but the axis has {length}."
        )
    return tuple(parts)
