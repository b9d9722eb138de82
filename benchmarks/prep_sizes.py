"""prep over set sizes: do its costs grow linearly with images and classes?

Tiny PNG files in class folders, ten images a class, made by itself; no encoder is run and all that
surrounds one is: listing and checking the files, class names, the share held out, the split, the
plan, assembling the shards of chunks of zeros, classes.json, split.json and split.png. The exponent
is the slope of the logarithm of the processor seconds against that of the images: 1 is linear.

A fixed cost, such as matplotlib's first picture, is measured by the smallest set and left out.
"""

from __future__ import annotations

import tempfile
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
from data_prep.shards.prep import prep
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
    sizes: Annotated[str, typer.Option(help="Images of each set.")] = "1000,5000,10000,20000,40000",
    clients: int = 4,
) -> None:
    """Print one table, and the exponent between the second set and the last."""
    PrepSettings.open_encoder = lambda self, seed=0, image_size=None: NoEncoder()  # type: ignore[method-assign]
    counts = [int(size) for size in sizes.split(",")]
    seconds = []
    torch.set_num_threads(1)
    print("| images | classes | CPU s | more than the smallest set, CPU s | ms an image |")
    print("|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            source = write_set(Path(scratch) / "set", count)
            settings = PrepSettings(
                str(source), Path(scratch) / "out", clients=clients, workers=0, batch_size=512
            )
            start = process_time()
            prep(settings)
            seconds.append(process_time() - start)
        more, further = seconds[-1] - seconds[0], count - counts[0]
        each = f"{1000 * more / further:.3f}" if further else "-"
        classes = count // PER_CLASS
        print(f"| {count} | {classes} | {seconds[-1]:.2f} | {more:.2f} | {each} |", flush=True)
    x = np.log([count - counts[0] for count in counts[1:]])
    y = np.log([second - seconds[0] for second in seconds[1:]])
    print(f"exponent {np.polyfit(x, y, 1)[0]:.2f}")


if __name__ == "__main__":
    typer.run(main)
