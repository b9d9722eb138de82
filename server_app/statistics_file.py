"""``statistics.safetensors``: the sums that a run trains with, kept for when it is resumed.

Beside it, the folder ``statistics`` has each client's part as it was sent, so that it can be taken
out of the sums when the client's data have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flwr.app import Array

from flower_ist.files import make_folder, write_file
from flower_ist.runs.sealed import SealError, UnreadableError, sealed, unsealed
from flower_ist.statistics.scale import TokenScale
from flower_ist.statistics.sums import Statistics, statistics_layout
from flower_ist.wire.layout import WireError, layout_of
from flower_ist.wire.packing import SQUEEZED, unpack
from flower_ist.wire.protocol import CLASS_SUMS_AND_GRAM, COMPACT, PACKED_STYPE
from server_app.settings import SettingsError

STATISTICS_FILE = "statistics.safetensors"
_CLIENTS = "clients"
# Sums in float64 are kept exactly: a resumed run gets the same head.
_DTYPE = "float64"
_MEAN, _SPREAD = "mean", "spread"
_PARTS = "statistics"
_PART, _TOLD = "part", "told"


class Counted(NamedTuple):
    """A client's part in the sums.

    Attributes:
        examples: for how many it counts; 0: it answered, but its answer was refused.
        digest: of its statistics; empty if they were refused.
        shard: what it called its data (``SHARD_KEY``); empty if it did not.
    """

    examples: float = 0.0
    digest: str = ""
    shard: str = ""

    @classmethod
    def of(cls, statistics: Statistics, shard: str) -> Counted:
        """Return the part that these statistics are."""
        return cls(float(statistics.counts.sum()), statistics.digest(), shard)


def write_statistics(
    folder: Path,
    statistics: Statistics,
    scale: TokenScale | None,
    clients: Mapping[str, Counted],
    parts: Iterable[Statistics],
) -> None:
    """Write sums into a run's folder.

    Args:
        folder: of the run.
        statistics: the sums.
        scale: what tokens are standardized by; None if they are not.
        clients: by name, those who need not be asked again.
        parts: of the sums, as clients sent them, those that are new; parts of nobody are removed.

    Raises:
        NotWrittenError: they cannot be written.
    """
    # The parts first: whatever the sums name is there.
    make_folder(folder / _PARTS)
    for part in parts:
        if part.packed:  # a client may answer with its tensors one by one: they are not kept
            digest, told = part.digest(), {_TOLD: np.frombuffer(part.packed, np.uint8)}
            write_file(_part_file(folder, digest), sealed(_PART, [digest, part.share], told))
    tensors = statistics.to_tensors(_DTYPE)
    if scale is not None:
        tensors |= {_MEAN: scale.mean, _SPREAD: scale.spread}
    content = sealed(_CLIENTS, dict(sorted(clients.items())), tensors)
    write_file(folder / STATISTICS_FILE, content)
    named = {_part_file(folder, part.digest) for part in clients.values()}
    for file in set((folder / _PARTS).glob("*.safetensors")) - named:
        file.unlink(missing_ok=True)


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


def read_part(folder: Path, digest: str, num_classes: int, dim: int) -> Statistics | None:
    """Return a client's part in the sums; None if it is not kept, or not as it was."""
    layout = statistics_layout(num_classes, dim, CLASS_SUMS_AND_GRAM, COMPACT)
    try:
        (of, share), arrays = unsealed(_part_file(folder, digest), _PART)
        if of != digest:
            return None
        told = arrays[_TOLD].tobytes()
        array = Array(SQUEEZED, (len(told),), PACKED_STYPE, told)
        part = Statistics.from_tensors(unpack(array, layout, SQUEEZED))
    except (UnreadableError, WireError):
        return None
    # Another processor may round its last bit otherwise, so its own digest may differ.
    return part if share == 1.0 else part.scaled(share)


def _part_file(folder: Path, digest: str) -> Path:
    return folder / _PARTS / f"{digest}.safetensors"
