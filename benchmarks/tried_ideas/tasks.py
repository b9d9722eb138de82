"""Who trains which neurons in a round: IST's slices, or slices that share a core.

The core are the neurons of each hidden width that matter most to the model of that round, by the
product of the norms of their incoming and outgoing weights. Every slice has them; the others are
divided as in IST. A core neuron is always there, another one with chance (n - c) / (H - c), where
n is the slice's width and c the core's. What a layer sums over is then unbiased if a core neuron
counts once and another one (H - c) / (n - c) times.

Such factors differ from column to column, so they are not folded into the weights, whose columns
would each need a learning rate of their own: the client multiplies the layer's inputs by them
instead and trains weights on the model's own scale. Adam does not mind the gradient's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flower_ist.axes import Axes
from flower_ist.partition import Indices, partition, permutation
from flower_ist.slicing import Tensors
from flower_ist.submodels import ist
from flower_ist.tokens import TokenShard
from tried_ideas.federation import Federation
from tried_ideas.ideas import Idea

# Of each hidden width's neurons in a slice, in order of depth.
Factors = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """What one client does in one round.

    Attributes:
        client: its shard.
        server_round: from 1.
        indices: its slice's neurons.
        factors: with which its neurons' outputs count; empty: H / n, folded into the weights, as
            in the recipe.
        frozen: names of the tensors that are not trained, and so not sent back.
        known: names of those that the client has from the round before, and so is not sent.
    """

    client: TokenShard
    server_round: int
    indices: Indices
    factors: Factors = ()
    frozen: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The client's name."""
        return self.client.meta.client


def tasks_of_round(
    idea: Idea,
    federation: Federation,
    server_round: int,
    rounds: int,
    axes: Axes,
    weights: Tensors,
) -> list[Task]:
    """Return each client's task, in order of their names, as ``SubmodelStrategy`` gives them out.

    Args:
        idea: what is tried.
        federation: whose clients they are.
        server_round: from 1.
        rounds: how many there are.
        axes: of the model.
        weights: of the model in this round, which a core depends on.
    """
    clients, seed = federation.clients, federation.seed
    full_width = idea.is_full_width(server_round, rounds)
    num_slices = 1 if full_width else idea.num_slices or len(clients)
    slots: Sequence[Indices] = ist(seed, server_round, axes.widths, [1.0] * num_slices)
    factors: Sequence[Factors] = [()] * num_slices
    if idea.core:
        slots, factors = _with_core(idea, seed, server_round, num_slices, axes, weights)
    frozen = known = frozenset[str]()
    if full_width and idea.last_layer_only:
        *hidden, _, _ = axes.shapes
        frozen = frozenset(hidden)
        known = frozen if idea.is_full_width(server_round - 1, rounds) else known
    tasks = [Task(shard, server_round, {}, (), frozen, known) for shard in clients]
    for turn, position in enumerate(permutation(seed, server_round, "clients", len(clients))):
        slot = turn % num_slices
        tasks[position] = replace(tasks[position], indices=slots[slot], factors=factors[slot])
    return tasks


def importance(axes: Axes, weights: Tensors) -> Mapping[str, NDArray[np.float32]]:
    """Return, for each hidden width, its neurons' |incoming weights| |outgoing weights|, (H,)."""
    return {
        width: np.linalg.norm(weights[f"fc{layer}.weight"], axis=1)
        * np.linalg.norm(weights[f"fc{layer + 1}.weight"], axis=0)
        for layer, width in enumerate(axes.widths, start=1)
    }


def _with_core(
    idea: Idea, seed: int, server_round: int, num_slices: int, axes: Axes, weights: Tensors
) -> tuple[list[Indices], list[Factors]]:
    """Return each slot's neurons and their factors."""
    ranked = {width: np.argsort(-score) for width, score in importance(axes, weights).items()}
    sizes = {width: round(idea.core * count) for width, count in axes.widths.items()}
    others = {width: np.sort(order[sizes[width] :]) for width, order in ranked.items()}
    divided = partition(seed, server_round, {w: len(o) for w, o in others.items()}, num_slices)
    slots: list[Indices] = []
    factors: list[Factors] = []
    for own in divided:
        slot, of_slot = {}, []
        for width, order in ranked.items():
            core, mine = order[: sizes[width]], others[width][own[width]]
            slot[width] = np.sort(np.concatenate([core, mine]))
            factor = len(others[width]) / len(mine)
            of_width = np.where(np.isin(slot[width], core), 1.0, factor)
            if idea.uniform_core:
                of_width = np.full(len(slot[width]), len(order) / len(slot[width]))
            of_slot.append(of_width.astype(np.float32))
        slots.append(slot)
        factors.append(of_slot)
    return slots, factors
