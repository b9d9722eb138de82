"""Read the ``model.safetensors`` of a run, and classify tokens with it.

    classifier = load_classifier(Path("run/model.safetensors"))
    classifier.probabilities(tokens)  # (n, D) -> (n, C)

The file holds a net, ``fc1.weight`` to ``fcL.bias``, for raw encoder tokens, and optionally
a fixed head, ``skip.weight`` and ``skip.bias``, whose outputs are added to the net's
(:mod:`flower_ist.classifier.skip`). Needs numpy and safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from flower_ist.classifier.mlp import layers_of, logits, mlp_dims, mlp_shapes
from flower_ist.classifier.skip import LinearSkip, Model, softmax, with_skip
from flower_ist.errors import FlowerIstError, why_unreadable
from flower_ist.tokens.meta import Encoder, encoder_settings, unlike_settings
from flower_ist.tokens.recipe import Recipe

MODEL_FILE = "model.safetensors"
_FORMAT = "flower-ist-mlp"
_ROWS_PER_BATCH = 4096
_SKIP = ("skip.weight", "skip.bias")

Tensors = dict[str, NDArray[np.float32]]


class ClassifierError(FlowerIstError):
    """A model file, or its input, is unusable; the message says why."""


@dataclass(frozen=True)
class Classifier:
    """A trained model.

    Attributes:
        class_names: of the C classes, in the order of the probabilities.
        dim: D, the number of entries in a token.
        encoder: name of the network whose tokens it was trained on.
        encoder_sha256: hash of that network's weights.
        model: gives logits (B, C) for tokens (B, D).
        encoder_settings: how that network was run, as
            :func:`flower_ist.tokens.meta.encoder_settings` writes it; empty if unknown, as for a
            file from an older release.
        recipe: how an image becomes a token; None if unknown, as for a file from an older release.
        net: ``fc1.weight`` to ``fcL.bias``, in order of depth.
        skip: the fixed head inside, if there is one.
        settings: of the run.
    """

    class_names: tuple[str, ...]
    dim: int
    encoder: str
    encoder_sha256: str
    model: Model
    encoder_settings: str = ""
    recipe: Recipe | None = None
    net: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    skip: LinearSkip | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, tokens: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each class.

        Args:
            tokens: (n, D), as the encoder produced them, or (n, V, D) for V views of an image,
                whose logits are averaged.

        Returns:
            (n, C); each row sums to 1. The largest entry of a row is the prediction, as when the
            run's accuracy was computed.

        Raises:
            ClassifierError: the tokens have a different shape.
        """
        if tokens.ndim == 3:
            flat = self.logits(tokens.reshape(-1, tokens.shape[2]))
            return softmax(flat.reshape(*tokens.shape[:2], -1).mean(axis=1))
        return softmax(self.logits(tokens))

    def logits(self, tokens: NDArray[Any]) -> NDArray[np.float64]:
        """Return the logits (n, C) of tokens (n, D).

        At most 4,096 tokens are in memory as float32 at a time.

        Raises:
            ClassifierError: the tokens have a different shape.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.dim:
            raise ClassifierError(
                f"The tokens are of shape {list(tokens.shape)}, but this model needs "
                f"[n, {self.dim}]: use those of its encoder, {self.encoder}."
            )
        # In float64 no two classes become equal by rounding.
        found = np.empty((len(tokens), len(self.class_names)))
        with np.errstate(all="ignore"):
            for start in range(0, len(tokens), _ROWS_PER_BATCH):
                rows = slice(start, start + _ROWS_PER_BATCH)
                found[rows] = self.model(np.asarray(tokens[rows], np.float32))
        return found

    def check_space(self, encoder: Encoder) -> None:
        """Refuse tokens of another encoder than the model's, or of other settings of it.

        Raises:
            ClassifierError: with one sentence that says what differs.
        """
        if encoder.weights_sha256 != self.encoder_sha256:
            raise ClassifierError(
                f"The shard's tokens are of the encoder {encoder.name}, whose weights are not "
                f"those of {self.encoder} that the model was trained with: encode the images with "
                "it."
            )
        settings, trained = encoder_settings(encoder), self.encoder_settings
        if trained and settings != trained:
            raise ClassifierError(
                "The shard's tokens were not made as those that the model was trained on "
                f"({unlike_settings(trained, settings)}): encode the images with the model's "
                "settings."
            )


def load_classifier(path: Path) -> Classifier:
    """Read a model file, or the one in a run's folder.

    Raises:
        ClassifierError: with one sentence that says what is wrong with the file.
    """
    try:
        file = path / MODEL_FILE if path.is_dir() else path
    except OSError as err:  # as in open_shard
        raise ClassifierError(f"{path} cannot be read: {err.strerror}.") from err
    header, tensors = _read(file)
    if header.get("format") != _FORMAT:
        raise ClassifierError(
            f"{file} is of format {header.get('format')!r} instead of {_FORMAT!r}: give the "
            f"{MODEL_FILE} of a run."
        )
    head = {name: tensors.pop(name) for name in _SKIP if name in tensors}
    try:
        names = json.loads(header["class_names"])
        dims = mlp_dims({name: tensor.shape for name, tensor in tensors.items()})
        _check(names, head, dims)
        recipe = Recipe.from_json(json.loads(header["recipe"])) if "recipe" in header else None
        settings = json.loads(header.get("settings", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("its settings are not an object")
    except (KeyError, ValueError, TypeError, RecursionError) as err:
        reason = f"its header lacks {err}" if isinstance(err, KeyError) else str(err).rstrip(".")
        raise ClassifierError(f"{file} is not a whole model of this release: {reason}.") from err
    skip = LinearSkip(head["skip.weight"], head["skip.bias"]) if head else None
    return Classifier(
        class_names=tuple(names),
        dim=dims[0],
        encoder=header.get("encoder", "unknown"),
        encoder_sha256=header.get("encoder_sha256", ""),
        model=with_skip(partial(logits, layers_of(tensors)), skip),
        encoder_settings=header.get("encoder_settings", ""),
        recipe=recipe,
        net={name: tensors[name] for name in mlp_shapes(dims)},
        skip=skip,
        settings=settings,
    )


def recipe_of(classifier: Classifier, path: Path) -> Recipe:
    """Return how images become the model's tokens; ``path`` names the model in errors.

    Raises:
        ClassifierError: its file does not say.
    """
    if classifier.recipe is None:
        raise ClassifierError(
            f"{path} is of an older release, which did not record how images are masked and "
            "encoded: give it token shards, or train it again."
        )
    return classifier.recipe


def _read(file: Path) -> tuple[dict[str, str], Tensors]:
    """Return a safetensors file's header and its arrays in float32."""
    try:
        with safe_open(file, framework="numpy") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            header: dict[str, str] = opened.metadata() or {}
    except FileNotFoundError:
        raise ClassifierError(f"There is no model at {file.absolute()}: check the path.") from None
    except (OSError, SafetensorError, TypeError) as err:  # TypeError: a dtype unknown to numpy
        raise ClassifierError(
            f"{file} is not a safetensors file of arrays: {why_unreadable(file, err)}."
        ) from err
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ClassifierError(f"{file}: {name!r} does not hold finite numbers only.")
    return header, {name: array.astype(np.float32) for name, array in arrays.items()}


def _check(names: object, head: Tensors, dims: list[int]) -> None:
    """Raise ValueError if header and arrays do not match."""
    dim, num_classes = dims[0], dims[-1]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of strings")
    if len(names) != num_classes:
        raise ValueError(f"it has {len(names)} class names for {num_classes} classes")
    shapes = {name: tensor.shape for name, tensor in head.items()}
    expected = dict(zip(_SKIP, [(num_classes, dim), (num_classes,)], strict=True))
    if shapes and shapes != expected:
        raise ValueError(f"its fixed head is {shapes}, not {expected}")
