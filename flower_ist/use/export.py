"""Write a model as one file that runs without this package, and say what is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flower_ist.classifier.predictor import Classifier
from flower_ist.files import write_file
from flower_ist.tokens.recipe import Recipe
from flower_ist.tokens.shard import TokenShard
from flower_ist.use.evaluate import evaluate, labeled_shards
from flower_ist.use.head import Head, slice_head
from flower_ist.use.measures import Share
from flower_ist.use.onnx_graphs import (
    OPSET,
    ExportError,
    head_graph,
    joined,
    quantized,
    resize_graph,
    runner,
    to_bytes,
)

FORMAT = "flower-ist-export"


@dataclass(frozen=True)
class ExportSettings:
    """What is exported.

    Attributes:
        form: ``onnx`` or ``torch``.
        part: ``k/K`` for one slice; empty for the whole net.
        with_encoder: from image to probabilities; else from token to probabilities.
        whole: with the encoder, all patches of an image are read; else those of one fixed mask.
        quantize: ``int8`` or empty; of ONNX only.
    """

    form: str = "onnx"
    part: str = ""
    with_encoder: bool = False
    whole: bool = False
    quantize: str = ""


def export(
    classifier: Classifier,
    recipe: Recipe,
    out: Path,
    settings: ExportSettings,
    **encoder: str,
) -> Head:
    """Write the file, whole or not at all, and return the head that is in it.

    Args:
        classifier: the model.
        recipe: how images become its tokens.
        out: the file.
        settings: what is exported.
        encoder: ``encoder`` and ``weights`` as prep's.

    Raises:
        ExportError: settings exclude each other, or a package is missing.
        NotWrittenError: the file cannot be written.
    """
    if settings.whole and not settings.with_encoder:
        raise ExportError("A mask is drawn before an encoder: give --with-encoder, too.")
    head = Head.of(classifier)
    if settings.part:
        head = slice_head(head, settings.part, classifier.settings)
    about = {
        "format": FORMAT,
        "class_names": json.dumps(classifier.class_names),
        "recipe": json.dumps(recipe.to_json()),
        "input": "image" if settings.with_encoder else "token",
        "mask": "none" if settings.whole else "of image 0" if settings.with_encoder else "",
        "slice": head.part,
        "quantized": settings.quantize,
    }
    if settings.form == "torch":
        if settings.quantize:
            raise ExportError("Only ONNX files are quantized: leave out --quantize or --format.")
        from data_prep.stream.programs import torch_program

        skip = None if head.skip is None else (head.skip.weight, head.skip.bias)
        before = recipe if settings.with_encoder else None
        content = torch_program(head.layers, skip, about, before, whole=settings.whole, **encoder)
    else:
        graph = head_graph(head)
        if settings.with_encoder:
            from data_prep.stream.programs import encoder_onnx

            pixels = resize_graph(recipe.encoder.image_size, recipe.encoder.interpolation)
            body = encoder_onnx(recipe, opset=OPSET, whole=settings.whole, **encoder)
            graph = joined(joined(pixels, body, "pixels"), graph, "token")
        content = to_bytes(quantized(graph) if settings.quantize else graph, about)
    write_file(out, content)
    return head


def accuracy_of_file(
    file: Path, form: str, head: Head, classifier: Classifier, shards: Sequence[TokenShard]
) -> Share:
    """Return the accuracy of an exported head on shards: an ONNX file's by onnxruntime.

    Raises:
        ClassifierError: a shard's encoder or classes are not the model's.
        ExportError: onnxruntime is missing.
    """
    model = head.logits if form == "torch" else runner(file.read_bytes())
    exported = replace(classifier, model=model)
    return evaluate(exported, labeled_shards(exported, shards)).measures.accuracy
