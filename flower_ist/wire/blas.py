"""How many threads a matrix product may use.

BLAS adds in another order with another number of threads, so results differ in their last bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


# It inspects the libraries of the process, which takes a millisecond.
@cache
def controller() -> Any:
    """Return threadpoolctl's controller of this process' BLAS, or None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return None
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Compute with one thread inside, so that the same numbers give the same bits."""
    found = controller()
    limit: AbstractContextManager[object] = (
        nullcontext() if found is None else found.limit(limits=1, user_api="blas")
    )
    return limit
