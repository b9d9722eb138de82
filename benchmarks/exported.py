"""Sizes, memory and latency of a model's exports, each in a process of its own.

Without arguments it makes a model of random weights, as wide as a run's default, on the embedded
encoder; a run's folder and its encoder measure that model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.numpy import save

from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from flower_ist.classifier.mlp import initial_weights
from flower_ist.classifier.predictor import load_classifier, recipe_of
from flower_ist.files import write_file
from flower_ist.tokens.meta import Mask
from flower_ist.tokens.recipe import Recipe
from flower_ist.use.export import ExportSettings, export

CASES: tuple[tuple[str, ExportSettings], ...] = (
    ("head", ExportSettings()),
    ("head, int8", ExportSettings(quantize="int8")),
    ("slice 1/4", ExportSettings(part="1/4")),
    ("slice 1/16, int8", ExportSettings(part="1/16", quantize="int8")),
    ("head, torch", ExportSettings(form="torch")),
    ("image, mask drawn", ExportSettings(with_encoder=True)),
    ("image, mask drawn, int8", ExportSettings(with_encoder=True, quantize="int8")),
    ("image, whole", ExportSettings(with_encoder=True, whole=True)),
    ("image, mask drawn, torch", ExportSettings(form="torch", with_encoder=True)),
)
"""What the table says, and what is exported."""

MEASURE = """
import json, sys, time
import numpy as np
kind, file, shape = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def resident():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
rng = np.random.default_rng(0)
if kind == "torch":
    import torch
    torch.set_num_threads(1)
    before = resident()
    model, inputs = torch.export.load(file).module(), torch.rand(shape)
    def run():
        with torch.inference_mode():
            model(inputs)
else:
    import onnxruntime
    before = resident()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)
    entry = session.get_inputs()[0]
    inputs = rng.random(shape, np.float32)
    if "uint8" in entry.type:
        inputs = (255 * inputs).astype(np.uint8)
    def run():
        session.run(["probabilities"], {entry.name: inputs})
run()
seconds = []
for _ in range(int(sys.argv[4])):
    start = time.process_time(); run(); seconds.append(time.process_time() - start)
print(json.dumps([resident() - before, resident(), float(np.median(seconds))]))
"""


def main(
    run: Annotated[Path | None, typer.Argument(help="A run's folder.")] = None,
    encoder: str = "",
    weights: str = "",
    repeats: int = 50,
) -> None:
    """Print a table: file, bytes, memory of the process, CPU milliseconds for one input."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors" if run is None else run
        if run is None:
            write_file(model, random_model())
        classifier = load_classifier(model)
        recipe = recipe_of(classifier, model)
        size = recipe.encoder.image_size
        print(
            f"{recipe.encoder.name}, {size} px, {len(classifier.class_names)} classes, one thread"
        )
        print("| file | kB | MiB more for the model | MiB in all | ms CPU |")
        print("|---|---|---|---|---|")
        for title, settings in CASES:
            file = Path(folder) / "exported"
            export(classifier, recipe, file, settings, encoder=encoder, weights=weights)
            shape = [1, classifier.dim]
            if settings.with_encoder:
                shape = [1, 3, size, size] if settings.form == "torch" else [1, size, size, 3]
            more, whole, seconds = _measured(settings.form, file, shape, repeats)
            print(
                f"| {title} | {file.stat().st_size / 1e3:.0f} | {more / 1024:.1f} | "
                f"{whole / 1024:.0f} | {1e3 * seconds:.3f} |",
                flush=True,
            )


def _measured(kind: str, file: Path, shape: list[int], repeats: int) -> tuple[float, float, float]:
    """Return KiB above the imports and in all, and the median CPU seconds of a call."""
    command = [sys.executable, "-c", MEASURE, kind, str(file), json.dumps(shape), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    more, whole, seconds = json.loads(done.stdout)
    return more, whole, seconds


def random_model() -> bytes:
    """Return a model file of random weights, 1,024 wide, on tokens of the embedded encoder."""
    opened = open_encoder(EncoderSettings())
    patches = opened.grid[0] * opened.grid[1]
    recipe = Recipe(opened.record, Mask("random", 0.5, 0, patches, patches // 2))
    tensors = initial_weights([opened.dim, 1024, 10], 0)
    header = {
        "format": "flower-ist-mlp",
        "class_names": json.dumps([str(k) for k in range(10)]),
        "recipe": json.dumps(recipe.to_json()),
    }
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, header)


if __name__ == "__main__":
    typer.run(main)
