"""Predicting as a stream: images a second against encoding alone, and memory against their number.

Encoding alone is what ``prep`` does with the same files: decode, resize, mask, encode. Predicting
also draws ids from the files' content, classifies, and writes a line for each. Both are measured in
processor time of one thread, turn by turn. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
import typer
from exported import random_model
from PIL import Image

from data_prep.images.check import ReadOptions, check_files
from data_prep.images.image_set import ImageSet
from data_prep.shards.encode import Encoding
from data_prep.stream.open import image_tokens
from data_prep.stream.tokens import open_encoding
from flower_ist.classifier.predictor import Classifier, load_classifier, recipe_of
from flower_ist.files import write_file
from flower_ist.use import answers

PEAK = """
import resource, sys
from flower_ist.cli import app
try:
    app(["predict", sys.argv[1], sys.argv[2], "--out", sys.argv[3]])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main(images: int = 1000, size: int = 256, repeats: int = 3) -> None:
    """Print the ratio of the two speeds, and the peaks for a quarter of the images and for all.

    Args:
        images: JPEG files of noise and edges.
        size: Their height and width in pixels.
        repeats: Turns.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.safetensors"
        write_file(model, random_model())
        for part, count in (("few", images // 4), ("all", images)):
            (folder / part).mkdir()
            for number in range(count):
                _picture(number, size).save(folder / part / f"{number:06}.jpg")
        classifier = load_classifier(model)
        encoding = open_encoding(recipe_of(classifier, model))
        files = sorted((folder / "all").iterdir())
        data = ImageSet(
            check_files(files, "test", ReadOptions(workers=0))[0],
            np.zeros(images, np.int64),
            np.arange(images),
            ("?",),
            "noise",
        )
        ways: dict[str, Callable[[], object]] = {
            "encode": partial(_encode, encoding, data),
            "predict": partial(_predict, classifier, model, folder),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(repeats + 1):
            for way, call in ways.items():
                start = process_time()
                call()
                if turn:
                    seconds[way].append(process_time() - start)
        ratio = median(e / p for e, p in zip(seconds["encode"], seconds["predict"], strict=True))
        rates = {way: images / median(times) for way, times in seconds.items()}
        print(f"{images} JPEGs of {size} px, embedded encoder, one thread, CPU seconds")
        print(f"encoding alone {rates['encode']:.0f} images/s, predicting {rates['predict']:.0f}")
        print(f"ratio {ratio:.3f} (target: at least 0.9)")
        peaks = [_peak(model, folder / part, folder / "out.csv") for part in ("few", "all")]
        print(f"peak memory {peaks[0]:.0f} MiB for {images // 4}, {peaks[1]:.0f} MiB for {images}")


def _picture(seed: int, size: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size))


def _encode(encoding: Encoding, data: ImageSet) -> None:
    for _ in encoding.batches(data, 64):
        pass


def _predict(classifier: Classifier, model: Path, folder: Path) -> None:
    recipe = recipe_of(classifier, model)
    tokens = image_tokens(recipe, [str(folder / "all")], workers=0)
    lines = answers.AnswerLines("csv", classifier.class_names)
    with answers.open_output(folder / "out.csv", lambda content: None) as put:
        answers.write(answers.of_images(classifier, tokens), lines, put)


def _peak(model: Path, images: Path, out: Path) -> float:
    """Return the peak memory of a process that predicts, in MiB."""
    command = [sys.executable, "-c", PEAK, str(model), str(images), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout.splitlines()[-1])) / 1024


if __name__ == "__main__":
    typer.run(main)
