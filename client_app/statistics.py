"""Sum up a shard's statistics for a closed-form head, chunk by chunk."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord

from flower_ist.classifier.features import RandomFeatures
from flower_ist.errors import ArgumentError
from flower_ist.statistics.sums import Statistics
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import SQUEEZED, pack
from flower_ist.wire.protocol import (
    CLASS_SUMS,
    CLASS_SUMS_AND_GRAM,
    COMPACT,
    FEATURES_KEY,
    PACKED_KEY,
    SEED_KEY,
    STATISTICS_DTYPE_KEY,
    STATISTICS_DTYPES,
    STATISTICS_KEY,
)

_ROWS_PER_CHUNK = 1024
# A Gram matrix of more would take gigabytes of the device's memory.
_MOST_FEATURES = 8192


def shard_statistics(
    shard: TokenShard, *, gram: bool, features: RandomFeatures | None = None
) -> Statistics:
    """Sum over all examples of a shard; 1,024 tokens are in memory at a time.

    Args:
        shard: of the client.
        gram: include the Gram matrix.
        features: applied to the tokens first; None leaves them unchanged.
    """
    dim = shard.meta.dim if features is None else features.dim
    total = Statistics.empty(shard.meta.num_classes, dim, gram=gram)
    for part in shard.chunks(_ROWS_PER_CHUNK):
        tokens, labels = part.batch()
        total.add_tokens(tokens if features is None else features.of(tokens), labels)
    return total


def statistics_record(shard: TokenShard, config: ConfigRecord) -> ArrayRecord:
    """Return the statistics that a message's config asks for, as one packed array.

    Raises:
        ArgumentError: the config asks for something else.
    """
    kind, dtype = config[STATISTICS_KEY], config.get(STATISTICS_DTYPE_KEY)
    if kind not in (CLASS_SUMS, CLASS_SUMS_AND_GRAM) or dtype not in STATISTICS_DTYPES:
        raise ArgumentError(
            f"The server asks for statistics {kind!r} in {dtype!r}: "
            f"{CLASS_SUMS} or {CLASS_SUMS_AND_GRAM} in {' or '.join(STATISTICS_DTYPES)} are known."
        )
    width, seed = config.get(FEATURES_KEY, 0), config.get(SEED_KEY, 0)
    if not isinstance(width, int) or not isinstance(seed, int) or not 0 <= width <= _MOST_FEATURES:
        raise ArgumentError(
            f"The server asks for {width!r} random features of seed {seed!r}: whole numbers, up to "
            f"{_MOST_FEATURES} features, are known."
        )
    features = RandomFeatures.draw(seed, width, shard.meta.dim) if width else None
    gram = kind == CLASS_SUMS_AND_GRAM
    tensors = shard_statistics(shard, gram=gram, features=features).to_tensors(str(dtype))
    packed_as = SQUEEZED if dtype == COMPACT else "float32"
    return ArrayRecord({PACKED_KEY: pack(tensors, layout_of(tensors), packed_as)})
