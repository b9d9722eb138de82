"""``statistics.safetensors``: the sums that a run trains with, kept for when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flower_ist.files import write_file
from flower_ist.statistics.prior import TokenScale
from flower_ist.statistics.sums import Statistics, statistics_layout
from flower_ist.wire.layout import layout_of
from flower_ist.wire.protocol import CLASS_SUMS_AND_GRAM
from server_app.settings import SettingsError

STATISTICS_FILE = "statistics.safetensors"
# Sums in float64 are kept exactly: a resumed run gets the same head.
_DTYPE = "float64"
_MEAN, _SPREAD = "mean", "spread"
_CLIENTS = "clients"


def write_statistics(
    folder: Path, statistics: Statistics, scale: TokenScale | None, clients: Collection[str]
) -> None:
    """Write sums into a run's folder.

    Args:
        folder: of the run.
        statistics: the sums.
        scale: what tokens are standardized by; None if they are not.
        clients: names of those who need not be asked again.

    Raises:
        NotWrittenError: they cannot be written.
    """
    tensors = statistics.to_tensors(_DTYPE)
    if scale is not None:
        tensors |= {_MEAN: scale.mean, _SPREAD: scale.spread}
    content = save(tensors, {_CLIENTS: json.dumps(sorted(clients))})
    write_file(folder / STATISTICS_FILE, content)


def read_statistics(
    folder: Path, num_classes: int, dim: int, *, scaled: bool
) -> tuple[Statistics, TokenScale | None, set[str]]:
    """Return what :func:`write_statistics` wrote.

    Raises:
        SettingsError: the file is not there, or holds something else.
    """
    file = folder / STATISTICS_FILE
    tensors: dict[str, NDArray[Any]]
    try:
        with safe_open(file, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            clients = json.loads((opened.metadata() or {}).get(_CLIENTS, "null"))
    except (OSError, SafetensorError, ValueError) as err:
        raise SettingsError(
            f"{file}, the statistics that this run began with, cannot be read: {err}; begin "
            "another run."
        ) from err
    layout = dict(statistics_layout(num_classes, dim, CLASS_SUMS_AND_GRAM, _DTYPE))
    if scaled:
        layout |= dict.fromkeys((_MEAN, _SPREAD), (np.dtype(np.float64), (dim,)))
    if layout_of(tensors) != layout or not isinstance(clients, list):
        raise SettingsError(
            f"{file} does not hold the statistics that this run began with: begin another run."
        )
    scale = TokenScale(tensors[_MEAN], tensors[_SPREAD]) if scaled else None
    return Statistics.from_tensors(tensors), scale, {str(name) for name in clients}
