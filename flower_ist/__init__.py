"""Independent Subnetwork Training for Flower, with the bytes of every message counted.

The names below are what other people's ServerApps and ClientApps need. They are loaded when they
are first used, so that importing a part of this package does not import flwr or torch for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flower_ist.version import __version__ as __version__

if TYPE_CHECKING:
    from flower_ist.errors import FlowerIstError as FlowerIstError
    from flower_ist.grids.chain import Filter as Filter
    from flower_ist.grids.chain import FilteredGrid as FilteredGrid
    from flower_ist.grids.inprocess import InProcessGrid as InProcessGrid
    from flower_ist.grids.metered import Meter as Meter
    from flower_ist.grids.metered import MeteredGrid as MeteredGrid
    from flower_ist.grids.packed import Packed as Packed
    from flower_ist.modules.adapters import adapter as adapter
    from flower_ist.modules.call import op_rule as op_rule
    from flower_ist.modules.derive import derive_axes as derive_axes
    from flower_ist.modules.fit import fit as fit
    from flower_ist.modules.prove import prove as prove
    from flower_ist.runs.app import run_in_process as run_in_process
    from flower_ist.runs.checkpoint import Checkpoint as Checkpoint
    from flower_ist.runs.checkpoint import Checkpoints as Checkpoints
    from flower_ist.runs.log import RunLog as RunLog
    from flower_ist.runs.log import read_run as read_run
    from flower_ist.runs.recorder import RoundRecorder as RoundRecorder
    from flower_ist.strategies.capacities import by_speed as by_speed
    from flower_ist.strategies.closed_form import ClosedFormStrategy as ClosedFormStrategy
    from flower_ist.strategies.replies import TrainingFailedError as TrainingFailedError
    from flower_ist.strategies.resumed import ResumedStrategy as ResumedStrategy
    from flower_ist.strategies.state import (
        load_strategy_state as load_strategy_state,
    )
    from flower_ist.strategies.state import (
        strategy_state as strategy_state,
    )
    from flower_ist.strategies.submodel import (
        ISTStrategy as ISTStrategy,
    )
    from flower_ist.strategies.submodel import (
        SubmodelStrategy as SubmodelStrategy,
    )
    from flower_ist.submodels.axes import Axes as Axes
    from flower_ist.submodels.axes import mlp_axes as mlp_axes
    from flower_ist.tokens.shard import TokenShard as TokenShard
    from flower_ist.tokens.shard import open_shard as open_shard
    from flower_ist.wire.mod import packed_mod as packed_mod

_HOMES = {
    "Axes": "submodels.axes",
    "Checkpoint": "runs.checkpoint",
    "Checkpoints": "runs.checkpoint",
    "ClosedFormStrategy": "strategies.closed_form",
    "Filter": "grids.chain",
    "FilteredGrid": "grids.chain",
    "FlowerIstError": "errors",
    "ISTStrategy": "strategies.submodel",
    "InProcessGrid": "grids.inprocess",
    "Meter": "grids.metered",
    "MeteredGrid": "grids.metered",
    "Packed": "grids.packed",
    "ResumedStrategy": "strategies.resumed",
    "RoundRecorder": "runs.recorder",
    "RunLog": "runs.log",
    "SubmodelStrategy": "strategies.submodel",
    "TokenShard": "tokens.shard",
    "TrainingFailedError": "strategies.replies",
    "adapter": "modules.adapters",
    "by_speed": "strategies.capacities",
    "derive_axes": "modules.derive",
    "fit": "modules.fit",
    "load_strategy_state": "strategies.state",
    "mlp_axes": "submodels.axes",
    "op_rule": "modules.call",
    "open_shard": "tokens.shard",
    "packed_mod": "wire.mod",
    "prove": "modules.prove",
    "read_run": "runs.log",
    "run_in_process": "runs.app",
    "strategy_state": "strategies.state",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
