"""What a client tells of its data: when it is asked, and again when its shard has changed."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context

from client_app.privacy import Privacy
from flower_ist.tokens.meta import content_digest, encoder_settings
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.protocol import CLIENT_NAME_KEY, EXAMPLES_KEY, FACTS_RECORD, SHARD_KEY
from flower_ist.wire.records import configs_in


def facts(context: Context, shard: TokenShard) -> dict[str, ConfigRecord]:
    """Return the record for a reply that says what this client is called and what its tokens are.

    What was told last is kept in the context's state, which lasts from message to message. A
    private client tells no digest of its shard: a guess at the content could be checked by it.
    """
    told: dict[str, str | int | list[str]] = {
        CLIENT_NAME_KEY: shard.meta.client,
        EXAMPLES_KEY: len(shard),
        "token-dim": shard.meta.dim,
        "token-dtype": shard.meta.token_dtype,
        "class-names": list(shard.meta.class_names),
        "encoder-sha256": shard.meta.encoder.weights_sha256,
        "encoder-settings": encoder_settings(shard.meta.encoder),
    }
    digest = content_digest(shard.meta)
    if digest and Privacy.of(context) is None:
        told[SHARD_KEY] = digest
    record = {FACTS_RECORD: ConfigRecord({**told})}
    context.state[FACTS_RECORD] = record[FACTS_RECORD]
    return record


def news(context: Context, shard: TokenShard) -> dict[str, ConfigRecord]:
    """Return the record of :func:`facts` if it says something else than the last one, or nothing.

    Images may join a shard or leave it at any time: the reply that is the first to come from the
    changed shard says so.
    """
    before = configs_in(context.state).get(FACTS_RECORD)
    record = facts(context, shard)
    return {} if before == record[FACTS_RECORD] else record
