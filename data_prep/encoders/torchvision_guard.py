"""Let torchvision be imported beside a torch it was not built for.

The torchvision wheel on PyPI is built for CUDA. Beside a CPU-only torch its compiled extension
cannot be loaded, and ``import torchvision`` (so ``import timm`` too) stops with ``operator
torchvision::nms does not exist``. Transforms and models need none of the compiled operators, only
their names: declaring the two schemas is enough. Compiled operators still fail when called.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def guard_torchvision() -> bool:
    """Declare torchvision's operators where its extension cannot be loaded; call it before timm.

    Returns:
        True if the operators were declared now; False if nothing had to be done.
    """
    if "torchvision" in sys.modules:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or extension_loads(Path(spec.origin).parent):
        return False
    missing = [name for name in _SCHEMAS if not _is_declared(name)]
    for name in missing:
        torch.library.define(name, _SCHEMAS[name])
    return bool(missing)


def extension_loads(package: Path) -> bool:
    """Return whether the compiled extension in torchvision's folder loads beside this torch."""
    libraries = [*package.glob("_C*.so"), *package.glob("_C*.pyd"), *package.glob("_C*.dylib")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)


def _is_declared(name: str) -> bool:
    namespace, operator = name.split("::")
    return hasattr(getattr(torch.ops, namespace), operator)
