"""The Flower ClientApp. It trains whatever dense net it is sent, a slice or a whole model."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client_app.batches import Batches
from client_app.data import open_client_shard
from client_app.facts import facts, news
from client_app.known import known_of
from client_app.local_settings import LocalSettings
from client_app.prior import token_prior
from client_app.privacy import PUBLIC_METRICS, Privacy, PrivacyError, privatize
from client_app.statistics import statistics_record
from client_app.threads import blas_threads_mod
from client_app.training import train
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.classifier.skip import LinearSkip
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.mod import packed_mod
from flower_ist.wire.protocol import STATISTICS_ACTION, STATISTICS_KEY
from flower_ist.wire.record_tensors import record_of
from flower_ist.wire.records import arrays_in, configs_in

app = ClientApp(mods=[blas_threads_mod, partial(packed_mod, known_of=known_of)])


@app.train()
def train_slice(message: Message, context: Context) -> Message:
    """Train the net in the message's arrays for a round and send it back.

    A closed-form strategy sends no net: it asks for sums over the shard instead. With privacy
    (:mod:`client_app.privacy`) the update is clipped and noisy, and the metrics are those that
    reveal nothing about an example.
    """
    if STATISTICS_KEY in configs_in(message.content)["config"]:
        return sum_up(message, context)
    privacy = Privacy.of(context)
    shard = open_client_shard(context)
    settings = LocalSettings.from_config(configs_in(message.content)["config"])
    prior = token_prior(message, context, shard.meta)
    batches = Batches(shard, settings, shard.meta.client, prior)
    sent = _arrays(message)
    start = time.monotonic()
    head = None if prior is None else prior.head
    trained, loss = train(sent, batches, offset=None if head is None else head.of)
    metrics: dict[str, int | float | list[int] | list[float]] = {
        "num-examples": len(shard),
        "train-loss": loss,
        "train-seconds": time.monotonic() - start,
        "local-steps": settings.local_steps,
        **_input_bytes(shard, settings.local_steps * batches.real_per_batch),
    }
    if privacy is not None:
        trained = privatize(sent, trained, settings.lr_scales, privacy)
        metrics = {key: metrics[key] for key in PUBLIC_METRICS}
    content = RecordDict({"arrays": record_of(trained), "metrics": MetricRecord(metrics)})
    content.update(news(context, shard))
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the net in the message's arrays on this client's own shard."""
    _refuse_with(Privacy.of(context), "a model's accuracy on them")
    shard = open_client_shard(context)
    prior = token_prior(message, context, shard.meta)
    arrays, skip = _arrays(message), None
    if prior is not None:
        arrays, head = prior.fold(arrays), prior.raw_head()
        skip = None if head is None else LinearSkip(*head)
    accuracy, loss = evaluate_arrays(arrays, shard, skip)
    metrics = MetricRecord({"num-examples": len(shard), "accuracy": accuracy, "loss": loss})
    return Message(RecordDict({"metrics": metrics, **news(context, shard)}), reply_to=message)


@app.query()
def tell_facts(message: Message, context: Context) -> Message:
    """Tell the server what this client is called and what its tokens are.

    As this comes before any training, a damaged shard is refused here with a sentence.
    """
    shard = open_client_shard(context)
    return Message(RecordDict({**facts(context, shard)}), reply_to=message)


@app.query(STATISTICS_ACTION)
def sum_up(message: Message, context: Context) -> Message:
    """Reply with the shard's statistics. Each example is read once and no step is taken.

    Before the first round they are requested with a train message. Later this query requests them
    from clients that have joined.
    """
    start = time.monotonic()
    _refuse_with(Privacy.of(context), "sums over them")
    shard = open_client_shard(context)
    arrays = statistics_record(shard, configs_in(message.content)["config"])
    metrics = MetricRecord(
        {
            "num-examples": len(shard),
            "train-seconds": time.monotonic() - start,
            **_input_bytes(shard, len(shard)),
        }
    )
    content = RecordDict({"arrays": arrays, "metrics": metrics, **news(context, shard)})
    return Message(content, reply_to=message)


def _refuse_with(privacy: Privacy | None, asked_for: str) -> None:
    if privacy is not None:
        raise PrivacyError(
            f"This client's data are private, and the server asks for {asked_for}: only clipped "
            "and noisy updates are sent; where sums are asked for before round 1, set "
            "'standardize', 'replay' and 'lda-skip' to false."
        )


def _arrays(message: Message) -> dict[str, NDArray[Any]]:
    return {name: a.numpy() for name, a in arrays_in(message.content)["arrays"].items()}


def _input_bytes(shard: TokenShard, examples: int) -> dict[str, int]:
    """Return the input bytes that the trained examples represent, from the shard's mean image."""
    meta = shard.meta
    return {
        "examples-trained": examples,
        "image-bytes": round(meta.image_bytes / meta.num_examples * examples),
        "image-file-bytes": round(meta.image_file_bytes / meta.num_examples * examples),
        "masked-image-bytes": round(meta.masked_image_bytes / meta.num_examples * examples),
        "token-bytes": shard.token_bytes_per_example * examples,
    }
