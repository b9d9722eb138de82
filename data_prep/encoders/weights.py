"""Weights from a file, fitted to a timm model: timm's own and MAE's, never from a pickle.

Read are ``.safetensors`` files, and ``.pth``, ``.pt`` and ``.bin`` files of tensors only (what
``torch.load(weights_only=True)`` accepts). The names in them may be timm's, timm's behind any
prefix, such as ``module.``, ``_orig_mod.`` or ``teacher.backbone.``, or those of MAE
(https://github.com/facebookresearch/mae), which are timm's plus a decoder that is left out. Where a
file has several networks, averaged weights come first, as in timm, and a teacher before its
student. Positions are resampled to the model's grid by timm's own converters.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from data_prep import PrepError
from data_prep.encoders.timm import architecture
from flower_ist.errors import first_line, is_lfs_pointer, why_unreadable

_PICKLED = (".pth", ".pt", ".bin")
_PREFIXES = (
    *("module.", "_orig_mod.", "model.", "teacher.", "backbone.", "encoder.", "target_encoder."),
    "student.",
)
_NESTED = (
    *("state_dict_ema", "model_ema", "ema", "teacher", "target_encoder", "model", "state_dict"),
    *("encoder", "student"),
)
"""Where a checkpoint's tensors may lie, beside other entries; the first one counts."""


def load_weights(model: torch.nn.Module, file: Path) -> str:
    """Load a checkpoint, positions resampled to the image size; return the file's SHA-256.

    Raises:
        PrepError: the file is missing, holds more than tensors, or does not fit the model.
    """
    fit_weights(model, read_tensors(file), str(file))
    return file_sha256(file)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, by which a shard's meta data name weights."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors by their names in it, half precision as float32.

    A checkpoint's tensors may lie under ``model`` or ``state_dict``, beside other entries, and so
    on; of several such entries the one that comes first in ``_NESTED`` is read.

    Raises:
        PrepError: the file is missing, of another type, damaged, or holds more than tensors.
    """
    if file.suffix not in (".safetensors", *_PICKLED) or not file.is_file():
        endings = ", ".join(_PICKLED)
        raise PrepError(
            f"There is no .safetensors checkpoint at {file} (nor {endings}): check the path."
        )
    if is_lfs_pointer(file):
        raise PrepError(f"{file} cannot be read: {why_unreadable(file, ValueError())}.")
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            # Of a pickle by another program torch warns that it may be refused, as it then is.
            with warnings.catch_warnings(action="ignore"):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        with file.open("rb") as opened:
            head = opened.read(2)
        if head != b"PK" and head[:1] != b"\x80":
            raise PrepError(f"{file} is no checkpoint: it begins with {head!r}.") from err
        raise PrepError(
            f"{file} holds Python objects, which may run code when read: save only its tensors, "
            "with torch.save(model.state_dict(), ...) or as .safetensors."
        ) from err
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as err:
        raise PrepError(
            f"{file} is damaged or no checkpoint: {why_unreadable(file, err)}."
        ) from err
    while isinstance(content, dict):
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    tensors = content.items() if isinstance(content, dict) else ()
    state = {
        str(name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors
        if isinstance(tensor, torch.Tensor)
    }
    if not state:
        raise PrepError(f"{file} holds no tensors under names: give a model's state_dict.")
    return state


def fit_weights(model: Any, state: dict[str, torch.Tensor], where: str) -> None:
    """Load tensors into a timm model, converted to its names, norm and grid.

    Weights of a classifier and of MAE's decoder are left out. If the final norm comes after the
    pooling in the checkpoint (``fc_norm``) and before it in the model (``norm``), or the other way
    round, the model's norm is moved.

    Args:
        model: A timm model, changed in place.
        state: Tensors by name.
        where: Names them in errors.

    Raises:
        PrepError: they are of another architecture.
    """
    state = _without_decoder(_without_prefix(state, list(model.state_dict())))
    # timm keeps the converter of published checkpoints beside each model.
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    config = getattr(model, "pretrained_cfg", None) or {}
    misfit = f"{where} is of another architecture than {architecture(model)}"
    try:
        state = convert(state, model) if convert else state
    except (RuntimeError, LookupError, ValueError, AssertionError, AttributeError) as err:
        raise PrepError(f"{misfit}: {first_line(err)}.") from err
    _move_norm(model, state)
    heads = config.get("classifier") or "head"
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    own = model.state_dict()
    state = {k: v for k, v in state.items() if k in own or not k.startswith(heads)}
    if mismatch := _first_mismatch(own, state):
        raise PrepError(f"{misfit}: {mismatch}.")
    # What may be missing was checked above.
    model.load_state_dict(state, strict=False)


def state_sha256(model: torch.nn.Module) -> str:
    """Return the SHA-256 of a model's tensors in order, for weights that no file holds."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _without_prefix(state: dict[str, torch.Tensor], own: Sequence[str]) -> dict[str, torch.Tensor]:
    """Strip what stands before the model's ``own`` names, and leave out what has no such prefix."""
    known = own[0]
    found = {name.removesuffix(known) for name in state if f".{name}".endswith(f".{known}")}
    if found:
        # A name such as conv1.weight also ends others; the network's prefix fits most of its names.
        best = max(
            sorted(found),
            key=lambda p: (sum(p + name in state for name in own), "student" not in p, -len(p)),
        )
        return {k.removeprefix(best): v for k, v in state.items() if k.startswith(best)}
    # Names that timm converts: what stands before them is known only by what it is usually called.
    while prefix := next((p for p in _PREFIXES if any(n.startswith(p) for n in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def _without_decoder(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A mask token without a decoder is DINOv2's, and a sign that timm's converter looks for.
    if not any(name.startswith("decoder_") for name in state):
        return state
    return {k: v for k, v in state.items() if not k.startswith(("decoder_", "mask_token"))}


def _move_norm(model: Any, state: dict[str, torch.Tensor]) -> None:
    if not hasattr(model, "norm") or not hasattr(model, "fc_norm"):
        return
    for there, other in (("fc_norm", "norm"), ("norm", "fc_norm")):
        only = f"{there}.weight" in state and f"{other}.weight" not in state
        if only and isinstance(getattr(model, there), torch.nn.Identity):
            model.norm, model.fc_norm = model.fc_norm, model.norm
            return


def _first_mismatch(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str:
    for name, tensor in own.items():
        # Old checkpoints lack BatchNorm's counter, which only training reads.
        if name not in state and not name.endswith(".num_batches_tracked"):
            return f"it lacks {name}"
        if name in state and state[name].shape != tensor.shape:
            return f"its {name} is {list(state[name].shape)}, not {list(tensor.shape)}"
    unknown = [name for name in state if name not in own]
    return f"it also has {unknown[0]}" if unknown else ""
