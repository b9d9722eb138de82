"""One operation of an exported graph, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from flower_ist.modules.widths import Runs, Widths, resolve, uncut

Origin = tuple[str, int]


@dataclass
class Axis:
    """An axis of a tensor in the graph.

    Attributes:
        runs: whose entries lie where along it.
        origins: the parameters' axes (tensor, axis) that it comes from, if the tensor is computed
            from parameters alone.
    """

    runs: Runs
    origins: frozenset[Origin] = frozenset()


Axes = list[Axis]
# One tensor, several, or something that is no tensor.
Value = Axes | list[Any] | None


class NoRule(Exception):  # noqa: N818 - it says what is missing
    """An operation is not understood: what it touches is kept whole."""


def uncut_axes(shape: Sequence[int]) -> Axes:
    """Return the axes of a tensor of which nothing is cut."""
    return [Axis(uncut(int(length))) for length in shape]


@dataclass
class Call:
    """An operation, its arguments, and what is known of their axes.

    Attributes:
        name: e.g. ``linear``.
        args: argument by its name in the operator's schema, with defaults filled in.
        widths: what is learned of the widths.
        values: the tensors that are computed so far.
        contracted: the parameters' axes that this operation sums over.
        by_parts: the views that make parts, not blocks (:mod:`flower_ist.modules.views`).
    """

    node: Node
    name: str
    args: Mapping[str, Any]
    widths: Widths
    values: Mapping[Node, Value]
    by_parts: set[object]
    contracted: set[Origin] = field(default_factory=set)

    @property
    def out(self) -> Any:
        """The shape of the result, or the shapes of several."""
        return shapes_of(self.node)

    def has(self, name: str) -> bool:
        """Return whether a tensor is given for this argument."""
        return isinstance(self.args.get(name), Node)

    def axes(self, name: str) -> Axes:
        """Return the axes of a tensor argument."""
        return self.axes_of(self.args[name])

    def axes_of(self, node: Any) -> Axes:
        """Return the axes of a tensor."""
        value = self.values.get(node)
        if not isinstance(value, list) or not all(isinstance(axis, Axis) for axis in value):
            raise NoRule(self.name)
        return value

    def shape(self, name: str) -> Sequence[int]:
        """Return the shape of a tensor argument."""
        shape: Sequence[int] = shapes_of(self.args[name])
        return shape

    def unify(self, *axes: Axis) -> None:
        """Make axes cut alike."""
        for axis in axes[1:]:
            self.widths.unify(axes[0].runs, axis.runs)

    def contract(self, one: Axis, other: Axis) -> None:
        """Sum over an axis that two tensors share; one of them should be a parameter's."""
        self.unify(one, other)
        weight = other if other.origins else one
        if not weight.origins:
            self.keep_whole("summed in a product of two activations", one)
        self.contracted |= weight.origins

    def keep_whole(self, why: str, *axes: Axis) -> None:
        """Cut nothing of these axes."""
        for axis in axes:
            self.widths.keep_whole(axis.runs, why)

    def pick(self, why: str, *axes: Axis) -> None:
        """Keep axes whole whose entries are picked.

        If a view has made blocks of one, it makes parts of it when the network is read again.
        """
        for axis in axes:
            for width, _ in resolve(axis.runs):
                if width is not None and width.view is not None:
                    self.by_parts.add(width.view)
        self.keep_whole(why, *axes)

    def replaced(self, name: str, axis: int, new: Axis) -> Axes:
        """Return the axes of an argument with another one in the place of one of them."""
        old = self.axes(name)
        axis %= len(old)
        return [*old[:axis], new, *old[axis + 1 :]]


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def op_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of ATen operators, by name and without ``aten::``.

    A rule tells what an operation says of the widths (:meth:`Call.unify`, :meth:`Call.contract`,
    :meth:`Call.keep_whole`) and returns the axes of its result, one :class:`Axis` for each, or a
    list of them for an operation with several results.
    """

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def shapes_of(node: Any) -> Any:
    """Return the shape of a node's tensor, or of each of several; None for anything else."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if isinstance(value, torch.Tensor):
        return tuple(int(length) for length in value.shape)
    if isinstance(value, list | tuple):
        return [tuple(map(int, v.shape)) if isinstance(v, torch.Tensor) else None for v in value]
    return None
