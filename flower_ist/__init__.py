"""Independent Subnetwork Training for Flower, with every byte on the wire counted.

The names below are what other people's ServerApps and ClientApps need. They are loaded when they
are first used, so that importing a part of this package does not import flwr or torch for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flower_ist.errors import FlowerIstError
    from flower_ist.grids.chain import Filter, FilteredGrid
    from flower_ist.grids.inprocess import InProcessGrid
    from flower_ist.grids.metered import Meter, MeteredGrid
    from flower_ist.grids.packed import Packed
    from flower_ist.modules.derive import derive_axes
    from flower_ist.modules.fit import fit
    from flower_ist.modules.prove import prove
    from flower_ist.runs.app import run_in_process
    from flower_ist.runs.log import RunLog, read_run
    from flower_ist.runs.recorder import RoundRecorder
    from flower_ist.strategies.closed_form import ClosedFormStrategy
    from flower_ist.strategies.replies import TrainingFailedError
    from flower_ist.strategies.submodel import ISTStrategy, SubmodelStrategy
    from flower_ist.submodels.axes import Axes, mlp_axes
    from flower_ist.tokens.shard import TokenShard, open_shard
    from flower_ist.wire.mod import packed_mod

_HOMES = {
    "derive_axes": "modules.derive",
    "fit": "modules.fit",
    "prove": "modules.prove",
    "Axes": "submodels.axes",
    "mlp_axes": "submodels.axes",
    "FlowerIstError": "errors",
    "ClosedFormStrategy": "strategies.closed_form",
    "InProcessGrid": "grids.inprocess",
    "run_in_process": "runs.app",
    "Filter": "grids.chain",
    "FilteredGrid": "grids.chain",
    "Meter": "grids.metered",
    "MeteredGrid": "grids.metered",
    "Packed": "grids.packed",
    "RoundRecorder": "runs.recorder",
    "RunLog": "runs.log",
    "read_run": "runs.log",
    "ISTStrategy": "strategies.submodel",
    "SubmodelStrategy": "strategies.submodel",
    "TrainingFailedError": "strategies.replies",
    "TokenShard": "tokens.shard",
    "open_shard": "tokens.shard",
    "packed_mod": "wire.mod",
}

__all__ = [
    "Axes",
    "ClosedFormStrategy",
    "Filter",
    "FilteredGrid",
    "FlowerIstError",
    "ISTStrategy",
    "InProcessGrid",
    "Meter",
    "MeteredGrid",
    "Packed",
    "RoundRecorder",
    "RunLog",
    "SubmodelStrategy",
    "TokenShard",
    "TrainingFailedError",
    "derive_axes",
    "fit",
    "mlp_axes",
    "open_shard",
    "packed_mod",
    "prove",
    "read_run",
    "run_in_process",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
