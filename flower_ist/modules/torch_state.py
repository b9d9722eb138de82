"""A torch module's state as an ArrayRecord, bfloat16 included, which numpy and so Flower lack."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord
from torch import Tensor


def sendable(tensor: Tensor) -> Tensor:
    """Return bfloat16 as float32, which holds it exactly, and anything else as it is."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def state_record(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Return the record of a ``state_dict``, in the place of ``ArrayRecord(state_dict)``.

    A strategy keeps and merges the float32 values; a client's module is bfloat16 again after
    :func:`flower_ist.modules.fit.fit`.
    """
    return ArrayRecord({name: sendable(tensor) for name, tensor in state.items()})
