"""Chunks encoded by Ray Data's actors, for clusters whose machines share a disk.

Each actor plans the same job for itself and writes chunk files as any other process would
(https://docs.ray.io/en/latest/data/transforming-data.html, "stateful transforms"). Give absolute
paths where Ray runs on other machines.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.progress import Advance
from data_prep.shards.chunks import Chunk, encode_chunks
from data_prep.shards.job import Job
from data_prep.shards.work_folder import WorkFolder
from flower_ist.errors import first_line

CPUS_PER_ACTOR = 4


class ChunkEncoder:
    """An actor: holds a job and turns numbers of chunks into chunk files."""

    def __init__(
        self, open_job: Callable[[], Job], folder: Path, batch_size: int, workers: int, threads: int
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._job = open_job()
        self._work = WorkFolder(folder, self._job.plan)
        self._batch_size, self._workers = batch_size, workers

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Encode the chunks of some numbers; return how many images each has."""
        chunks = [self._job.chunks[number] for number in batch["chunk"]]
        encode_chunks(
            self._job.encoding,
            self._job.shards,
            chunks,
            self._work,
            batch_size=self._batch_size,
            workers=self._workers,
        )
        return {"images": np.array([len(chunk) for chunk in chunks])}


def encode_with_ray(
    chunks: Sequence[Chunk],
    open_job: Callable[[], Job],
    folder: Path,
    *,
    device: str,
    batch_size: int,
    workers: int,
    advance: Advance,
) -> None:
    """Encode chunks with as many actors as the cluster has room for; a local one is started.

    On ``cuda`` an actor takes one GPU, elsewhere up to 4 CPUs.

    Args:
        chunks: What to encode.
        open_job: Opens the job that they are of, anywhere.
        folder: The work folder.
        device: What the encoder runs on.
        batch_size: As :func:`encode_chunks` has it.
        workers: As :func:`encode_chunks` has it.
        advance: Called with the number of images after each chunk.

    Raises:
        PrepError: Ray is not installed or cannot be started, the cluster has no GPU, or an actor
            failed.
    """
    if not chunks:
        return
    try:
        import ray
        import ray.data
    except ImportError as err:
        raise PrepError("Ray is not installed: pip install 'ray[data]'.") from err
    started = not ray.is_initialized()
    if started:
        _start(ray)
    try:
        cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
        resources, actors = share_cluster(device, cluster)
        ray.data.DataContext.get_current().enable_progress_bars = False
        numbers = [{"chunk": chunk.number} for chunk in chunks]
        encoded = ray.data.from_items(numbers, override_num_blocks=len(chunks)).map_batches(
            ChunkEncoder,
            fn_constructor_args=(
                open_job,
                folder,
                batch_size,
                workers,
                resources.get("num_cpus", 0),
            ),
            batch_size=1,
            concurrency=min(actors, len(chunks)),
            **resources,
        )
        for row in encoded.iter_rows():
            advance(int(row["images"]))
    except ray.exceptions.RayError as err:
        cause = getattr(err, "cause", None) or err
        raise PrepError(f"A Ray actor failed: {str(cause).strip().splitlines()[-1]}") from err
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any) -> None:
    try:
        with warnings.catch_warnings():
            # Hints about coming releases of Ray do not help whoever runs this.
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
    # Ray raises plain exceptions where a cluster cannot be reached or started.
    except Exception as err:
        raise PrepError(f"Ray cannot be started: {first_line(err)}.") from err


def share_cluster(device: str, cluster: dict[str, float]) -> tuple[dict[str, Any], int]:
    """Return what one actor takes and how many find room."""
    if device.startswith("cuda"):
        gpus = int(cluster.get("GPU", 0))
        if not gpus:
            raise PrepError("The Ray cluster has no GPU: use --device cpu.")
        return {"num_gpus": 1}, gpus
    cpus = int(cluster.get("CPU", 1))
    # Ray Data itself reads and writes with CPUs that no actor holds.
    each = max(1, min(CPUS_PER_ACTOR, cpus - 1))
    return {"num_cpus": each}, max(1, (cpus - 1) // each)
