"""The number of threads that a matrix product may use on this device."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flower_ist.errors import ArgumentError
from flower_ist.wire.blas import blas_threads

BLAS_THREADS_KEY = "blas-threads"


def blas_threads_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Answer a message with as many BLAS threads as the node config allows (a Flower mod).

    One by default: a slice's matrices are so small that a second thread mostly waits, and several
    clients may share a machine. ``blas-threads`` in the node config gives large nets more.

    BLAS reads its environment variables when numpy is imported, and Flower's process imports numpy
    before it knows the node config: threadpoolctl sets the number afterwards.

    Raises:
        ArgumentError: the setting is not an integer of at least 1.
    """
    threads = context.node_config.get(BLAS_THREADS_KEY, 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ArgumentError(
            f"The node config gives {BLAS_THREADS_KEY!r} as {threads!r}: a whole number of at "
            "least 1 is needed."
        )
    with blas_threads(threads):
        return call_next(message, context)
