"""New images join a shard that is there: ``prep`` with ``append=True``.

They are encoded as the shard's own were: encoder, mask and sizes are its record's. Their ids go on
after its largest one. Nothing of the shard is encoded again, and nothing is lost at a kill: chunks
are kept in ``OUT/.prep`` as in any run of ``prep``, and the longer shard takes the other's place in
one step. The same command, given again, goes on; when all is done, it is refused, as the images
would be there twice. ``OUT/appended.jsonl`` says which images joined under which ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep import PrepError
from data_prep.encoders.reopen import reopen_encoder
from data_prep.images.classes import read_classes
from data_prep.images.image_set import ImageSet
from data_prep.images.reading import reading_of, unusual_choices
from data_prep.json_file import read_json
from data_prep.shards.encode import Encoding
from data_prep.shards.job import Job, plan_job
from data_prep.shards.prep import encode_share
from data_prep.shards.report import print_notes, print_report
from data_prep.shards.settings import PrepSettings
from data_prep.shards.work_folder import WORK_FOLDER, WorkFolder, remove_work
from data_prep.sources.open import left_out_tests, read_source
from flower_ist.console import print_text
from flower_ist.differences import differences
from flower_ist.files import append_file, restore_folder, write_file
from flower_ist.tokens.edit import Rows, join, joined_meta
from flower_ist.tokens.meta import ShardMeta
from flower_ist.tokens.shard import TokenShard, open_shard

if TYPE_CHECKING:
    from rich.console import Console

LOG_FILE = "appended.jsonl"
_DONE_FILE = "joined.json"


def append(settings: PrepSettings, console: Console) -> Path:
    """Encode images and put their tokens behind those of the shard ``OUT/CLIENT``.

    Returns:
        The shard's folder.

    Raises:
        PrepError: a setting is not the shard's, the images cannot be read, or are there already.
        ShardError: there is no such shard, or it is damaged.
        NotWrittenError: a file cannot be written; the shard is as it was.
    """
    settings.check()
    settings.refuse_inside(settings.out)
    folder = settings.out / settings.client
    restore_folder(folder)
    place = settings.out / WORK_FOLDER
    if (done := _finished(folder, place)) is not None:
        # An earlier command was killed when it only had to tidy up.
        _finish(settings.out, done["log"], place)
        if done["source"] == settings.source and done["log"]["client"] == settings.client:
            return folder
    shard = open_shard(folder, verify=True)
    job, log = _open(settings, shard)
    print_notes(console, job, left_out_tests(settings.source))
    meta = joined_meta(shard.meta, job.shards[0].meta)
    work = WorkFolder(place, job.plan)
    encode_share(settings, job, work, console)

    def note(whole: ShardMeta) -> None:
        content = {"shard": _hash_of(whole), "source": settings.source, "log": log}
        write_file(work.path / _DONE_FILE, json.dumps(content) + "\n")

    join(folder, meta, _rows(job, work), before=note)
    _finish(settings.out, log, place)
    print_report(console, job)
    print_text(
        console,
        f"{log['images']} images joined {folder} as ids {log['first_id']} to {log['last_id']}; it "
        f"holds {meta.num_examples} examples.",
    )
    return folder


def _open(settings: PrepSettings, shard: TokenShard) -> tuple[Job, dict[str, Any]]:
    """Return the encoding of the new images as a job, and what the log will say of it."""
    meta, mask = shard.meta, shard.meta.mask
    _refuse_other_settings(settings, meta)
    encoder = reopen_encoder(
        meta.encoder,
        "" if (settings.encoder, settings.weights) == ("embedded", "") else settings.encoder,
        settings.weights,
        seed=mask.seed,
        device=settings.device,
        compute_dtype=settings.compute_dtype,
    )
    reading = reading_of(meta.reading)
    encoding = Encoding(
        encoder,
        mask_kind=mask.kind,
        mask_ratio=mask.ratio,
        seed=mask.seed,
        interpolation=meta.encoder.interpolation,
        reading=reading,
        token_dtype=meta.token_dtype,
    )
    names = meta.class_names if settings.classes is None else read_classes(settings.classes)
    data = read_source(
        settings.source,
        "train",
        settings.on_error,
        classes=names,
        reading=reading,
    )
    images = data.sha256()
    _refuse_known(settings, images, shard)
    data = _with_new_ids(data, shard)
    job = plan_job(
        encoding,
        data,
        None,
        {settings.client: np.arange(len(data))},
        None,
        views=mask.views,
        chunk_images=settings.chunk_images,
        asked={
            "shard that is appended to (SHA-256)": _hash_of(meta),
            **unusual_choices(reading),
        },
    )
    log = {
        "client": settings.client,
        "source": data.source,
        "images": len(data),
        "first_id": int(data.image_ids.min()),
        "last_id": int(data.image_ids.max()),
        "images_sha256": images,
    }
    return job, log


def _refuse_other_settings(settings: PrepSettings, meta: ShardMeta) -> None:
    """Refuse an option that is given and is not the shard's.

    Raises:
        PrepError: one is.
    """
    theirs = {
        "mask": meta.mask.kind,
        "mask_ratio": meta.mask.ratio,
        "seed": meta.mask.seed,
        "views": meta.mask.views,
        "image_size": meta.encoder.image_size,
        "patch_size": meta.encoder.patch_size,
        "pool": meta.encoder.pool,
        "layer": meta.encoder.layer,
        "interpolation": meta.encoder.interpolation,
        "dtype": meta.token_dtype,
        **asdict(reading_of(meta.reading)),
    }
    usual = {field.name: field.default for field in fields(settings)}
    asked = {
        name: getattr(settings, name) for name in theirs if getattr(settings, name) != usual[name]
    }
    if differ := differences({name: theirs[name] for name in asked}, asked):
        raise PrepError(
            f"The shard {settings.out / settings.client} was made otherwise ({differ}): leave "
            "these options out, the new images are encoded as its own were."
        )


def _with_new_ids(data: ImageSet, shard: TokenShard) -> ImageSet:
    """Return the images with ids after the shard's largest.

    Raises:
        PrepError: they were masked under ids that the shard has.
    """
    if data.mask is None:
        return replace(data, image_ids=data.image_ids + int(shard.image_ids.max()) + 1)
    # Which patches were kept follows from their ids, so that these cannot be changed.
    if len(common := np.intersect1d(data.image_ids, shard.image_ids)):
        raise PrepError(
            f"{data.source} holds images masked under ids that the shard has too, such as "
            f"{common[0]}: append the images themselves."
        )
    return data


def _refuse_known(settings: PrepSettings, images: str, shard: TokenShard) -> None:
    """Refuse images that joined the shard before, unless they were dropped since."""
    try:
        text = (settings.out / LOG_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in map(json.loads, text.splitlines()):
        if (line["client"], line["images_sha256"]) != (settings.client, images):
            continue
        first, last = line["first_id"], line["last_id"]
        if ((shard.image_ids >= first) & (shard.image_ids <= last)).any():
            raise PrepError(
                f"These images joined {settings.client} before, as ids {first} to {last}: give "
                "only new ones."
            )


def _rows(job: Job, work: WorkFolder) -> Iterator[Rows]:
    for chunk in job.chunks:
        labels, ids = job.shards[0].labels_and_ids(chunk.part)
        yield work.read(chunk.number), labels, ids


def _finished(folder: Path, place: Path) -> dict[str, Any] | None:
    """Return what a command noted whose examples are in the shard, if it was killed after that."""
    if not (place / _DONE_FILE).exists():
        return None
    done: dict[str, Any] = read_json(place / _DONE_FILE)
    return done if done["shard"] == _hash_of(open_shard(folder).meta) else None


def _finish(out: Path, log: dict[str, Any], place: Path) -> None:
    """Note what joined, once, and remove the chunks."""
    line, file = json.dumps(log) + "\n", out / LOG_FILE
    if not file.exists() or not file.read_text(encoding="utf-8").endswith(line):
        append_file(file, line.encode())
    remove_work(place)


def _hash_of(meta: ShardMeta) -> str:
    return hashlib.sha256(json.dumps(meta.to_json(), sort_keys=True).encode()).hexdigest()
