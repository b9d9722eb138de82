"""BLAS threads follow the device, for one message at a time."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from threadpoolctl import ThreadpoolController, threadpool_limits

from client_app.threads import BLAS_THREADS_KEY, blas_threads_mod
from flower_ist.wire.blas import _controller, blas_threads


def threads_now() -> int:
    return max(
        (pool["num_threads"] for pool in ThreadpoolController().select(user_api="blas").info()),
        default=1,
    )


def threads_of_a_message(node_config: dict[str, Any]) -> int:
    found = []

    def answer(message: Message, context: Context) -> Message:
        found.append(threads_now())
        return message

    message = Message(RecordDict({"config": ConfigRecord()}), 1, "train")
    blas_threads_mod(message, Context(1, 2, node_config, RecordDict(), {}), answer)
    return found[0]


def test_one_thread_unless_the_device_says_otherwise_and_for_the_message_alone():
    _controller.cache_clear()  # other tests may have loaded another BLAS since
    with threadpool_limits(2, user_api="blas"):
        with blas_threads(1):
            assert threads_now() == 1
        assert threads_of_a_message({}) == 1
        assert threads_of_a_message({BLAS_THREADS_KEY: 2}) == 2
        assert threads_now() == 2


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2"])
def test_a_number_of_no_use_is_refused(value):
    with pytest.raises(ValueError, match=r"^The node config gives 'blas-threads' as .* needed\.$"):
        threads_of_a_message({BLAS_THREADS_KEY: value})
