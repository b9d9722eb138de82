"""Pre-train an encoder in a folder: progress, one line per epoch, pictures, and resuming.

The folder holds

* ``encoder.safetensors``  float16 weights that describe themselves, for ``prep --encoder``;
* ``state.pt``             model and optimizer after the last full epoch, to resume from;
* ``loss.jsonl``           one line per epoch: mean loss, learning rate, images per second;
* ``loss.png``, ``reconstruction.png``  the curve; and images, their kept patches, the decoder's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from data_prep import PrepError
from data_prep.encoders.checkpoints import Description, write_encoder
from data_prep.images.image_set import ImageSet
from data_prep.pretrain.settings import PretrainSettings
from data_prep.pretrain.train import Pretraining
from data_prep.progress import image_progress
from flower_ist.console import terminal
from flower_ist.figure import new_figure, to_png
from flower_ist.files import is_unfinished, make_folder, write_file

ENCODER_FILE, STATE_FILE, LOSS_FILE = "encoder.safetensors", "state.pt", "loss.jsonl"
_PICTURED = 8


def pretrain(
    data: ImageSet,
    out: Path,
    settings: PretrainSettings,
    *,
    device: str = "cpu",
    label: str = "",
    console: Console | None = None,
) -> Path:
    """Train until ``settings.epochs``, resuming after the last full epoch found in ``out``.

    A run that was stopped ends with the weights of one that was not, on the same machine with as
    many threads.

    Args:
        data: The images; their labels are not used.
        out: The folder, made if needed.
        settings: How to train.
        device: Where torch trains.
        label: What shards will call the encoder; empty for a name made from the source.
        console: Where progress is shown; None for a new one.

    Returns:
        The file with the encoder.

    Raises:
        PrepError: the settings, the device or the images cannot be used, or the folder holds
            another run.
        NotWrittenError: a file cannot be written.
    """
    if data.mask is not None:
        raise PrepError(
            f"These images of {data.source} are masked already: give the images themselves."
        )
    training = Pretraining(settings, device)
    own = {each.name: getattr(settings, each.name) for each in fields(PretrainSettings)}
    facts = {"settings": own, "images": _fingerprint(data)}
    lines: list[dict[str, Any]] = []
    if (out / STATE_FILE).exists():
        lines = training.load(out / STATE_FILE, facts)
    else:
        _make_folder(out)
    total, done = settings.epochs * len(data), training.epoch * len(data)
    with image_progress(console or terminal(), "Pre-training", total, done) as advance:
        while training.epoch < settings.epochs:
            lines.append(_train_epoch(training, data, advance))
            write_file(out / LOSS_FILE, "".join(json.dumps(line) + "\n" for line in lines))
            training.save(out / STATE_FILE, facts, lines)
    description = Description(
        timm=settings.vit,
        kwargs={"img_size": settings.image_size, **settings.vit_sizes()},
        normalisation=settings.normalization,
        label=label or f"masked autoencoder of {data.source}",
    )
    write_encoder(out / ENCODER_FILE, training.model.encoder, description)
    _draw_losses(lines, out / "loss.png")
    _draw_reconstruction(training, data, out / "reconstruction.png")
    return out / ENCODER_FILE


def _train_epoch(
    training: Pretraining, data: ImageSet, advance: Callable[[int, str], None]
) -> dict[str, Any]:
    """Train one epoch and return its line of the log."""
    settings = training.settings
    start, seen, loss = time.monotonic(), 0, 0.0
    for images, value in training.train_epoch(data):
        seen, loss = seen + images, loss + images * value
        advance(images, f"Epoch {training.epoch + 1} of {settings.epochs}, loss {value:.4f}")
    return {
        "epoch": training.epoch,
        "loss": loss / seen,
        "learning_rate": settings.learning_rate_at(training.epoch - 1),
        "images_per_second": seen / (time.monotonic() - start),
    }


def _fingerprint(data: ImageSet) -> str:
    return f"{len(data)} of {data.source}, {data.native_bytes} bytes, {data.sha256()[:16]}"


def _make_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or not all(map(_is_first_line, out.iterdir()))):
        raise PrepError(
            f"{out} exists and holds no run to resume: choose another folder or remove it."
        )
    make_folder(out)


def _is_first_line(file: Path) -> bool:
    """Return whether a file is what a run leaves that is ended while its first state is written."""
    return file.name == LOSS_FILE or is_unfinished(file)


def _draw_losses(lines: list[dict[str, Any]], file: Path) -> None:
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    axes.plot([line["epoch"] for line in lines], [line["loss"] for line in lines], marker=".")
    axes.set(xlabel="epoch", ylabel="mean squared error of dropped, normalized patches")
    axes.grid(alpha=0.3)
    write_file(file, to_png(figure))


def _draw_reconstruction(training: Pretraining, data: ImageSet, file: Path) -> None:
    rows = np.unique(np.linspace(0, len(data) - 1, min(_PICTURED, len(data))).round())
    views = training.reconstruct(data.take(rows.astype(np.intp)))
    figure = new_figure(1.1 * len(rows), 3.9)
    panels = figure.subplots(len(views), len(rows), squeeze=False)
    for name, images, line in zip(("image", "seen", "drawn"), views, panels, strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    write_file(file, to_png(figure))
