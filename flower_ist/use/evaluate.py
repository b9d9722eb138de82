"""Evaluate a model on labeled tokens, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.predictor import Classifier, ClassifierError
from flower_ist.tokens.class_names import class_difference
from flower_ist.tokens.shard import TokenShard
from flower_ist.use.measures import Measures, Share


@dataclass(frozen=True)
class Labeled:
    """Some labeled examples.

    Attributes:
        tokens: mask ratio -> tokens (n, D); the run's own ratio is the first.
        labels: (n,) indices of the model's classes.
        owners: whose the n examples are; empty if unknown.
    """

    tokens: Mapping[float, NDArray[np.float32]]
    labels: NDArray[np.int64]
    owners: Sequence[str] = ()


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        measures: under the first mask ratio of the examples.
        ratios: mask ratio -> share of right answers, for each that was asked for.
    """

    measures: Measures
    ratios: Mapping[float, Share]


def labeled_shards(classifier: Classifier, shards: Iterable[TokenShard]) -> Iterator[Labeled]:
    """Yield the examples of shards, 4,096 at a time; a shard's client is their owner.

    Raises:
        ClassifierError: a shard's encoder or classes are not the model's.
    """
    for shard in shards:
        classifier.check_space(shard.meta.encoder)
        names = (shard.meta.class_names, classifier.class_names)
        if unlike := class_difference(*names, "the shard", "the model"):
            raise ClassifierError(f"The shard's classes are not the model's: {unlike}.")
        for part in shard.chunks():
            tokens, labels = part.batch()
            owners = [shard.meta.client] * len(labels) if shard.meta.client else []
            yield Labeled({shard.meta.mask.ratio: tokens}, labels, owners)


def evaluate(classifier: Classifier, examples: Iterable[Labeled]) -> Evaluation:
    """Classify labeled examples batch by batch.

    Raises:
        ClassifierError: there are none.
    """
    measures, ratios = Measures(classifier.class_names), dict[float, Share]()
    for batch in examples:
        for number, (ratio, tokens) in enumerate(batch.tokens.items()):
            probabilities = classifier.probabilities(tokens)
            if number == 0:
                measures.add(probabilities, batch.labels, batch.owners)
            right = int((probabilities.argmax(axis=1) == batch.labels).sum())
            before = ratios.get(ratio, Share(0, 0))
            ratios[ratio] = Share(before.right + right, before.examples + len(batch.labels))
    if not ratios:
        raise ClassifierError("There are no labeled examples to evaluate on.")
    return Evaluation(measures, ratios)
