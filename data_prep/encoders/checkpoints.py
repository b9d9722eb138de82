"""Files of weights that describe their network: what ``pretrain`` writes and ``prep`` opens.

They are plain ``.safetensors`` files with timm's names and one entry of metadata, in JSON, so that
any program can read them and none has to be told which network they belong to.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_prep import PrepError
from data_prep.encoders.frozen import DTYPES
from data_prep.encoders.timm import VisionTransformer
from flower_ist.errors import first_line, why_unreadable
from flower_ist.files import make_folder, write_file

METADATA_KEY = "flower-ist-encoder"
_NOT_A_SIZE = {"device", "dtype", "in_chans", "num_classes"}


class Description(TypedDict):
    """What a file of weights says about its network.

    ``timm`` is the model's name in timm and ``kwargs`` are the options that it was built with
    (``img_size``, ``patch_size``, ``depth``, ...): numbers, truth values and texts only.
    ``normalisation`` (the spelling of the format) scaled its input; ``label`` is what meta data
    call it, empty for ``timm``.
    """

    timm: str
    kwargs: dict[str, Any]
    normalisation: str
    label: str


def read_description(path: Path) -> Description:
    """Return what a ``.safetensors`` file says about its network; no weights are read.

    Raises:
        PrepError: there is no such file, or it does not describe a ViT of timm's.
    """
    if not path.is_file():
        raise PrepError(f"There is no encoder at {path}: check the path.")
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as err:
        raise PrepError(f"{path} is no safetensors file: {why_unreadable(path, err)}.") from err
    if text is None:
        raise PrepError(
            f"{path} does not describe its network: name a timm model as the encoder and give "
            "this file as its weights."
        )
    try:
        content = json.loads(text)
        named = {key: content[key] for key in ("timm", "normalisation", "label")}
        kwargs = content["kwargs"]
    except (ValueError, TypeError, KeyError) as err:
        raise PrepError(f"{path} describes its network incompletely: {first_line(err)}.") from err
    # timm's builder also takes addresses to load from; a file may only choose the ViT's own sizes.
    options = inspect.signature(VisionTransformer).parameters.keys() - _NOT_A_SIZE
    if (
        not all(isinstance(value, str) for value in named.values())
        or not isinstance(kwargs, dict)
        or not all(isinstance(value, (int, float, str)) for value in kwargs.values())
        or not kwargs.keys() <= options
    ):
        raise PrepError(f"{path} describes something else than a ViT and its sizes: {text}.")
    return Description(
        timm=named["timm"],
        kwargs=kwargs,
        normalisation=named["normalisation"],
        label=named["label"],
    )


def write_encoder(
    path: Path, model: torch.nn.Module, description: Description, dtype: str = "float16"
) -> None:
    """Write weights with their description as one ``.safetensors`` file, complete or not at all.

    Args:
        path: The file; one of that name is replaced.
        model: A timm ViT.
        description: How to build it again.
        dtype: A name in :data:`data_prep.encoders.frozen.DTYPES`, for all tensors of real numbers.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    state = {
        name: (tensor.to(DTYPES[dtype]) if tensor.is_floating_point() else tensor)
        .cpu()
        .contiguous()
        for name, tensor in model.state_dict().items()
    }
    make_folder(path.parent)
    write_file(path, save(state, {METADATA_KEY: json.dumps(description, sort_keys=True)}))
