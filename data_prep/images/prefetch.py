"""Work done ahead in threads and handed over in order; few results wait at any time.

Decoding (PIL) and resizing (torch) release Python's lock, so threads are enough, and nothing has to
be sent between processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from data_prep import PrepError

T = TypeVar("T")
R = TypeVar("R")

AHEAD_PER_WORKER = 2


def usual_workers() -> int:
    """Return a number of threads for decoding: one per core, 8 at most."""
    return min(8, os.cpu_count() or 1)


def prefetch(make: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Yield ``make(item)`` for each item in order, made ahead by ``workers`` threads.

    At most two results per thread are made or wait, however many items there are. With 0 workers
    each result is made when it is asked for. An error of ``make`` is raised in its result's place.

    Raises:
        PrepError: the number of workers is below 0.
    """
    if workers < 0:
        raise PrepError(f"The number of workers must be at least 0, not {workers}.")
    if workers == 0:
        yield from map(make, items)
        return
    left = iter(items)
    # One torch thread per worker: each would otherwise start as many as there are cores.
    pool = ThreadPoolExecutor(workers, "prefetch", initializer=torch.set_num_threads, initargs=(1,))
    try:
        first = islice(left, workers * AHEAD_PER_WORKER)
        waiting: deque[Future[R]] = deque(pool.submit(make, item) for item in first)
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(make, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
