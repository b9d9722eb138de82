"""What this client knows of a message's tensors besides them: initial weights, directions."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message

from client_app.data import open_client_shard
from client_app.prior import held_prior
from flower_ist.classifier.initial import start_from
from flower_ist.wire.compact import Known
from flower_ist.wire.layout import Layout
from flower_ist.wire.protocol import START_KEY


def known_of(message: Message, context: Context, layout: Layout, config: ConfigRecord) -> Known:
    """Return what both ends know of a message in ``compact``.

    Args:
        message: with tensors, perhaps the token prior, and the names of what it requires.
        context: of this client.
        layout: of the message's tensors.
        config: of the message.

    Raises:
        StartError: this client makes other initial weights than the message's, or none.
        PriorError: it does not hold the prior that the message requires.
    """
    text = config.pop(START_KEY, None)
    start = start_from(text, layout, config) if isinstance(text, str) else {}
    prior = held_prior(message, context, open_client_shard(context).meta)
    return Known(start, None if prior is None else prior.directions())
