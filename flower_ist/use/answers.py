"""Answers of a model, a batch at a time, and the lines of CSV or JSON that they are written as."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.classifier.predictor import Classifier
from flower_ist.files import append_file, whole_file
from flower_ist.tables import to_csv
from flower_ist.tokens.shard import TokenShard

Write = Callable[[bytes], object]


@dataclass(frozen=True)
class Answers:
    """The answers for n images.

    Attributes:
        images: n paths, or image ids of a shard.
        probabilities: (n, C).
        labels: n names of the shard's own classes; None where images have no label.
        right: how many of the answers are the label; None if the label's classes are not the
            model's.
    """

    images: Sequence[str | int]
    probabilities: NDArray[np.float64]
    labels: Sequence[str] | None = None
    right: int | None = None

    def top(self, count: int) -> NDArray[np.intp]:
        """Return the ``count`` most probable classes of each image, (n, count), best first."""
        return np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]


def of_shard(classifier: Classifier, shard: TokenShard) -> Iterator[Answers]:
    """Yield the answers for a shard, 4,096 examples at a time.

    Raises:
        ClassifierError: the tokens are of another encoder, or of other settings of it.
    """
    classifier.check_space(shard.meta.encoder)
    same_classes = shard.meta.class_names == classifier.class_names
    names = np.asarray(shard.meta.class_names, dtype=object)
    for part in shard.chunks():
        tokens, labels = part.batch()
        found = classifier.probabilities(tokens)
        right = int((found.argmax(axis=1) == labels).sum()) if same_classes else None
        yield Answers(part.image_ids.tolist(), found, names[labels].tolist(), right)


def of_images(
    classifier: Classifier, tokens: Iterable[tuple[list[str], NDArray[np.float32]]]
) -> Iterator[Answers]:
    """Yield the answers for batches of paths and tokens (n, V, D), the mean over the V views."""
    for paths, views in tokens:
        yield Answers(paths, classifier.probabilities(views))


class AnswerLines:
    """Turns answers into lines of text.

    Args:
        form: ``csv``, whose first line names the columns, or ``json``, an object a line.
        class_names: of the model.
        top: classes of each answer, 1 and up; all if there are fewer.
    """

    def __init__(self, form: str, class_names: Sequence[str], top: int = 1) -> None:
        self._form, self._names = form, class_names
        self._top = min(top, len(class_names))
        self._header_is_due = form == "csv"

    def of(self, answers: Answers) -> bytes:
        """Return the lines of a batch; the first batch's begin with the header."""
        if self._form == "json":
            return "".join(json.dumps(row) + "\n" for row in self._objects(answers)).encode()
        rows: list[Sequence[str | int]] = list(self._rows(answers))
        if self._header_is_due:
            rows.insert(0, self._columns(labeled=answers.labels is not None))
            self._header_is_due = False
        # A file's name may hold bytes that are no text.
        return to_csv(rows).encode("utf-8", "surrogateescape")

    def _columns(self, *, labeled: bool) -> list[str]:
        found = ["image_id", "label"] if labeled else ["image"]
        for place in range(1, self._top + 1):
            suffix = "" if place == 1 else f"_{place}"
            found += [f"predicted{suffix}", f"probability{suffix}"]
        return found

    def _rows(self, answers: Answers) -> Iterator[list[str | int]]:
        for row, best in enumerate(answers.top(self._top)):
            cells: list[str | int] = [answers.images[row]]
            if answers.labels is not None:
                cells.append(answers.labels[row])
            for label in best:
                cells += [self._names[label], f"{answers.probabilities[row, label]:.6f}"]
            yield cells

    def _objects(self, answers: Answers) -> Iterator[dict[str, Any]]:
        key = "image" if answers.labels is None else "image_id"
        for row, best in enumerate(answers.top(self._top)):
            label = {} if answers.labels is None else {"label": answers.labels[row]}
            top = [
                {
                    "class": self._names[label],
                    "probability": round(float(answers.probabilities[row, label]), 6),
                }
                for label in best
            ]
            yield {key: answers.images[row], **label, "top": top}


@contextmanager
def open_output(out: Path | None, echo: Write, *, append: bool = False) -> Iterator[Write]:
    """Yield the function that takes lines as they come.

    Args:
        out: a file, written whole or not at all; None for ``echo``.
        echo: writes to standard output and flushes.
        append: add each batch to the end of ``out`` at once, for a command that never ends.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    if out is None:
        yield echo
    elif append:
        yield lambda content: append_file(out, content)
    else:
        with whole_file(out) as stream:
            yield stream.write


@dataclass
class Tally:
    """What was answered.

    Attributes:
        images: answers given.
        right: of those, equal to their label; None where that is not known.
    """

    images: int = 0
    right: int | None = 0

    @property
    def summary(self) -> str:
        """The result as one sentence."""
        if self.right is None:
            return f"{self.images} examples; there is no accuracy, as their classes are others."
        return (
            f"{100 * self.right / max(1, self.images):.2f} % of {self.images} examples are right."
        )


def write(answers: Iterable[Answers], lines: AnswerLines, put: Write) -> Tally:
    """Write each batch of answers when it comes, and count them."""
    tally = Tally()
    for batch in answers:
        put(lines.of(batch))
        tally.images += len(batch.images)
        both = None not in (tally.right, batch.right)
        tally.right = (tally.right or 0) + (batch.right or 0) if both else None
    return tally
