"""prep over set sizes: do its costs grow linearly with images and classes?

Tiny PNG files in class folders, ten images a class, made by itself; no encoder is run and all that
surrounds one is: listing and checking the files, class names, the share held out, the split, the
plan, assembling the shards of chunks of zeros, classes.json, split.json and split.png.

Each set is larger than the one before. What the step from one to the next takes more, in seconds of
the processor, is set against its images, both as logarithms: the slope is the exponent, 1 is
linear, and what every set costs alike cancels out.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from time import process_time
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

from data_prep.encoders.frozen import FixedMask
from data_prep.masks.kinds import Grid
from data_prep.shards import prep as preparing
from data_prep.shards.settings import PrepSettings
from flower_ist.tokens.meta import Encoder

PER_CLASS = 10


class NoEncoder:
    """Tokens of zeros, four numbers wide."""

    record = Encoder(name="none", weights_sha256="0" * 64, image_size=2, patch_size=1)
    grid: Grid = (2, 2)
    dim = 4

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (B, 4) zeros."""
        return np.zeros((len(pixels), 4), np.float32)

    def fixed(self, kept: NDArray[np.int64]) -> FixedMask:
        """Return nothing that could be exported."""
        return FixedMask(torch.nn.Identity(), torch.from_numpy(kept), lambda pixels, _: pixels)


def write_set(folder: Path, images: int) -> Path:
    """Write gray images of 2 x 2 pixels into ``images / 10`` class folders."""
    for label in range(images // PER_CLASS):
        place = folder / f"class-{label:06d}"
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            Image.new("L", (2, 2), number).save(place / f"{number}.png")
    return folder


def main(
    sizes: Annotated[str, typer.Option(help="Images of each set.")] = "5000,10000,20000,40000",
    clients: int = 4,
) -> None:
    """Print one table and the exponent."""
    preparing.open_encoder = lambda settings, seed=0, image_size=None: NoEncoder()  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    counts = [int(size) for size in sizes.split(",")]
    seconds_of(100, clients)  # to import and to warm up
    seconds: list[float] = []
    print("| images | classes | CPU s | ms for each image more than in the set before |")
    print("|---|---|---|---|")
    for count in counts:
        seconds.append(seconds_of(count, clients))
        each = "-"
        if len(seconds) > 1:
            step = count - counts[len(seconds) - 2]
            each = f"{1000 * (seconds[-1] - seconds[-2]) / step:.3f}"
        print(f"| {count} | {count // PER_CLASS} | {seconds[-1]:.2f} | {each} |", flush=True)
    slope = np.polyfit(np.log(np.diff(counts)), np.log(np.diff(seconds)), 1)[0]
    print(f"exponent {slope:.2f}")


def seconds_of(images: int, clients: int) -> float:
    """Return the processor's seconds of ``prep`` on a new set of that many images."""
    with tempfile.TemporaryDirectory() as scratch:
        source = write_set(Path(scratch) / "set", images)
        out = Path(scratch) / "out"
        settings = PrepSettings(str(source), out, clients=clients, workers=0, batch_size=512)
        start = process_time()
        with redirect_stdout(io.StringIO()):
            preparing.prep(settings)
        return process_time() - start


if __name__ == "__main__":
    typer.run(main)
