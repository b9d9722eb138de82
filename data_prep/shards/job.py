"""What a run of ``prep`` makes, and what a run that resumes it must have in common with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from data_prep.images.image_set import ImageSet
from data_prep.images.reading import Unusual
from data_prep.shards.chunks import Chunk, PlannedShard, cut_chunks
from data_prep.shards.encode import Encoding
from data_prep.splits.report import SplitReport
from data_prep.splits.rows import Rows


@dataclass(frozen=True)
class Job:
    """The shards to make, and nothing made yet.

    Attributes:
        encoding: Encoder and mask.
        shards: The clients' shards, then the test shard if there is one.
        chunks: Their parts, the units of work.
        plan: Settings and facts, by name, that must be the same for chunks of two runs to fit
            together.
        split: Class counts of the clients' images; None where all images are one client's.
        skipped: A sentence for each unreadable image.
        left_out: A sentence on each part of the source that is not read.
        unusual: What was done to images that are not plain 8-bit RGB or gray.
    """

    encoding: Encoding
    shards: tuple[PlannedShard, ...]
    chunks: tuple[Chunk, ...]
    plan: Mapping[str, Any]
    split: SplitReport | None
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
    unusual: tuple[Unusual, ...]


def plan_job(
    encoding: Encoding,
    train: ImageSet,
    test: ImageSet | None,
    parts: Mapping[str, Rows],
    split: SplitReport | None,
    *,
    views: int,
    chunk_images: int,
    asked: Mapping[str, Any],
) -> Job:
    """Plan every shard and cut it into chunks.

    Args:
        encoding: Encoder and mask.
        train: The clients' images.
        test: The test shard's images, if any.
        parts: Each client's rows of ``train``.
        split: Class counts of the parts.
        views: Tokens for each training image.
        chunk_images: Images in a chunk.
        asked: Entries of the plan that do not show in the shards.
    """
    shards = [
        PlannedShard(train, rows, encoding.meta(train, name, rows=rows, views=views))
        for name, rows in parts.items()
    ]
    sets = [train]
    if test is not None:
        sets.append(test)
        shards.append(PlannedShard(test, np.arange(len(test)), encoding.meta(test, "test")))
    plan = {
        "format": 1,
        **_encoding_facts(encoding),
        "number of views": views,
        "number of images in a chunk": chunk_images,
        **asked,
        **_image_facts(shards, sets),
    }
    return Job(
        encoding,
        tuple(shards),
        tuple(cut_chunks(shards, chunk_images)),
        plan,
        split,
        # Two sets cut from one source both carry what is said of it.
        skipped=tuple(dict.fromkeys(chain.from_iterable(data.skipped for data in sets))),
        left_out=tuple(dict.fromkeys(chain.from_iterable(data.left_out for data in sets))),
        unusual=tuple(dict.fromkeys(chain.from_iterable(data.unusual for data in sets))),
    )


def _encoding_facts(encoding: Encoding) -> dict[str, Any]:
    """Return facts in plain words.

    The batch size changes the rounding only and is not among them: a run that was out of memory
    may resume with a smaller one.
    """
    record, mask = encoding.encoder.record, encoding.mask
    return {
        "encoder": record.name,
        "encoder's weights (SHA-256)": record.weights_sha256,
        "image size": record.image_size,
        "patch size": record.patch_size,
        "pool": record.pool,
        "layer": record.layer,
        "normalization": record.normalization,
        "interpolation": encoding.interpolation,
        "compute dtype": record.dtype,
        "device": record.device,
        "token dtype": encoding.token_dtype,
        "mask": mask.kind,
        "mask ratio": mask.ratio,
        "seed": mask.seed,
    }


def _image_facts(shards: Sequence[PlannedShard], sets: Sequence[ImageSet]) -> dict[str, Any]:
    metas = [shard.meta for shard in shards]
    examples = hashlib.sha256()
    for shard in shards:
        for array in shard.labels_and_ids(slice(None)):
            examples.update(array.astype("<i8").tobytes())
    return {
        "source": metas[0].source,
        "list of class names": metas[0].class_names,
        "list of shards": {meta.client: meta.num_examples for meta in metas},
        "list of labels and image ids (SHA-256)": examples.hexdigest()[:16],
        "number of native bytes": sum(meta.image_bytes for meta in metas),
        "number of file bytes": sum(meta.image_file_bytes for meta in metas),
        "number of kept patches' bytes": sum(meta.masked_image_bytes for meta in metas),
        "list of image files or pixels (SHA-256)": [data.sha256()[:16] for data in sets],
    }
