"""Evaluate a classifier's arrays on a token shard, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn import functional

from flower_ist.model import MLP
from flower_ist.tokens import TokenShard

_ROWS_PER_BATCH = 4096


def evaluate_arrays(arrays: Mapping[str, NDArray[Any]], shard: TokenShard) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy (nats) over all examples of a shard.

    At most 4,096 tokens are in memory at a time, whatever the shard's size.
    """
    model = MLP.from_arrays(arrays)
    model.eval()
    correct = 0
    loss = 0.0
    with torch.inference_mode():
        for start in range(0, len(shard), _ROWS_PER_BATCH):
            tokens, labels = shard.batch(slice(start, start + _ROWS_PER_BATCH))
            logits = model(torch.from_numpy(tokens))
            target = torch.from_numpy(labels)
            correct += int((logits.argmax(dim=1) == target).sum())
            loss += float(functional.cross_entropy(logits, target, reduction="sum"))
    return correct / len(shard), loss / len(shard)
