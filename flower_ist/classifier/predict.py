"""Classify all tokens of a shard: the accuracy, and a table of the predictions."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.predictor import Classifier, ClassifierError
from flower_ist.files import write_file
from flower_ist.tokens.meta import Encoder, encoder_settings, unlike_settings
from flower_ist.tokens.shard import TokenShard

COLUMNS = ("image_id", "label", "predicted", "probability")
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

    def summary(self) -> str:
        """Return the result as one sentence."""
        if self.accuracy is None:
            return (
                f"{len(self.labels)} examples; their classes are not the model's, so there is no "
                "accuracy."
            )
        return f"{100 * self.accuracy:.2f} % of {len(self.labels)} examples are right."

    def to_csv(self) -> str:
        """Return a table with a line for each example, in the shard's order."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        chances = (f"{p:.6f}" for p in self.probability)
        writer.writerows(
            zip(self.image_ids.tolist(), self.labels, self.predicted, chances, strict=True)
        )
        return text.getvalue()


def predict(classifier: Classifier, shard: TokenShard) -> Predictions:
    """Classify all examples of a shard; 4,096 tokens are in memory at a time.

    Raises:
        ClassifierError: the shard's tokens are not from the encoder that the model was trained
            with, or the encoder was run with different settings.
    """
    _check_space(classifier, shard.meta.encoder)
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


def _check_space(classifier: Classifier, encoder: Encoder) -> None:
    if encoder.weights_sha256 != classifier.encoder_sha256:
        raise ClassifierError(
            f"The shard's tokens are of the encoder {encoder.name}, whose weights are not those of "
            f"{classifier.encoder} that the model was trained with: encode the images with it."
        )
    settings, trained = encoder_settings(encoder), classifier.encoder_settings
    if trained and settings != trained:
        found, wanted = unlike_settings(settings, trained)
        raise ClassifierError(
            f"The shard's tokens were made with {found}, but those that the model was trained on "
            f"with {wanted}: encode the images with the model's settings."
        )


def write_csv(predictions: Predictions, file: Path) -> None:
    """Write the table of the predictions, whole or not at all.

    Raises:
        NotWrittenError: it cannot be written.
    """
    write_file(file, predictions.to_csv())
