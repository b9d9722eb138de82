"""Read a module's graph: what each axis of each of its tensors is tied to.

``torch.export`` gives the graph of ATen operations; each is read once, by its rule. An operation
without a rule keeps whole what it touches.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from flower_ist.errors import FlowerIstError
from flower_ist.modules import layer_rules, shape_rules
from flower_ist.modules.call import (
    RULES,
    Axes,
    Axis,
    Call,
    NoRule,
    Origin,
    Value,
    shapes_of,
    uncut_axes,
)
from flower_ist.modules.subject import operation_by_operation
from flower_ist.modules.widths import Runs, Width, Widths, fresh, resolve, uncut

# Importing them has filled the table.
_RULE_FILES = (layer_rules, shape_rules)
# An ambiguous view is found out in one reading, and what lies behind it in the next.
_MOST_READINGS = 5


class DeriveError(FlowerIstError):
    """A module cannot be read."""


@dataclass
class Tied:
    """What the graph says of a module's tensors.

    Attributes:
        axes: name of each tensor of the state -> for each axis, its runs.
        summed: the axes (tensor, axis) that a layer sums over.
        order: names of the tensors in the order in which they are first used.
        starts: name of each tensor -> the width that each axis was at first, None for one entry.
    """

    axes: dict[str, list[Runs]]
    summed: set[Origin]
    order: list[str]
    starts: dict[str, list[Width | None]]

    def why_whole(self, name: str, axis: int) -> list[str]:
        """Return why an axis, or some of it, is kept whole."""
        start = self.starts[name][axis]
        reasons: dict[str, None] = {}
        waiting = [] if start is None else [start]
        while waiting:
            width = waiting.pop()
            if width.why:
                reasons[width.why] = None
            waiting += [w for w, _ in width.into or [] if w is not None]
        return list(reasons)


def export(model: nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    """Return a module's graph in evaluation mode.

    Raises:
        DeriveError: torch cannot export the module.
    """
    training = model.training
    try:
        with operation_by_operation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model.eval(), inputs, strict=False)
    except Exception as err:  # whatever a user's forward raises, and torch's own complaints
        reason = " ".join(str(err).split())[:200]
        raise DeriveError(
            f"torch.export cannot read {type(model).__name__}: {type(err).__name__}: {reason}. "
            "Declare its axes with Axes.declare and have them proven."
        ) from err
    finally:
        model.train(training)


def tied_axes(model: nn.Module, program: ExportedProgram) -> Tied:
    """Return what each axis of each tensor of a module's state is tied to."""
    by_parts: set[object] = set()
    for _ in range(_MOST_READINGS):
        known = len(by_parts)
        tied = _Reading(model.state_dict(), program, by_parts).read()
        if len(by_parts) == known:
            break
    return tied


