"""Independent Subnetwork Training for Flower, with every byte on the wire counted.

The names below are what other people's ServerApps and ClientApps need. They are loaded when they
are first used, so that importing a part of this package does not import flwr or torch for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flower_ist.axes import Axes, mlp_axes
    from flower_ist.closed_form_strategy import ClosedFormStrategy
    from flower_ist.inprocess import InProcessGrid, run_in_process
    from flower_ist.meter import MeteredGrid
    from flower_ist.recorder import RoundRecorder
    from flower_ist.runlog import RunLog, read_run
    from flower_ist.strategy import ISTStrategy, SubmodelStrategy, TrainingFailedError
    from flower_ist.tokens import TokenShard, open_shard
    from flower_ist.wire import packed_mod

_HOMES = {
    "Axes": "axes",
    "mlp_axes": "axes",
    "ClosedFormStrategy": "closed_form_strategy",
    "InProcessGrid": "inprocess",
    "run_in_process": "inprocess",
    "MeteredGrid": "meter",
    "RoundRecorder": "recorder",
    "RunLog": "runlog",
    "read_run": "runlog",
    "ISTStrategy": "strategy",
    "SubmodelStrategy": "strategy",
    "TrainingFailedError": "strategy",
    "TokenShard": "tokens",
    "open_shard": "tokens",
    "packed_mod": "wire",
}

__all__ = [
    "Axes",
    "ClosedFormStrategy",
    "ISTStrategy",
    "InProcessGrid",
    "MeteredGrid",
    "RoundRecorder",
    "RunLog",
    "SubmodelStrategy",
    "TokenShard",
    "TrainingFailedError",
    "mlp_axes",
    "open_shard",
    "packed_mod",
    "read_run",
    "run_in_process",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
