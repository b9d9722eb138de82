"""Every Python process with this folder in PYTHONPATH notes how it came to its first training step.

:mod:`client_footprint` starts a SuperNode so. A process writes one line of JSON into the folder
``FLOWER_IST_PROBE`` names, when the client's training has taken its first step.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_APP, _TRAINING, _OPTIMIZER = "client_app.app", "client_app.training", "Adam"


class _Probe(MetaPathFinder):
    def __init__(self) -> None:
        self.noted: dict[str, float] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Note when the app is first imported, and have the trainer's optimizer watched."""
        if name == _APP:
            self.note("app")
        if name != _TRAINING:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                setattr(module, _OPTIMIZER, self.watched(getattr(module, _OPTIMIZER)))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def note(self, what: str) -> None:
        self.noted |= {
            f"{what}-cpu-seconds": time.process_time(),
            f"{what}-seconds": time.time() - _started(),
            f"{what}-modules": len(sys.modules),
            f"{what}-bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }

    def watched(self, optimizer: Any) -> Any:
        class Watched(optimizer):  # type: ignore[misc]
            def step(watched, *arguments: Any) -> None:  # noqa: N805
                super().step(*arguments)
                if "step-modules" not in self.noted:
                    self.note("step")
                    file = Path(os.environ["FLOWER_IST_PROBE"]) / f"{os.getpid()}.json"
                    file.write_text(json.dumps(self.noted))

        return Watched


def _started() -> float:
    """Return when this process started, in seconds since the epoch (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    return booted + ticks / os.sysconf("SC_CLK_TCK")


if "FLOWER_IST_PROBE" in os.environ:
    sys.meta_path.insert(0, _Probe())
