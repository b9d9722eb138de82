"""A shard's metadata when some of its examples leave, or those of others join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flower_ist.tokens.meta import ShardMeta

_TOTALS = ("image_bytes", "image_file_bytes", "masked_image_bytes")


def of_some(meta: ShardMeta, examples: int) -> ShardMeta:
    """Return the metadata of so many of a shard's examples.

    The bytes of the images are known of all together only, so that these get a share in proportion.
    """
    totals = {name: getattr(meta, name) * examples // meta.num_examples for name in _TOTALS}
    return replace(meta, num_examples=examples, sha256={}, **totals)


def of_all(metas: Sequence[ShardMeta]) -> ShardMeta:
    """Return the metadata of several shards' examples together; the rest is the first shard's."""
    totals = {name: sum(getattr(meta, name) for meta in metas) for name in _TOTALS}
    examples = sum(meta.num_examples for meta in metas)
    return replace(metas[0], num_examples=examples, sha256={}, **totals)
