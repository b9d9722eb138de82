"""A safetensors file that carries a hash of all that it says: JSON values and arrays.

Whatever a resumed run reads back is kept this way, or its hash is kept in such a file: a bit that
flips on the disk is found, and never becomes a weight. Nothing is pickled. The same content gives
the same bytes: the header has one entry, as safetensors shuffles several. This module imports
neither flwr nor torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flower_ist.errors import FlowerIstError

_HASH = "sha256"
_CONTENT = "content"


class UnreadableError(FlowerIstError):
    """A file is no whole safetensors file; the message says why, without the file's name."""


class SealError(UnreadableError):
    """A file can be read, but holds something else than what was sealed."""


def sealed(key: str, content: Any, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return what to write into a file.

    Args:
        key: names the header's entry.
        content: JSON values.
        arrays: name -> array of any shape.
    """
    # safetensors writes an array's memory as is: in any other order the numbers would be wrong.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # Of 10,000 clients the content is a megabyte: it is turned into text once.
    text = json.dumps(content)
    seal = f'{{"{_HASH}": "{_digest(text, ordered)}", "{_CONTENT}": {text}}}'
    return save(ordered, metadata={key: seal})


def unsealed(file: Path, key: str) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return the JSON values and the arrays that :func:`sealed` was given.

    Raises:
        UnreadableError: the file cannot be read.
        SealError: it holds something else than what was written.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            header = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        seal = json.loads(header.get(key, "null"))
    # safetensors knows dtypes that numpy lacks: a flipped bit may ask for one.
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, KeyError) as err:
        raise UnreadableError(str(err).split("\n", 1)[0]) from err
    if not isinstance(seal, dict) or not {_HASH, _CONTENT} <= seal.keys():
        raise SealError(f"its header has no sealed {key!r}")
    if seal[_HASH] != _digest(json.dumps(seal[_CONTENT]), arrays):
        raise SealError("its content does not match its hash")
    return seal[_CONTENT], arrays


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of JSON text and of arrays with their names."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)  # without a copy of a contiguous one
    return digest.hexdigest()
