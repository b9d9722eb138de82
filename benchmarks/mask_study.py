"""What dropping patches costs in accuracy and saves in bytes; one mask per image against many.

For each mask ratio the images are encoded with the project's own ``prep``, the training images each
under several masks. Then, on the same test tokens (one mask each):

* a linear probe and the project's MLP are trained on one mask per image, never redrawn (what the
  paper calls fixed);
* the same MLP, with the same steps, on all masks (the paper's random: a new mask each epoch).

The MLP is trained centrally, has the app's default width, and is evaluated after its last step, so
that nothing is chosen on the test set. The median and the range of three seeds are given. Encoding
resumes where it stopped; finished shards in ``--work`` are reused.

Without a source it runs on scikit-learn's handwritten digits with the embedded encoder, in about
two minutes. ``--help`` lists the options.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from client_app.batches import Batches
from client_app.local_settings import LocalSettings
from client_app.training import train
from data_prep.shards.prep import PrepSettings, prep
from data_prep.shards.probe import linear_probe, token_features
from data_prep.sources.open import read_source
from data_prep.splits.rows import first_of_each_class
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.mlp import initial_weights
from flower_ist.tokens.shard import TokenShard, client_folder, open_shard, test_folder

SEEDS = (0, 1, 2)
STEPS = 1500
HIDDEN = (1024, 1024)


@dataclass(frozen=True)
class Study:
    """One data set and encoder, and where the shards are kept."""

    source: str
    test: str | None
    encoder: str
    weights: str
    image_size: int | None
    views: int
    work: Path

    def shards(self, ratio: float) -> tuple[TokenShard, TokenShard]:
        """Encode, or find encoded, the training and the test shard of a mask ratio."""
        out = self.work / f"r{ratio:g}"
        if not test_folder(out).exists() or (out / ".prep").exists():
            settings = PrepSettings(
                self.source,
                out,
                test=self.test,
                encoder=self.encoder,
                weights=self.weights,
                image_size=self.image_size,
                mask_ratio=ratio,
                # Without a dropped patch all masks are one.
                views=self.views if ratio > 0 else 1,
                dtype="float32",
                clients=1,
                workers=1,
            )
            prep(settings, Console(stderr=True))
        return open_shard(client_folder(out, 0)), open_shard(test_folder(out))


def main() -> None:
    """Print one table row for each mask ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", nargs="?", help="images, as prep takes them")
    parser.add_argument("--test", help="test images, where SOURCE has none")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--weights", default="")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--ratios", default="0,0.25,0.5,0.75,0.9")
    parser.add_argument("--views", type=int, default=4, help="masks for each training image")
    parser.add_argument("--per-class", help="use the first TRAIN,TEST images of each class")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder for the shards; default: a temporary one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    threadpool_limits(args.threads)
    work = args.work or Path(tempfile.mkdtemp())
    source, test = args.source or digits(work), args.test
    if args.per_class:
        counts = [int(count) for count in args.per_class.split(",")]
        source, test = (
            first_images(path, split, count, work)
            for path, split, count in zip(
                (source, test or source), ("train", "test"), counts, strict=True
            )
        )
    study = Study(source, test, args.encoder, args.weights, args.image_size, args.views, work)
    print(
        "| mask ratio | patches kept | image B | kept patches B | token B float32 / float16 / int8 "
        "| linear probe % | MLP, one mask an image % | MLP, many masks % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for ratio in [float(text) for text in args.ratios.split(",")]:
        print(row(*study.shards(ratio)), flush=True)


def digits(work: Path) -> str:
    """Write scikit-learn's digits, values 0 to 16, as ``.npz`` and return its path."""
    work.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    file = work / "digits.npz"
    np.savez(file, x=(data.images * 255 / 16).round().astype(np.uint8), y=data.target)
    return str(file)


def first_images(path: str, split: str, count: int, work: Path) -> str:
    """Write the first images of each class of a source as ``.npz`` and return its path."""
    file = work / f"{split}-{count}.npz"
    if not file.exists():
        data = read_source(path, split)
        rows = np.sort(
            np.concatenate(first_of_each_class(data.labels, count, len(data.class_names)))
        )
        work.mkdir(parents=True, exist_ok=True)
        np.savez(
            file, x=data.take(rows).native_pixels(), y=data.labels[rows], index=data.image_ids[rows]
        )
    return str(file)


def row(training: TokenShard, testing: TokenShard) -> str:
    """Train on a shard and return its line of the table."""
    meta, views = training.meta, training.meta.mask.views
    one_mask = training.select(slice(0, None, views))
    probe = linear_probe(token_features([one_mask]), token_features([testing]), meta.num_classes)
    fixed = accuracies(one_mask, testing)
    many = spread(accuracies(training, testing)) if views > 1 else "-"
    per_image = [total / meta.num_examples for total in (meta.image_bytes, meta.masked_image_bytes)]
    return (
        f"| {meta.mask.ratio:g} | {meta.mask.kept} of {meta.mask.patches} | {per_image[0]:,.0f} "
        f"| {per_image[1]:,.0f} | {4 * meta.dim:,} / {2 * meta.dim:,} / {meta.dim + 4:,} "
        f"| {100 * probe.test_accuracy:.2f} | {spread(fixed)} | {many} |"
    )


def accuracies(training: TokenShard, testing: TokenShard) -> list[float]:
    """Return the MLP's test accuracy after its last step, for each seed."""
    found = []
    dims = [training.meta.dim, *HIDDEN, training.meta.num_classes]
    for seed in SEEDS:
        settings = LocalSettings(1, STEPS, batch_size=64, learning_rate=5e-4, seed=seed)
        weights = initial_weights(dims, seed)
        trained, _ = train(weights, Batches(training, settings, "central"))
        found.append(evaluate_arrays(trained, testing)[0])
    return found


def spread(values: list[float]) -> str:
    """Return the median and the range, in percent."""
    return f"{100 * median(values):.2f} ({100 * min(values):.2f} to {100 * max(values):.2f})"


if __name__ == "__main__":
    main()
