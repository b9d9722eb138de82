"""The Flower ClientApp. It trains whatever dense net it is sent, a slice or a whole model."""

from __future__ import annotations

import time
from typing import Any

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client_app.data import open_client_shard
from client_app.statistics import statistics_record
from client_app.training import LocalSettings, train
from flower_ist.clients import CLIENT_NAME_KEY, FACTS_RECORD
from flower_ist.closed_form import STATISTICS_KEY
from flower_ist.evaluation import evaluate_arrays
from flower_ist.model import MLP
from flower_ist.tokens import TokenShard
from flower_ist.wire import packed_mod

app = ClientApp(mods=[packed_mod])


@app.train()
def train_slice(message: Message, context: Context) -> Message:
    """Train the net of the message's arrays for a round and send it back.

    A closed-form strategy sends no net: it asks for sums over the shard instead.
    """
    shard = open_client_shard(context)
    if STATISTICS_KEY in message.content.config_records["config"]:
        return _sum_up(message, shard)
    settings = LocalSettings.from_config(message.content.config_records["config"])
    model = MLP.from_arrays(_arrays(message))
    start = time.monotonic()
    loss = train(model, shard, settings, shard.meta.client)
    arrays = ArrayRecord({name: Array(array) for name, array in model.to_arrays().items()})
    metrics = MetricRecord(
        {
            "num-examples": len(shard),
            "train-loss": loss,
            "train-seconds": time.monotonic() - start,
            "local-steps": settings.local_steps,
            **_input_bytes(shard, settings.local_steps * settings.batch_size),
        }
    )
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the net of the message's arrays on this client's own shard."""
    shard = open_client_shard(context)
    accuracy, loss = evaluate_arrays(_arrays(message), shard)
    metrics = MetricRecord({"num-examples": len(shard), "accuracy": accuracy, "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.query()
def tell_facts(message: Message, context: Context) -> Message:
    """Tell the server what this client is called and what its tokens are.

    The shard is verified here, before any training: a damaged one is refused with a sentence.
    """
    shard = open_client_shard(context, verify=True)
    facts = ConfigRecord(
        {
            CLIENT_NAME_KEY: shard.meta.client,
            "num-examples": len(shard),
            "token-dim": shard.meta.dim,
            "token-dtype": shard.meta.token_dtype,
            "class-names": list(shard.meta.class_names),
            "encoder-sha256": shard.meta.encoder.weights_sha256,
        }
    )
    return Message(RecordDict({FACTS_RECORD: facts}), reply_to=message)


def _sum_up(message: Message, shard: TokenShard) -> Message:
    """Reply with the shard's statistics. Each example is read once and no step is taken."""
    start = time.monotonic()
    arrays = statistics_record(shard, message.content.config_records["config"])
    metrics = MetricRecord(
        {
            "num-examples": len(shard),
            "train-seconds": time.monotonic() - start,
            **_input_bytes(shard, len(shard)),
        }
    )
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def _arrays(message: Message) -> dict[str, NDArray[Any]]:
    return {name: a.numpy() for name, a in message.content.array_records["arrays"].items()}


def _input_bytes(shard: TokenShard, examples: int) -> dict[str, int]:
    """Return what the examples trained on stand for, in bytes, from the shard's mean image."""
    meta = shard.meta
    return {
        "examples-trained": examples,
        "image-bytes": round(meta.image_bytes / meta.num_examples * examples),
        "image-file-bytes": round(meta.image_file_bytes / meta.num_examples * examples),
        "masked-image-bytes": round(meta.masked_image_bytes / meta.num_examples * examples),
        "token-bytes": shard.token_bytes_per_example * examples,
    }
