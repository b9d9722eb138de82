"""Tokens of 4,000 training and 2,000 test images of Fashion-MNIST, so that the demo runs at once.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, Zalando SE) is under the MIT license; no image is in
this folder. ``python -m data_prep demo-tokens`` made the files and can recreate them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from flower_ist.tokens.shard import ShardError, TokenShard, open_shard
from flower_ist.tokens.totals import of_all, of_some

MAX_CLIENTS = 400
_FOLDER = Path(__file__).parent


def train_shard(client: int, num_clients: int) -> TokenShard:
    """Return one client's share of the 4,000 training tokens: rows ``client::num_clients``.

    The rows are in random order, so the shares are IID. They are disjoint and cover all rows.

    Args:
        client: 0 to ``num_clients - 1``.
        num_clients: 1 to 400, so that each client has at least 10 examples.

    Raises:
        ShardError: an argument is out of range, or a file is missing or damaged.
    """
    if not 1 <= num_clients <= MAX_CLIENTS:
        raise ShardError(f"The demo tokens serve 1 to {MAX_CLIENTS} clients, not {num_clients}.")
    if not 0 <= client < num_clients:
        raise ShardError(f"Client {client} is not one of 0 to {num_clients - 1}.")
    return _share(_load("train"), slice(client, None, num_clients), f"demo-{client}")


def test_shard() -> TokenShard:
    """Return the 2,000 test tokens.

    Raises:
        ShardError: a file is missing or damaged.
    """
    return _share(_load("test"), slice(None), "demo-test")


@cache
def _load(split: str) -> TokenShard:
    files = sorted(_FOLDER.glob(f"{split}-*.json"))
    if not files:
        raise ShardError(
            f"{_FOLDER} lacks {split}-*.json: make the demo tokens with "
            "`python -m data_prep demo-tokens`."
        )
    return _concatenate([open_shard(file) for file in files])


def _concatenate(shards: Sequence[TokenShard]) -> TokenShard:
    first = shards[0].meta
    for shard in shards:
        meta = shard.meta
        if (meta.encoder, meta.mask, meta.class_names, meta.token_dtype) != (
            first.encoder,
            first.mask,
            first.class_names,
            first.token_dtype,
        ):
            raise ShardError(
                f"The demo tokens {first.client} and {meta.client} were not made alike: make them "
                "again with `python -m data_prep demo-tokens`."
            )
    arrays = {
        name: np.concatenate([shard.arrays()[name] for shard in shards])
        for name in shards[0].arrays()
    }
    return TokenShard(meta=of_all([shard.meta for shard in shards]), **arrays)


def _share(whole: TokenShard, rows: slice, client: str) -> TokenShard:
    view = whole.select(rows)
    return replace(view, meta=replace(of_some(whole.meta, len(view)), client=client))
