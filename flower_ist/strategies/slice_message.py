"""The train message of one slice: its tensors and the round's settings."""

from __future__ import annotations

import json

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.submodels.cut import Cut, Tensors
from flower_ist.wire.layout import largest, record_of
from flower_ist.wire.protocol import LR_SCALES_KEY


def slice_message(
    weights: Tensors,
    cut: Cut,
    node_id: int,
    config: ConfigRecord,
    *,
    arrayrecord_key: str = "arrays",
    configrecord_key: str = "config",
) -> Message:
    """Cut a slice out of the model and address it to a node.

    Args:
        weights: the whole model.
        cut: where the slice lies; its neurons are not sent.
        node_id: who gets it.
        config: the round's settings; ``lr-scales`` are added to them.
        arrayrecord_key: name of the ArrayRecord.
        configrecord_key: name of the ConfigRecord.

    Raises:
        TrainingFailedError: the slice holds values that are not finite numbers.
    """
    tensors = cut.take(weights)
    for name, tensor in tensors.items():
        if not np.isfinite(largest(tensor)):
            raise TrainingFailedError(
                f"{name!r} of the model has overflowed: use a smaller learning rate or max_weight."
            )
    config[LR_SCALES_KEY] = json.dumps(cut.lr_scales())
    content = RecordDict({arrayrecord_key: record_of(tensors), configrecord_key: config})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)
