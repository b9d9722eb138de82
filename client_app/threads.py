"""How many threads a matrix product may use on this device."""

from __future__ import annotations

from functools import cache

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from threadpoolctl import ThreadpoolController

from flower_ist.errors import ArgumentError

BLAS_THREADS_KEY = "blas-threads"


def blas_threads_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer a message with as many BLAS threads as the node config allows (a Flower mod).

    One by default: a slice's matrices are so small that a second thread mostly waits, and several
    clients may share a machine. ``blas-threads`` in the node config gives large nets more. The
    environment variables that BLAS reads when numpy is imported would not do: Flower's process
    imports numpy before it knows the node config.

    Raises:
        ArgumentError: the setting is no whole number of at least 1.
    """
    threads = context.node_config.get(BLAS_THREADS_KEY, 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ArgumentError(
            f"The node config gives {BLAS_THREADS_KEY!r} as {threads!r}: a whole number of at "
            "least 1 is needed."
        )
    with _controller().limit(limits=threads, user_api="blas"):
        return call_next(message, context)


# It looks through the libraries of the process, which takes a millisecond.
@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
