"""The token prior on the client: read from the message that carries it, kept for later ones."""

from __future__ import annotations

from dataclasses import replace

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from client_app.privacy import Privacy
from flower_ist.errors import FlowerIstError
from flower_ist.statistics.prior import TokenPrior, prior_layout
from flower_ist.tokens.meta import ShardMeta
from flower_ist.wire.packing import SQUEEZED, digest_of, unpack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY, SKIP_KEY
from flower_ist.wire.records import arrays_in, configs_in


class PriorError(FlowerIstError):
    """A message requires a token prior that is missing or cannot be read."""


def token_prior(message: Message, context: Context, meta: ShardMeta) -> TokenPrior | None:
    """Return the prior to train with that a message requires, or None if it names none.

    With privacy nothing is drawn from it: the number of real examples in a batch would reveal
    something about this client's labels. Arguments and errors are those of :func:`held_prior`.
    """
    prior = held_prior(message, context, meta)
    if prior is None or Privacy.of(context) is None:
        return prior
    return replace(prior, gaussians=None)


def held_prior(message: Message, context: Context, meta: ShardMeta) -> TokenPrior | None:
    """Return the prior that a message requires as it was sent, or None if it names none.

    A prior that the message carries is kept in the context's state once it has been read without
    error.

    Args:
        message: from the server.
        context: of this client, which lasts from message to message.
        meta: of the client's shard, whose dimensions the prior must have.

    Raises:
        PriorError: the prior is missing or a different one, or the message does not say which.
        WireError: the prior received does not have the shard's dimensions.
        ArgumentError: the prior received holds invalid numbers.
    """
    config = configs_in(message.content).get(PRIOR_KEY)
    if config is None:
        return None
    name, replay, skip = _named(config)
    brought = arrays_in(message.content).get(PRIOR_RECORD)
    array = _array(arrays_in(context.state).get(PRIOR_RECORD) if brought is None else brought)
    if array is None or digest_of(array) != name:
        raise PriorError("This client does not hold the token prior: send it again.")
    layout = prior_layout(meta.dim, meta.num_classes, replay=replay, skip=skip)
    prior = TokenPrior.from_tensors(unpack(array, layout, SQUEEZED))
    if brought is not None:
        context.state[PRIOR_RECORD] = ArrayRecord({PRIOR_ARRAY: array})
    return prior


def _named(config: ConfigRecord) -> tuple[str, bool, bool]:
    name, replay, skip = (config.get(key) for key in (PRIOR_KEY, REPLAY_KEY, SKIP_KEY))
    if not (isinstance(name, str) and isinstance(replay, bool) and isinstance(skip, bool)):
        raise PriorError(
            f"The server names its token prior as {dict(config)!r:.120}: {PRIOR_KEY!r} must be a "
            f"string, {REPLAY_KEY!r} and {SKIP_KEY!r} true or false."
        )
    return name, replay, skip


def _array(record: ArrayRecord | None) -> Array | None:
    return None if record is None else record.get(PRIOR_ARRAY)
