"""Split a prepared folder's tokens among clients in another way, without encoding again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data_prep.images.image_set import ImageSet
from data_prep.splits.clients import split_clients
from data_prep.splits.kinds import ClientSplit
from flower_ist.tokens.demo import test_shard, train_shard
from flower_ist.tokens.shard import TokenShard, client_folder, open_shard, test_folder
from flower_ist.tokens.totals import of_some
from flower_ist.tokens.writer import ShardWriter

FOLDS = 5


def main(
    source: Annotated[str, typer.Argument(help="A folder that flower-ist prep wrote, or demo.")],
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    clients: int = 4,
    split: str = "iid",
    views: Annotated[int, typer.Option(help="Masks kept of each image; 0: all.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the clients' tokens; else as they are.")] = "",
    seed: int = 0,
    fold: Annotated[
        int, typer.Option(help="0 to 4: a fifth of the clients' images is the test.")
    ] = -1,
) -> None:
    """Write OUT/client-0 ... and OUT/test with the same tokens in other hands."""
    shards, test = shards_of(source)
    stored = shards[0].meta.mask.views
    kept = views or stored
    if kept > stored:
        raise typer.BadParameter(f"{source} has {stored} views of an image, not {kept}.")
    # Rows are image after image: the first views of each image, as (image, view).
    tokens = np.concatenate([shard.batch(slice(0, len(shard)))[0] for shard in shards])
    tokens = tokens.reshape(-1, stored, tokens.shape[1])[:, :kept]
    labels = np.concatenate([shard.labels for shard in shards])[::stored]
    image_ids = np.concatenate([shard.image_ids for shard in shards])[::stored]
    meta = shards[0].meta
    test_rows = test.batch(slice(None)), test.image_ids
    if fold >= 0:
        held = np.random.default_rng(77).permutation(len(labels))[np.argsort(np.argsort(image_ids))]
        held = held % FOLDS == fold
        test_rows = (tokens[held, 0], labels[held]), image_ids[held]
        tokens, labels, image_ids = tokens[~held], labels[~held], image_ids[~held]
    data = ImageSet(
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=labels.astype(np.int64),
        image_ids=image_ids,
        class_names=meta.class_names,
        source=meta.source,
    )
    for k, images in enumerate(split_clients(data, ClientSplit.parse(split), clients, seed)):
        count = len(images) * kept
        new = replace(
            of_some(meta, count),
            client=f"client-{k}",
            mask=replace(meta.mask, views=kept),
            token_dtype=dtype or meta.token_dtype,
        )
        with ShardWriter(client_folder(out, k), new) as writer:
            rows = tokens[images].reshape(count, -1)
            writer.append(rows, np.repeat(labels[images], kept), np.repeat(image_ids[images], kept))
    (tokens, labels), image_ids = test_rows
    with ShardWriter(test_folder(out), of_some(test.meta, len(labels))) as writer:
        writer.append(tokens, labels, image_ids)


def shards_of(source: str) -> tuple[list[TokenShard], TokenShard]:
    """Return the clients' shards and the server's of a prepared folder, or of the demo."""
    if source == "demo":
        return [train_shard(client, 4) for client in range(4)], test_shard()
    folders = sorted(Path(source).glob("client-*"))
    return [open_shard(folder) for folder in folders], open_shard(test_folder(Path(source)))


if __name__ == "__main__":
    typer.run(main)
