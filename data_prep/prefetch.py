"""Work done ahead in threads, handed over in order, with a bounded number of results waiting.

Decoding (PIL) and resizing (torch) release Python's lock, so threads are enough, and nothing has to
be sent between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

AHEAD_PER_WORKER = 2


def prefetch(make: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Yield ``make(item)`` for each item in order, made ahead by ``workers`` threads.

    At most two results a thread are made or wait, whatever the number of items. With 0 workers each
    result is made when it is asked for. An error of ``make`` is raised where its result was due.
    """
    if workers == 0:
        yield from map(make, items)
        return
    left = iter(items)
    # One torch thread a worker: each would otherwise start as many as there are cores.
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
