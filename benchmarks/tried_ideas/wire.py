"""Weights on their way, in few bits, with or without error feedback.

As the app's CompressedGrid does it, a slice goes out rounded to the nearest, and the client's
change comes back, is rounded stochastically, and is added to what the server holds in full.

With error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019,
https://arxiv.org/abs/1901.09847) the client keeps what rounding lost of its changes and adds it to
a later one. Here it keeps that under the weights' places in the whole model and on the model's own
scale, so that it meets its neurons again after a repartition. A real client would have to be told
which neurons it holds, which it is not, and would need the memory of the whole model.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.axes import Axes
from flower_ist.quantise import decode, encode, noise_of
from flower_ist.slicing import Tensors, entries, factor_of
from tried_ideas.ideas import Idea
from tried_ideas.tasks import Task


class Wire:
    """Carries slices to clients and back, and counts the bytes of their tensors.

    Args:
        idea: what is tried.
        axes: of the model.
        seed: of the run, and so of the stochastic rounding.
    """

    def __init__(self, idea: Idea, axes: Axes, seed: int) -> None:
        self.bytes = 0
        self._idea = idea
        self._axes = axes
        self._seed = seed
        self._kept: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(self._nothing)

    def down(self, task: Task, sent: Tensors) -> dict[str, NDArray[Any]]:
        """Return what the client receives of a slice."""
        received = {}
        for name, tensor in sent.items():
            data = encode(tensor, self._idea.wire_dtype)
            received[name] = decode(data, tensor.dtype, tensor.shape, self._idea.wire_dtype)
            self.bytes += 0 if name in task.known else len(data)
        return received

    def up(
        self, task: Task, sent: Tensors, received: Tensors, trained: Tensors
    ) -> dict[str, NDArray[Any]]:
        """Return the client's slice as the server makes it out."""
        if self._idea.wire_dtype == "float32":
            travels = [tensor for name, tensor in trained.items() if name not in task.frozen]
            self.bytes += sum(tensor.nbytes for tensor in travels)
            return dict(trained)
        noise = None if self._idea.nearest else self._noise(task)
        return {
            name: tensor + self._change(task, name, trained[name] - received[name], noise)
            for name, tensor in sent.items()
        }

    def _change(
        self, task: Task, name: str, change: NDArray[Any], noise: np.random.Philox | None
    ) -> NDArray[Any]:
        """Return what arrives of a change."""
        kept = self._kept[task.name][name]
        where = entries(self._axes, name, task.indices)
        factor = np.float32(factor_of(self._axes, name, task.indices, not task.factors))
        if self._idea.error_feedback:
            change = change + kept[where] * factor
        data = encode(change, self._idea.wire_dtype, noise)
        self.bytes += len(data)
        arrived = decode(data, change.dtype, change.shape, self._idea.wire_dtype)
        if self._idea.error_feedback:
            kept[where] = (change - arrived) / factor
        return arrived

    def _noise(self, task: Task) -> np.random.Philox:
        """Return the bits that the app's client would round with."""
        entropy = [self._seed, task.server_round, zlib.crc32(task.name.encode())]
        (noise_seed,) = np.random.SeedSequence(entropy).generate_state(1)
        return noise_of(int(noise_seed))

    def _nothing(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.zeros(shape, np.float32) for name, shape in self._axes.shapes.items()}
