"""What was tried: each idea is the recipe with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RECIPE = "recipe"


@dataclass(frozen=True)
class Idea:
    """Everything that can be changed; the defaults are the recipe.

    Attributes:
        num_slices: K; 0: as many as clients.
        core: share of each hidden width that goes to every slice (:mod:`tried_ideas.tasks`).
        uniform_core: all summed weights are scaled by H / n, the core's as the others'.
        full_width_rounds: so many of the last rounds have K = 1: every client gets all neurons.
        last_layer_only: in these rounds all layers but the last are frozen.
        wire_dtype: in both directions.
        nearest: changes on the way up are rounded to the nearest, not stochastically.
        error_feedback: what rounding lost is kept by the client and sent later
            (:mod:`tried_ideas.wire`).
        replay: virtual tokens of what a client lacks.
        class_covariance: they have a covariance for each class (:mod:`tried_ideas.priors`).
        whiten: tokens are whitened instead of standardised.
        dropout: share of the hidden activations that is dropped in training.
        input_dropout: share of the tokens' coordinates.
        mixup: alpha of mixup (:mod:`tried_ideas.local`); 0: none.
        logit_adjust: a client's class frequencies are added to its logits in training.
        skip: so many times the ridge head's scores are added to the net's logits, in training and
            in prediction, and the net's last layer starts at zero (:mod:`tried_ideas.beside`).
        train_skip: clients train that head too.
        blend: weights of the ridge head beside the net in predictions; of several, each round takes
            the best on validation data. A single 0: the net alone.
    """

    num_slices: int = 0
    core: float = 0.0
    uniform_core: bool = False
    full_width_rounds: int = 0
    last_layer_only: bool = False
    wire_dtype: str = "float32"
    nearest: bool = False
    error_feedback: bool = False
    replay: bool = True
    class_covariance: bool = False
    whiten: bool = False
    dropout: float = 0.0
    input_dropout: float = 0.0
    mixup: float = 0.0
    logit_adjust: bool = False
    skip: float = 0.0
    train_skip: bool = False
    blend: tuple[float, ...] = (2.0,)

    def is_full_width(self, server_round: int, rounds: int) -> bool:
        """Return whether every client gets all neurons in a round."""
        return server_round > rounds - self.full_width_rounds


IDEAS: Mapping[str, Idea] = {
    RECIPE: Idea(),
    "core": Idea(core=1 / 8),
    "core-uniform": Idea(core=1 / 8, uniform_core=True),
    "skip": Idea(skip=10.0, blend=(0.0,)),
    "skip-blend": Idea(skip=10.0),
    "ridge-start": Idea(skip=10.0, train_skip=True),
    "learned-mix": Idea(blend=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0)),
    "int8": Idea(wire_dtype="int8"),
    "ef-int8": Idea(wire_dtype="int8", error_feedback=True),
    "int4": Idea(wire_dtype="int4"),
    "ef-int4": Idea(wire_dtype="int4", error_feedback=True),
    "int4-nearest": Idea(wire_dtype="int4", nearest=True),
    "ef-int4-nearest": Idea(wire_dtype="int4", nearest=True, error_feedback=True),
    "polish-last": Idea(full_width_rounds=2, last_layer_only=True),
    "polish-full": Idea(full_width_rounds=1),
    "two-slices": Idea(num_slices=2),
    "dropout": Idea(dropout=0.3, input_dropout=0.1),
    "mixup": Idea(mixup=0.2),
    "logit-adjust": Idea(logit_adjust=True),
    "logit-adjust-for-replay": Idea(logit_adjust=True, replay=False),
    "class-covariance": Idea(class_covariance=True),
    "whitening": Idea(whiten=True),
}
