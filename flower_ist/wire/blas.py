"""How many threads a matrix product may use.

BLAS adds in another order with another number of threads, so results differ in their last bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


# It inspects the libraries of the process, which takes a millisecond.
@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_threads(number: int) -> AbstractContextManager[object]:
    """Compute with so many threads inside; with 1 the same numbers give the same bits."""
    limit: AbstractContextManager[object] = _controller().limit(limits=number, user_api="blas")
    return limit
