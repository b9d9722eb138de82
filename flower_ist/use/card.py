"""The model card, RUN/README.md: what Hugging Face's model cards hold, in Markdown with a head.

Numbers come from the run's log; sizes and sentences from the test shard's meta data. Names are
other people's text: they are escaped, in the head as JSON strings, which YAML reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flower_ist.classifier.predictor import MODEL_FILE
from flower_ist.files import write_file
from flower_ist.runs.log import read_run
from flower_ist.runs.report import RunSummary, summarize
from flower_ist.tables import percent
from flower_ist.tokens.meta import ShardMeta
from flower_ist.use.licenses import license_of
from flower_ist.use.measures import Share

CARD = "README.md"
_MOST_CLASSES = 200


def write_card(run: Path, test: ShardMeta, test_examples: int, clients: Mapping[str, int]) -> Path:
    """Write the card of a finished run into its folder.

    Args:
        run: the folder, with the log and the model.
        test: meta data of the server's shard.
        test_examples: how many of its examples the accuracy is of.
        clients: name -> number of examples, 0 if unknown.

    Raises:
        RunLogError: there is no log.
        NotWrittenError: the card cannot be written; one that was there is unchanged.
    """
    size = (run / MODEL_FILE).stat().st_size
    text = card(summarize(run), read_run(run), test, test_examples, clients, size)
    write_file(run / CARD, text)
    return run / CARD


def card(
    summary: RunSummary,
    rounds: Sequence[Mapping[str, Any]],
    test: ShardMeta,
    test_examples: int,
    clients: Mapping[str, int],
    model_bytes: int,
) -> str:
    """Return the card's text.

    Args:
        summary: of the run.
        rounds: the lines of its log.
        test: meta data of the server's shard.
        test_examples: how many of its examples the accuracy is of.
        clients: name -> number of examples, 0 if unknown.
        model_bytes: of the model's file.
    """
    encoder, mask = test.encoder, test.mask
    source = _text(test.source or "the server's test images")
    last = rounds[-1]
    number = last.get("model_round", last["round"])
    model = next(line for line in reversed(rounds) if line["round"] == number)
    accuracy = model["accuracy"]
    parts = [
        _head(summary, accuracy, test),
        f"# {_text(summary.name)}",
        f"A classifier of images into {test.num_classes} classes, trained with "
        f"[Flower](https://flower.ai) and flower-ist across {len(clients)} clients. No image left "
        "its client: each was masked, encoded by a frozen network and kept there as one token of "
        f"{test.dim} numbers.",
        "## Accuracy",
        _accuracy(model, test_examples, source, summary),
        "## Classes",
        ", ".join(_text(name) for name in test.class_names[:_MOST_CLASSES])
        + ("" if test.num_classes <= _MOST_CLASSES else f" and {test.num_classes - 200} more")
        + ".",
        "## From image to token",
        _table(
            {
                "encoder": _text(encoder.name),
                "its weights": f"SHA-256 `{_text(encoder.weights_sha256)}`",
                "their license": license_of(encoder),
                "image": f"{encoder.image_size} x {encoder.image_size} pixels, "
                f"normalization {_text(encoder.normalization)}",
                "token": f"pooling {_text(encoder.pool)}, "
                + (f"block {encoder.layer}" if encoder.layer else "all blocks"),
                "mask": f"{_text(mask.kind)}, ratio {mask.ratio:g}: {mask.kept} of {mask.patches} "
                f"patches of {encoder.patch_size} x {encoder.patch_size} pixels are kept",
            }
        ),
        "## Training",
        _table(
            {
                "strategy": f"{_text(summary.strategy)}, {summary.rounds} rounds, seed "
                f"{last['seed']}",
                "clients": _clients(clients),
                "bytes on the wire": f"{summary.wire_bytes_down:,} down, "
                f"{summary.wire_bytes_up:,} up, measured on serialized messages",
                "saved on the model": _percent(summary.model_saved),
                "saved on the images": _percent(summary.input_saved),
                "privacy": _privacy(last["settings"]),
                "settings": "`settings.json`; one line a round in `run.jsonl`",
            }
        ),
        "## Limits",
        "\n".join(f"* {limit}" for limit in _limits(test)),
        "## Use",
        f"`{MODEL_FILE}` ({model_bytes:,} bytes) holds float32 tensors and, in its header, the "
        "class names and the encoder's and mask's record. No code is in it.",
        "```\n"
        "pip install 'flower-ist[prep]'\n"
        "flower-ist predict . IMAGES            # --encoder and --weights, unless it is embedded\n"
        "flower-ist evaluate . LABELED-IMAGES --out evaluation\n"
        "flower-ist export . --out model.onnx   # for onnxruntime, without torch\n"
        "```",
        "```python\n"
        "from pathlib import Path\n"
        "from flower_ist.classifier.predictor import load_classifier\n\n"
        'classifier = load_classifier(Path("."))\n'
        f"classifier.probabilities(tokens)  # (n, {test.dim}) -> (n, {test.num_classes})\n"
        "```",
    ]
    return "\n\n".join(parts) + "\n"


def _head(summary: RunSummary, accuracy: float | None, test: ShardMeta) -> str:
    """Return the YAML head that the Hub reads."""
    metric = {"type": "accuracy", "value": accuracy}
    dataset = {"name": test.source or "unknown", "type": "private", "split": test.split}
    result = {
        "task": {"type": "image-classification"},
        "dataset": dataset,
        "metrics": [metric],
    }
    entries = {
        "library_name": "flower-ist",
        "pipeline_tag": "image-classification",
        "tags": ["federated-learning", "flower", "vision-transformer"],
        "metrics": ["accuracy"],
        "model-index": [{"name": summary.name, "results": [result]}],
    }
    lines = (f"{key}: {json.dumps(value)}" for key, value in entries.items())
    return "\n".join(("---", *lines, "---"))


def _accuracy(model: Mapping[str, Any], examples: int, source: str, summary: RunSummary) -> str:
    accuracy = model["accuracy"]
    if accuracy is None:
        return "The last round was not evaluated."
    how = "chosen on other examples" if "model_round" in model else "the last one"
    low, high = (100 * end for end in Share(round(accuracy * examples), examples).interval)
    best = 100 * (summary.best_accuracy or 0.0)
    return (
        f"{100 * accuracy:.2f} % of {examples} test examples ({source}) are right after round "
        f"{model['round']}, {how}, whose model this is (95 % interval {low:.2f} to {high:.2f} %). "
        f"The best round had {best:.2f} %, but was chosen on the same examples."
    )


def _clients(clients: Mapping[str, int]) -> str:
    known = [count for count in clients.values() if count]
    if not known:
        return str(len(clients))
    sizes = f"{min(known):,} to {max(known):,}" if min(known) < max(known) else f"{known[0]:,}"
    return f"{len(clients)} with {sizes} examples each, {sum(known):,} in total"


def _privacy(settings: Mapping[str, Any]) -> str:
    noise = settings.get("privacy-noise", 0.0)
    if not noise:
        return "no noise was added: updates and statistics may tell of the examples"
    clip = settings.get("privacy-clip", 0.0)
    return f"clip {clip:g}, noise {noise:g}: `flower-ist epsilon .` prints what it is worth"


def _limits(test: ShardMeta) -> list[str]:
    return [
        "It knows these classes only, and answers one of them for any picture.",
        "The accuracy is of the test images above. On other places, cameras or seasons it may be "
        "lower: `flower-ist evaluate` measures it there.",
        f"Pictures must be encoded by the network above and lose {100 * test.mask.ratio:g} % of "
        "their patches, as the training's did; `evaluate` shows what another ratio costs.",
        "Its probabilities are not calibrated.",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{percent(share, 1)} %"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ("| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()))
    )


def _text(name: object) -> str:
    """Return a name on one line in which Markdown sees nothing but text."""
    line = "".join(c if c.isprintable() else " " for c in str(name))
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", " ".join(line.split()))
