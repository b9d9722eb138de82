"""The train message of one slice: its tensors and the round's settings."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

from flower_ist.blocks import Blocked, Blocks, largest
from flower_ist.classifier.initial import neurons_to_bytes
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.submodels.cut import Cut, Tensors
from flower_ist.wire.protocol import LR_SCALES_KEY, NEURONS_KEY
from flower_ist.wire.tensor_array import LazyArray


def slice_message(
    weights: Tensors,
    cut: Cut,
    node_id: int,
    config: ConfigRecord,
    *,
    max_weight: float = math.inf,
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
    name_neurons: bool = False,
) -> Message:
    """Address a slice of the model to a node; it is cut out when the message is packed or sent.

    Args:
        weights: the whole model, which must not change as long as the message is in use.
        cut: where the slice lies.
        node_id: who gets it.
        config: the round's settings; ``lr-scales`` are added to them.
        max_weight: no weight is of a larger magnitude; without it each slice is checked for values
            that overflow when they are scaled.
        arrayrecord_key: name of the ArrayRecord.
        configrecord_key: name of the ConfigRecord.
        name_neurons: also send which neurons they are, one bit for each.

    Raises:
        TrainingFailedError: when it is cut, the slice holds values that are not finite numbers.
    """
    record = ArrayRecord()
    for name, shape in cut.shapes().items():
        whole = weights[name]
        may_overflow = whole.dtype.kind == "f" and not (
            np.max(cut.factor(name)) * max_weight <= np.finfo(whole.dtype).max
        )
        make = partial(_checked if may_overflow else Cut.blocks, cut, name, whole)
        record[name] = LazyArray(whole.dtype, shape, Blocked(make))
    config[LR_SCALES_KEY] = json.dumps(cut.lr_scales())
    if name_neurons:
        config[NEURONS_KEY] = neurons_to_bytes(cut.axes.widths, cut.indices)
    content = RecordDict({arrayrecord_key: record, configrecord_key: config})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)


def _checked(cut: Cut, name: str, whole: NDArray[Any]) -> Blocks:
    for run, block in cut.blocks(name, whole):
        if not np.isfinite(largest(block)):
            raise TrainingFailedError(
                f"{name!r} of the model has overflowed: use a smaller learning rate or max_weight."
            )
        yield run, block