class _Reading:
    """One reading of a graph."""

    def __init__(
        self, state: Mapping[str, Tensor], program: ExportedProgram, by_parts: set[object]
    ) -> None:
        self.program = program
        self.by_parts = by_parts
        self.widths = Widths()
        self.values: dict[Node, Value] = {}
        self.of_parameters: set[Node] = set()  # computed from parameters alone
        self.summed: set[Origin] = set()
        self.owned: set[Origin] = set()
        self.order: dict[str, None] = {}
        # A parameter that has two names is one: the name that comes first.
        self.first_name: dict[str, str] = {}
        seen: dict[object, str] = {}
        for name, tensor in state.items():
            key = (tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else name
            self.first_name[name] = seen.setdefault(key, name)
        self.parameters: dict[str, Axes] = {
            name: [
                Axis(start(length), frozenset({(name, axis)}))
                for start in (fresh if state[name].is_floating_point() else uncut,)
                for axis, length in enumerate(state[name].shape)
            ]
            for name in seen.values()
        }

    def read(self) -> Tied:
        signature = self.program.graph_signature
        targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in self.program.graph_module.graph.nodes:
            self.widths.at = node.name
            if node.op == "placeholder":
                name = self.first_name.get(targets.get(node.name, ""))
                shape = shapes_of(node)
                if name is not None:
                    self.values[node] = self.parameters[name]
                    self.of_parameters.add(node)
                elif isinstance(shape, tuple):
                    self.values[node] = uncut_axes(shape)
            elif node.op == "output":
                self._keep_whole("the model's output", node.all_input_nodes)
            elif node.target is operator.getitem:
                value = self.values.get(node.args[0])
                self.values[node] = value[node.args[1]] if isinstance(value, list) else None
            elif node.op == "call_function":
                self._call(node)
        self.widths.at = ""
        for name, axis in self.summed & self.owned:
            why = "used both ways: summed over in one place, not in another"
            self.widths.keep_whole(self.parameters[name][axis].runs, why)
        return Tied(
            {n: [resolve(a.runs) for a in self.parameters[f]] for n, f in self.first_name.items()},
            {(n, axis) for n, f in self.first_name.items() for m, axis in self.summed if m == f},
            list(self.order),
            {n: [a.runs[0][0] for a in self.parameters[f]] for n, f in self.first_name.items()},
        )

    def _call(self, node: Node) -> None:
        name = str(getattr(node.target, "name", lambda: node.target)())
        name = name.removeprefix("aten::").partition(".")[0]
        inputs = node.all_input_nodes
        for source in inputs:
            if source in self.of_parameters:
                self.order |= {n: None for axis in self._axes(source) for n, _ in axis.origins}
        call = Call(node, name, _arguments(node), self.widths, self.values, self.by_parts)
        shape = shapes_of(node)
        try:
            if name not in RULES:
                raise NoRule(name)
            self.values[node] = RULES[name](call)
        except NoRule as missing:
            if shape is not None:
                self._keep_whole(f"no rule for {missing}", inputs)
            shapes = shape if isinstance(shape, list) else [shape]
            axes = [uncut_axes(one) if one is not None else None for one in shapes]
            self.values[node] = axes if isinstance(shape, list) else axes[0]
        self._note_use(node, inputs, call.contracted)

    def _note_use(self, node: Node, inputs: Sequence[Node], contracted: set[Origin]) -> None:
        """Note which of the parameters' axes are summed over, and which reach the result."""
        self.summed |= contracted
        mixed = any(source not in self.of_parameters for source in inputs)
        for source in inputs:
            if source in self.of_parameters and (mixed or contracted):
                for axis in self._axes(source):
                    self.owned |= axis.origins - contracted
        if inputs and not mixed:
            self.of_parameters.add(node)
        else:
            self.values[node] = _without_origins(self.values[node])

    def _axes(self, node: Node) -> Axes:
        value = self.values.get(node)
        return [axis for axis in value if isinstance(axis, Axis)] if isinstance(value, list) else []

    def _keep_whole(self, why: str, nodes: Sequence[Node]) -> None:
        for node in nodes:
            value = self.values.get(node)
            tensors = value if isinstance(value, list) else []
            for axes in [tensors, *(t for t in tensors if isinstance(t, list))]:
                for axis in axes:
                    if isinstance(axis, Axis):
                        self.widths.keep_whole(axis.runs, why)


def _arguments(node: Node) -> dict[str, Any]:
    """Return an operation's arguments by name, those that are not given too."""
    schema = getattr(node.target, "_schema", None)  # public in no other place; torch prints it
    if schema is None:
        return dict(node.kwargs)
    named = {}
    for place, argument in enumerate(schema.arguments):
        given = node.args[place] if place < len(node.args) else argument.default_value
        named[argument.name] = node.kwargs.get(argument.name, given)
    return named


def _without_origins(value: Value) -> Value:
    if not isinstance(value, list):
        return value
    return [Axis(item.runs) if isinstance(item, Axis) else _without_origins(item) for item in value]
