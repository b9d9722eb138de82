"""From settings to a job: encoder opened, images found and split, every shard planned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import PrepError
from data_prep.encoders.open import open_encoder
from data_prep.images.classes import check_names, read_classes
from data_prep.images.image_set import ImageSet
from data_prep.new_folder import refuse_inside
from data_prep.patches.meta import has_meta, read_meta
from data_prep.patches.read import check_mask_fits
from data_prep.shards.chunks import Chunk, PlannedShard, cut_chunks
from data_prep.shards.encode import Encoding, check_views
from data_prep.shards.settings import PrepSettings
from data_prep.shards.work_folder import Plan
from data_prep.sources.digest import images_sha256
from data_prep.sources.open import left_out_tests, read_source, read_train_and_test
from data_prep.splits.clients import ClientSplit, split_clients
from data_prep.splits.report import SplitReport


@dataclass(frozen=True)
class Job:
    """All that is to be done, and nothing done yet.

    Attributes:
        encoding: Encoder and mask.
        shards: The clients' shards, then the test shard if there is one.
        chunks: Their parts, the units of work.
        plan: Settings and facts that a run which goes on with this one must share.
        split: Class counts of the clients' images.
        skipped: A sentence for each unreadable image.
        left_out: A sentence on test images that are there but not asked for, or empty.
    """

    encoding: Encoding
    shards: tuple[PlannedShard, ...]
    chunks: tuple[Chunk, ...]
    plan: Plan
    split: SplitReport
    skipped: tuple[str, ...]
    left_out: str


def plan_job(settings: PrepSettings) -> Job:
    """Open the encoder, read what is known about the images and plan the shards.

    The same settings and source give the same job in every process and on every machine.

    Raises:
        PrepError: the settings, the encoder or the images cannot be used.
    """
    settings.check()
    refuse_inside(settings.out, settings.source, settings.test)
    settings = _fill_in(settings)
    # Wrong settings are found before the images are read, which may take long.
    encoding = _open_encoding(settings)
    train, test = _read_sets(settings)
    check_names(train.class_names, train.source)
    left_out = left_out_tests(settings.source) if test is None else ""
    sets = [train] if test is None else [train, test]
    seed, record = encoding.mask.seed, encoding.encoder.record
    for data, views in zip(sets, (settings.views, 1), strict=False):
        mask = replace(encoding.mask, views=views)
        check_mask_fits(data, mask, record.image_size, record.patch_size)
    owners: list[str] = []
    if settings.client:
        names, parts = [settings.client], [np.arange(len(train))]
    else:
        split = ClientSplit.parse(settings.split)
        parts = split_clients(train, split, settings.clients, seed)
        names = [f"client-{k}" for k in range(len(parts))]
        if split.kind == "natural" and train.owners is not None:
            owners = [str(train.owners[rows[0]]) for rows in parts]
    shards = [
        PlannedShard(train, rows, encoding.meta(train, name, rows=rows, views=settings.views))
        for name, rows in zip(names, parts, strict=True)
    ]
    if test is not None:
        shards.append(PlannedShard(test, np.arange(len(test)), encoding.meta(test, "test")))
    report = SplitReport.of_parts(train.labels, train.class_names, parts, owners)
    # Two sets cut from one source both carry its list.
    skipped = tuple(dict.fromkeys(sentence for data in sets for sentence in data.skipped))
    chunks = tuple(cut_chunks(shards, settings.chunk_images))
    plan = _plan(settings, encoding, shards, sets)
    return Job(encoding, tuple(shards), chunks, plan, report, skipped, left_out)


def _fill_in(settings: PrepSettings) -> PrepSettings:
    """Return the settings with a mask and a seed, and what images masked already leave no choice.

    Their patch size is not taken over: an encoder of another one is the wrong encoder.
    """
    folder = Path(settings.source)
    stored = next((read_meta(p) for p in (folder, folder / "train") if has_meta(p)), None)
    kind, ratio, seed, image_size = "random", 0.5, 0, None
    if stored is not None:
        kind, ratio, seed = stored.mask.kind, stored.mask.ratio, stored.mask.seed
        image_size = stored.image_size
    return replace(
        settings,
        mask=kind if settings.mask is None else settings.mask,
        mask_ratio=ratio if settings.mask_ratio is None else settings.mask_ratio,
        seed=seed if settings.seed is None else settings.seed,
        image_size=image_size if settings.image_size is None else settings.image_size,
    )


def _open_encoding(settings: PrepSettings) -> Encoding:
    assert settings.mask is not None
    assert settings.mask_ratio is not None
    assert settings.seed is not None
    encoder = open_encoder(
        settings.encoder,
        settings.weights,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        pool=settings.pool,
        layer=settings.layer,
        normalization=settings.normalization,
        dtype=settings.compute_dtype,
        device=settings.device,
        seed=settings.seed,
    )
    encoding = Encoding(
        encoder,
        mask_kind=settings.mask,
        mask_ratio=settings.mask_ratio,
        seed=settings.seed,
        interpolation=settings.interpolation,
        token_dtype=settings.dtype,
    )
    check_views(settings.views, encoding.mask)
    return encoding


def _read_sets(settings: PrepSettings) -> tuple[ImageSet, ImageSet | None]:
    names = None if settings.classes is None else read_classes(settings.classes)
    if settings.test is None and settings.test_share == 0:
        return read_source(settings.source, "train", settings.on_error, classes=names), None
    train, test = read_train_and_test(
        settings.source,
        settings.test,
        settings.test_share,
        settings.seed or 0,
        settings.on_error,
        names,
    )
    if train.class_names != test.class_names:
        raise PrepError(
            "The training and the test images number their classes differently: give the class "
            "names' order as a class schema (--classes)."
        )
    return train, test


def _plan(
    settings: PrepSettings,
    encoding: Encoding,
    shards: Sequence[PlannedShard],
    sets: Sequence[ImageSet],
) -> dict[str, Any]:
    """Return what must be the same for chunks of two runs to fit together, in plain words.

    The batch size is not among it: a run that was out of memory may go on with a smaller one, and
    its tokens are the same but for rounding.
    """
    record, mask, metas = encoding.encoder.record, encoding.mask, [s.meta for s in shards]
    examples = hashlib.sha256()
    for shard in shards:
        for array in shard.labels_and_ids(slice(None)):
            examples.update(array.astype("<i8").tobytes())
    return {
        "format": 1,
        "source": metas[0].source,
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
        "number of views": settings.views,
        "client": settings.client,
        "split": str(ClientSplit.parse(settings.split)),
        "number of images in a chunk": settings.chunk_images,
        "list of class names": metas[0].class_names,
        "list of shards": {meta.client: meta.num_examples for meta in metas},
        "list of labels and image ids (SHA-256)": examples.hexdigest()[:16],
        "number of native bytes": sum(meta.image_bytes for meta in metas),
        "number of file bytes": sum(meta.image_file_bytes for meta in metas),
        "number of kept patches' bytes": sum(meta.masked_image_bytes for meta in metas),
        "list of image files or pixels (SHA-256)": [images_sha256(data)[:16] for data in sets],
    }
