"""The commands that judge tokens: ``probe`` and ``probe-pixels``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep import PrepError
from data_prep.commands.common import OnError, console
from data_prep.console import print_skipped
from flower_ist.console import print_text

if TYPE_CHECKING:
    from data_prep.shards.probe import ProbeResult
    from flower_ist.tokens.shard import TokenShard

Shards = Annotated[list[Path], typer.Argument(help="Token shards to train on.")]
TestShards = Annotated[
    list[Path], typer.Option("--test", help="Token shard to test on; may be given again.")
]


def probe(train: Shards, test: TestShards) -> None:
    """Print the test accuracy of a linear probe on tokens.

    TRAIN... are token shards, folders or text files. The probe is logistic
    regression; its L2 penalty is chosen on a fifth of the training tokens.
    """
    from data_prep.shards.probe import linear_probe, token_features

    training, testing = _open(train, test)
    classes = training[0].meta.num_classes
    _print("tokens", linear_probe(token_features(training), token_features(testing), classes))


def probe_pixels(
    source: Annotated[str, typer.Argument(help="The images that the shards were made of.")],
    train: Shards,
    test: TestShards,
    test_source: Annotated[str | None, typer.Option(help="Test images, if from elsewhere.")] = None,
    on_error: OnError = "stop",
) -> None:
    """Print the test accuracy of a linear probe on the shards' images as masked pixels.

    SOURCE holds the images that the shards TRAIN... were made of. Each image's
    mask is drawn again and the pixels under dropped patches are set to zero. All
    images must be of one size.
    """
    from data_prep.shards.probe import linear_probe, pixel_features
    from data_prep.sources.open import read_source

    training, testing = _open(train, test)
    train_images = read_source(source, "train", on_error)
    test_images = read_source(test_source or source, "test", on_error)
    seen = pixel_features(training, train_images)
    unseen = pixel_features(testing, test_images)
    _print("masked pixels", linear_probe(seen, unseen, training[0].meta.num_classes))
    print_skipped(console, (*train_images.skipped, *test_images.skipped))


def _open(train: list[Path], test: list[Path]) -> tuple[list[TokenShard], list[TokenShard]]:
    from data_prep.shards.inspect import disagreements
    from flower_ist.tokens.shard import open_shard

    paths = [*train, *test]
    shards = [open_shard(path) for path in paths]
    named = [(str(path), shard.meta) for path, shard in zip(paths, shards, strict=True)]
    if wrong := disagreements(named):
        raise PrepError(wrong[0])
    return shards[: len(train)], shards[len(train) :]


def _print(features: str, result: ProbeResult) -> None:
    print_text(
        console,
        f"Linear probe on {features}: test accuracy {result.test_accuracy:.4f} "
        f"({result.train_examples} train, {result.test_examples} test, {result.dim} features, "
        f"L2 {result.l2:g} chosen at held-out accuracy {result.held_out_accuracy:.4f})",
    )
