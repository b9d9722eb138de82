"""``statistics.safetensors``: the sums that a run trains with, kept for when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flower_ist.files import write_file
from flower_ist.runs.sealed import SealError, UnreadableError, sealed, unsealed
from flower_ist.statistics.prior import TokenScale
from flower_ist.statistics.sums import Statistics, statistics_layout
from flower_ist.wire.layout import layout_of
from flower_ist.wire.protocol import CLASS_SUMS_AND_GRAM
from server_app.settings import SettingsError

STATISTICS_FILE = "statistics.safetensors"
_CLIENTS = "clients"
# Sums in float64 are kept exactly: a resumed run gets the same head.
_DTYPE = "float64"
_MEAN, _SPREAD = "mean", "spread"


class Counted(NamedTuple):
    """A client's part in the sums.

    Attributes:
        examples: for how many it counts; 0: it answered, but its answer was refused.
        digest: of its statistics; empty if they were refused.
    """

    examples: float = 0.0
    digest: str = ""


def write_statistics(
    folder: Path,
    statistics: Statistics,
    scale: TokenScale | None,
    clients: Mapping[str, Counted],
) -> None:
    """Write sums into a run's folder.

    Args:
        folder: of the run.
        statistics: the sums.
        scale: what tokens are standardized by; None if they are not.
        clients: by name, those who need not be asked again.

    Raises:
        NotWrittenError: they cannot be written.
    """
    tensors = statistics.to_tensors(_DTYPE)
    if scale is not None:
        tensors |= {_MEAN: scale.mean, _SPREAD: scale.spread}
    content = sealed(_CLIENTS, dict(sorted(clients.items())), tensors)
    write_file(folder / STATISTICS_FILE, content)


def read_statistics(
    folder: Path, num_classes: int, dim: int, *, scaled: bool
) -> tuple[Statistics, TokenScale | None, dict[str, Counted]]:
    """Return what :func:`write_statistics` wrote.

    Raises:
        SettingsError: the file is not there, was changed, or holds something else.
    """
    file = folder / STATISTICS_FILE
    layout = dict(statistics_layout(num_classes, dim, CLASS_SUMS_AND_GRAM, _DTYPE))
    if scaled:
        layout |= dict.fromkeys((_MEAN, _SPREAD), (np.dtype(np.float64), (dim,)))
    try:
        clients, tensors = unsealed(file, _CLIENTS)
        if layout_of(tensors) != layout or not isinstance(clients, dict):
            raise SealError("it holds other arrays")
    except SealError as err:
        raise SettingsError(
            f"{file} does not hold the statistics that this run began with: begin another run."
        ) from err
    except UnreadableError as err:
        raise SettingsError(
            f"{file}, the statistics that this run began with, cannot be read: {err}; begin "
            "another run."
        ) from err
    scale = TokenScale(tensors[_MEAN], tensors[_SPREAD]) if scaled else None
    counted = {name: Counted(*part) for name, part in clients.items()}
    return Statistics.from_tensors(tensors), scale, counted
