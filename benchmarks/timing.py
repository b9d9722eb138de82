"""Time several ways to do one thing, alternating between them, for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time

import torch


def in_turns(
    ways: Mapping[str, Callable[[], object]], repeats: int, *, busy: bool = False
) -> dict[str, list[float]]:
    """Time every way once, then all of them again: what else the machine does hits them alike.

    Args:
        ways: Names and what to call.
        repeats: Times that each is called.
        busy: Other programs run as well: compute in one thread, and count the seconds in which this
            process had the processor.
    """
    clock = process_time if busy else perf_counter
    if busy:
        torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    return seconds


def speed_up(seconds: Mapping[str, list[float]], way: str, against: str) -> float:
    """Return how many times faster one way is than another: the median over the turns."""
    return median(b / a for a, b in zip(seconds[way], seconds[against], strict=True))
