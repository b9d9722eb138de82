"""Classify all tokens of a shard at once; :mod:`flower_ist.use.answers` streams them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.predictor import Classifier, ClassifierError
from flower_ist.tokens.meta import Encoder, encoder_settings, unlike_settings
from flower_ist.tokens.shard import TokenShard

_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for a shard's n examples.

    Attributes:
        image_ids: (n,).
        labels: (n,) names of the shard's own classes.
        predicted: (n,) names of the model's classes.
        probability: (n,) of the predicted class.
        accuracy: fraction correct, 0 to 1; None if the shard's classes are not the model's.
    """

    image_ids: NDArray[np.int64]
    labels: NDArray[Any]
    predicted: NDArray[Any]
    probability: NDArray[np.float64]
    accuracy: float | None


def predict(classifier: Classifier, shard: TokenShard) -> Predictions:
    """Classify all examples of a shard; 4,096 tokens are in memory at a time.

    Raises:
        ClassifierError: the shard's tokens are not from the encoder that the model was trained
            with, or the encoder was run with different settings.
    """
    check_space(classifier, shard.meta.encoder)
    predicted = np.empty(len(shard), np.int64)
    probability = np.empty(len(shard))
    for start in range(0, len(shard), _ROWS_PER_BATCH):
        rows = slice(start, start + _ROWS_PER_BATCH)
        probabilities = classifier.probabilities(shard.batch(rows)[0])
        predicted[rows] = probabilities.argmax(axis=1)
        probability[rows] = probabilities.max(axis=1)
    same_classes = shard.meta.class_names == classifier.class_names
    return Predictions(
        image_ids=shard.image_ids,
        labels=np.asarray(shard.meta.class_names)[shard.labels],
        predicted=np.asarray(classifier.class_names)[predicted],
        probability=probability,
        accuracy=float((predicted == shard.labels).sum() / len(shard)) if same_classes else None,
    )


def check_space(classifier: Classifier, encoder: Encoder) -> None:
    """Refuse tokens that are not of the encoder, or the settings of it, of the model's.

    Raises:
        ClassifierError: with one sentence that says what differs.
    """
    if encoder.weights_sha256 != classifier.encoder_sha256:
        raise ClassifierError(
            f"The shard's tokens are of the encoder {encoder.name}, whose weights are not those of "
            f"{classifier.encoder} that the model was trained with: encode the images with it."
        )
    settings, trained = encoder_settings(encoder), classifier.encoder_settings
    if trained and settings != trained:
        raise ClassifierError(
            "The shard's tokens were not made as those that the model was trained on "
            f"({unlike_settings(trained, settings)}): encode the images with the model's settings."
        )
