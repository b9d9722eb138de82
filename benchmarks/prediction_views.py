"""What several masks of one image bring at prediction time: accuracy and encoding, by views.

Needs a run's folder, the labeled images that its test tokens were made of, and their encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from data_prep.sources.open import read_source
from data_prep.splits.rows import first_of_each_class
from data_prep.stream.tokens import open_encoding
from flower_ist.classifier.predictor import load_classifier, recipe_of

_BATCH = 32


def main(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    source: Annotated[str, typer.Argument(help="Its labeled images, as prep takes them.")],
    encoder: str = "",
    weights: str = "",
    per_class: Annotated[int, typer.Option(help="The first test images of each class.")] = 50,
    views: Annotated[int, typer.Option(help="The most masks of an image; a power of two.")] = 8,
) -> None:
    """Print a table: views, accuracy, difference to one view with its standard error, encoding."""
    classifier = load_classifier(run)
    encoding = open_encoding(recipe_of(classifier, run), encoder, weights)
    data = read_source(source, "test", classes=classifier.class_names)
    rows = first_of_each_class(data.labels, per_class, len(data.class_names))
    data = data.take(np.concatenate(rows))
    mask = encoding.mask
    whole = make_mask(mask.kind, 0.0, mask.seed, mask.patches)
    logits: dict[str, list[NDArray[np.float64]]] = {}
    for start in range(0, len(data), _BATCH):
        part = data.take(np.arange(start, min(start + _BATCH, len(data))))
        batch = encoding.prepare(part, views)
        masks = {f"view {view}": kept for view, kept in enumerate(batch.kept)}
        masks["whole"] = draw_mask(whole, part.image_ids)
        for name, kept in masks.items():
            tokens = encoding.encoder.encode(batch.pixels, kept)
            logits.setdefault(name, []).append(classifier.logits(tokens))
    found = {name: np.concatenate(parts) for name, parts in logits.items()}
    first = found["view 0"].argmax(axis=1) == data.labels
    print(f"{len(data)} images, ratio {mask.ratio}, {mask.kept} of {mask.patches} patches")
    print("| seen | accuracy % | points over one view | patches encoded |")
    print("|---|---|---|---|")
    count = 1
    while count <= views:
        mean = np.mean([found[f"view {view}"] for view in range(count)], axis=0)
        _print(f"{count} views", mean.argmax(axis=1) == data.labels, first, count * mask.kept)
        count *= 2
    _print("whole image", found["whole"].argmax(axis=1) == data.labels, first, mask.patches)


def _print(name: str, right: NDArray[np.bool_], first: NDArray[np.bool_], patches: int) -> None:
    gain = right.astype(float) - first
    error = gain.std() / np.sqrt(len(gain))
    print(
        f"| {name} | {100 * right.mean():.2f} | {100 * gain.mean():+.2f} +- {100 * error:.2f} | "
        f"{patches} |",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
