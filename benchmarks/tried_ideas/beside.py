"""The ridge head beside the net: blended in afterwards, as the recipe does, or as a skip.

A skip adds the head's scores to the net's logits, in training too, so that the net learns what
ridge leaves over. Ridge's scores are near probabilities, so they count ten times. The scale H / n
of slices does not touch them: the whole net's logits are the mean of its slices', and each slice
has the same skip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flower_ist.evaluation import evaluate_arrays
from flower_ist.ridge_blend import RidgeBlend
from flower_ist.slicing import Tensors
from flower_ist.token_prior import TokenPrior
from tried_ideas.federation import Federation
from tried_ideas.ideas import Idea

# A trained skip is a tensor of the model that all slices share; its bias is the last layer's.
SKIP = "skip_weight"


def skip_of_ridge(idea: Idea, federation: Federation, prior: TokenPrior) -> dict[str, Any]:
    """Return the skip ``fc1.weight`` (C, D) and ``fc1.bias`` (C,), for standardised tokens."""
    head = federation.ridge()
    return {
        "fc1.weight": idea.skip * head["fc1.weight"] * prior.spread,
        "fc1.bias": idea.skip * (head["fc1.bias"] + head["fc1.weight"] @ prior.mean),
    }


@dataclass(frozen=True, kw_only=True)
class SkipBlend(RidgeBlend):
    """A ridge head beside a net with a skip.

    Attributes:
        skip_weight: (C, D), for tokens as they are.
        skip_bias: (C,).
    """

    skip_weight: NDArray[Any]
    skip_bias: NDArray[Any]

    def log_probabilities(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the blended probabilities, (B, C)."""
        weight, bias = torch.from_numpy(self.skip_weight), torch.from_numpy(self.skip_bias)
        return super().log_probabilities(logits + functional.linear(tokens, weight, bias), tokens)


@dataclass(frozen=True)
class Score:
    """A round's model on the halves of the server's shard; accuracies are 0 to 1."""

    validation: float
    test: float
    loss: float


class Evaluation:
    """Scores the models of a run.

    Args:
        idea: what is tried.
        federation: whose validation and test data they are.
        prior: that the clients train with.
        skip: of :func:`skip_of_ridge`; None without one.
    """

    def __init__(
        self, idea: Idea, federation: Federation, prior: TokenPrior, skip: Tensors | None
    ) -> None:
        self._idea = idea
        self._federation = federation
        self._prior = prior
        self._skip = skip
        self._head = RidgeBlend.of_head(federation.ridge(), 0.0)

    def score(self, weights: Tensors) -> Score:
        """Return the accuracies with the blend that is best on validation, the least of equals."""
        net = self._prior.fold({n: tensor for n, tensor in weights.items() if n != SKIP})
        blends = [self._blend(share, weights) for share in self._idea.blend]
        accuracies = [evaluate_arrays(net, self._federation.validation, b)[0] for b in blends]
        best = int(np.argmax(accuracies))
        test, loss = evaluate_arrays(net, self._federation.test, blends[best])
        return Score(accuracies[best], test, loss)

    def _blend(self, share: float, weights: Tensors) -> RidgeBlend:
        head = self._head
        if self._skip is None:
            return RidgeBlend(head.weight, head.bias, share)
        skip = dict(self._skip)
        if SKIP in weights:
            skip = {"fc1.weight": weights[SKIP], "fc1.bias": np.zeros_like(skip["fc1.bias"])}
        raw = self._prior.fold(skip)
        weight, bias = raw["fc1.weight"], raw["fc1.bias"]
        return SkipBlend(head.weight, head.bias, share, skip_weight=weight, skip_bias=bias)
