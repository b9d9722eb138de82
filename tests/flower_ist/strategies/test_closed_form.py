"""Closed-form heads over real messages: exact, judged, metered, in one round."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from client_app.app import app as client_app
from flower_ist.classifier.evaluate import evaluate_arrays
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.metered import MeteredGrid
from flower_ist.statistics.ridge import RidgePath, ridge_head
from flower_ist.statistics.sums import Statistics, full_gram
from flower_ist.strategies.closed_form import METHODS, ClosedFormStrategy, empty_head
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.tokens.shard import open_shard
from flower_ist.wire.layout import layout_of
from flower_ist.wire.packing import pack
from flower_ist.wire.protocol import PACKED_KEY, STATISTICS_KEY
from tests.fakes.strategies import SilentGrid, model


def run(
    blobs: Path, strategy: ClosedFormStrategy, num_rounds: int = 1
) -> tuple[dict[str, np.ndarray], MeteredGrid]:
    grid = MeteredGrid(InProcessGrid(client_app, 8, {"data-dir": str(blobs)}))
    result = strategy.start(grid=grid, initial_arrays=empty_head(12, 3), num_rounds=num_rounds)
    return {name: array.numpy() for name, array in result.arrays.items()}, grid


def summed(strategy: ClosedFormStrategy, replies: list[Message]) -> Statistics:
    """Return the sum of what counts of some answers."""
    return Statistics.total(list(strategy.what_counts(1, replies).values()))


@pytest.mark.parametrize("method", METHODS)
def test_learns_in_one_round_and_keeps_it(blobs, method):
    found, grid = run(blobs, ClosedFormStrategy(method=method), num_rounds=3)
    accuracy, loss = evaluate_arrays(found, open_shard(blobs / "test"))
    assert accuracy > 0.85
    assert np.isfinite(loss)
    assert grid.traffic(1).total.messages_up == 8
    assert grid.traffic(2).total.messages_down == grid.traffic(3).total.messages_down == 0


def central_ridge(blobs: Path, penalty: float) -> dict[str, np.ndarray]:
    """Solve for all clients' tokens at once, with a column of ones."""
    parts = [open_shard(blobs / f"client-{k}").batch(slice(None)) for k in range(8)]
    x = np.concatenate([tokens for tokens, _ in parts]).astype(np.float64)
    x = np.column_stack([x, np.ones(len(x))])
    y = np.eye(3)[np.concatenate([labels for _, labels in parts])]
    return ridge_head(np.linalg.solve(x.T @ x + penalty * np.eye(13), x.T @ y))


@pytest.mark.parametrize(
    ("wire_dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4), ("int16", 1e-3)]
)
def test_ridge_is_the_central_solution(blobs, wire_dtype, tolerance):
    found, _ = run(blobs, ClosedFormStrategy(penalties=[0.5], wire_dtype=wire_dtype))
    for name, expected in central_ridge(blobs, 0.5).items():
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "wire_dtype", "payload"),
    [
        # 3 counts of 8 bytes, 3 x 12 sums, 12 x 13 / 2 of the triangle.
        ("ridge", "float64", 24 + 8 * (36 + 78)),
        ("ridge", "float32", 24 + 4 * (36 + 78)),
        # Sums and 12 spreads in 4 bytes, the triangle in 2.
        ("ridge", "int16", 24 + 4 * (36 + 12) + 2 * 78),
        ("fedncm", "int16", 24 + 4 * 36),
        ("fedncm", "float64", 24 + 8 * 36),
        ("fedcof", "float32", 24 + 4 * 36),
    ],
)
def test_bytes_by_hand(blobs, method, wire_dtype, payload):
    """Nothing but a question goes down; one array comes up from each of 8 clients."""
    _, grid = run(blobs, ClosedFormStrategy(method=method, wire_dtype=wire_dtype))
    total = grid.traffic(1).total
    assert (total.payload_bytes_down, total.payload_bytes_up) == (0, 8 * payload)
    assert total.wire_bytes_up > total.payload_bytes_up
    assert grid.traffic(1).inputs["examples"] == sum(range(60, 68))


def test_without_the_servers_data_sums_choose_the_penalty(blobs):
    strategy = ClosedFormStrategy(penalties=[1e6, 1.0, 1e5])
    found, _ = run(blobs, strategy)
    assert strategy.penalty == 1.0
    expected = central_ridge(blobs, 1.0)
    np.testing.assert_allclose(found["fc1.weight"], expected["fc1.weight"], rtol=1e-5)


def test_the_penalty_is_chosen_on_the_servers_data(blobs):
    tried = []

    def score(head: dict[str, np.ndarray]) -> float:
        tried.append(head)
        return -abs(len(tried) - 2)  # the second is the best

    strategy = ClosedFormStrategy(penalties=[0.1, 7.0, 100.0], score=score)
    found, _ = run(blobs, strategy)
    assert len(tried) == 3
    assert strategy.penalty == 7.0
    expected = central_ridge(blobs, 7.0)
    np.testing.assert_allclose(found["fc1.weight"], expected["fc1.weight"], rtol=1e-5)


def asked(**options: Any) -> tuple[ClosedFormStrategy, list[Message]]:
    strategy = ClosedFormStrategy(min_train_nodes=1, min_available_nodes=1, **options)
    messages = strategy.configure_train(1, empty_head(2, 2), ConfigRecord({"a": 1}), SilentGrid(2))
    return strategy, list(messages)


def answer(message: Message, examples: int = 4, **changes: Any) -> Message:
    """Answer with 4 examples of class 0, (1, 1) each; changes replace a tensor."""
    tensors = {
        "counts": np.array([4, 0]),
        "sums": np.array([[4.0, 4], [0, 0]]),
        "gram": np.array([4.0, 4, 4]),
        **changes,
    }
    arrays = ArrayRecord({PACKED_KEY: pack(tensors, layout_of(tensors))})
    metrics = MetricRecord({"num-examples": examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def test_the_question_carries_no_model():
    _, messages = asked()
    for message in messages:
        assert not message.content.array_records
        config = message.content.config_records["config"]
        assert (config["server-round"], config["a"]) == (1, 1)
        assert config[STATISTICS_KEY] == "class-sums-and-gram"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"counts": np.array([4, 1])}, "do not add up to its 4 examples"),
        ({"counts": np.array([4, 0], np.int32)}, "instead of"),
        ({"sums": np.array([[4.0, np.nan], [0, 0]])}, "not finite numbers"),
        ({"sums": np.array([[1e6, 4], [0, 0]])}, "tokens above max_token"),
        ({"sums": np.zeros((3, 2))}, "bytes instead of"),
        ({"gram": np.array([np.inf, 4, 4])}, "not finite numbers"),
        ({"gram": np.array([1e12, 4, 4])}, "tokens above max_token"),
        ({"gram": np.zeros(4)}, "bytes instead of"),
    ],
)
def test_a_bad_answer_is_refused_alone(changes, reason, caplog):
    strategy, (bad, good) = asked()
    with caplog.at_level(logging.WARNING, "flwr"):
        record, _ = strategy.aggregate_train(1, [answer(bad, **changes), answer(good)])
    assert reason in caplog.text
    assert list(strategy.last_round.refused) == [bad.metadata.dst_node_id]
    alone = Statistics(np.array([4, 0]), np.array([[4.0, 4], [0, 0]]), np.array([4.0, 4, 4]))
    expected = ridge_head(RidgePath.of(alone).solve(1.0))
    for name, tensor in expected.items():
        np.testing.assert_allclose(record[name].numpy(), tensor, rtol=1e-6, atol=1e-7)


def small_answer(message: Message, **changes: Any) -> Message:
    """Answer in int16 with (0, 1) and (2, 1), twice each: scatter 4 and 0, Gram 8 4 4."""
    tensors: dict[str, Any] = {
        "counts": np.array([4, 0]),
        "sums": np.array([[4, 4], [0, 0]], np.float32),
        "spreads": np.array([2, 0], np.float32),
        "factor": np.array([32_767, 0, 0], np.int16),
        **changes,
    }
    arrays = ArrayRecord({PACKED_KEY: pack(tensors, layout_of(tensors))})
    metrics = MetricRecord({"num-examples": 4})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def test_answers_in_int16_are_summed_up():
    strategy, messages = asked(wire_dtype="int16")
    total = summed(strategy, [small_answer(message) for message in messages])
    assert total.counts.tolist() == [8, 0]
    assert total.sums.tolist() == [[8, 8], [0, 0]]
    assert total.gram is not None
    assert total.gram.tolist() == [16, 8, 8]


def spreads(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"counts": np.array([4, 1])}, "do not add up to its 4 examples"),
        ({"counts": np.array([0, 0])}, "do not add up"),
        ({"counts": np.array([-4, 0])}, "do not add up"),
        ({"counts": np.array([2**63 - 1, 2**63 - 1])}, "do not add up"),
        ({"counts": np.array([4.0, 0.0])}, "not finite numbers|do not add up"),
        ({"counts": np.array([4, 0], np.int32)}, "instead of"),
        ({"sums": np.array([[4, np.nan], [0, 0]], np.float32)}, "not finite numbers"),
        ({"sums": np.array([[3e38, -3e38], [3e38, 0]], np.float32)}, "tokens above max_token"),
        ({"sums": np.array([[4.0, 4], [0, 0]])}, "bytes instead of"),
        ({"spreads": spreads(2, -1)}, "its tokens' spread is below 0 somewhere"),
        ({"spreads": spreads(2, np.nan)}, "not finite numbers"),
        ({"spreads": spreads(2, np.inf)}, "not finite numbers"),
        ({"spreads": spreads(3e4, 0)}, "tokens above max_token"),
        ({"spreads": spreads(3e38, 0)}, "tokens above max_token"),
        ({"spreads": spreads(2)}, "bytes instead of"),
        ({"factor": np.zeros(4, np.int16)}, "bytes instead of"),
        ({"factor": np.zeros(3, np.float32)}, "bytes instead of"),
    ],
)
def test_a_bad_answer_in_int16_is_refused_alone(changes, reason, caplog):
    strategy, (bad, good) = asked(wire_dtype="int16")
    with caplog.at_level(logging.WARNING, "flwr"):
        total = summed(strategy, [small_answer(bad, **changes), small_answer(good)])
    assert re.search(reason, caplog.text)
    assert list(strategy.last_round.refused) == [bad.metadata.dst_node_id]
    assert total.gram is not None
    assert total.gram.tolist() == [8, 4, 4]


def test_whatever_finite_factor_comes_the_gram_matrix_is_one_of_tokens():
    """-32768 is no number that a client of ours sends: here every correlation is -1 or beyond."""
    strategy, (first, _) = asked(wire_dtype="int16")
    changes = {
        "spreads": spreads(2, 2),
        "factor": np.array([32_767, -32_768, -32_768], np.int16),
    }
    total = summed(strategy, [small_answer(first, **changes)])
    assert np.linalg.eigvalsh(full_gram(total)).min() > 0


def test_too_few_good_answers_stop_the_run():
    strategy, (one, other) = asked()
    bad = [answer(message, counts=np.array([1, 1])) for message in (one, other)]
    with pytest.raises(TrainingFailedError, match="0 of 2 replies were good"):
        strategy.aggregate_train(1, bad)


def test_another_model_than_a_linear_layer_is_refused():
    strategy = ClosedFormStrategy(min_train_nodes=1, min_available_nodes=1)
    with pytest.raises(ValueError, match="starts from one linear layer"):
        strategy.configure_train(1, model()[1], ConfigRecord(), SilentGrid(1))
    wrong = ArrayRecord({"fc1.weight": Array(np.zeros((2, 3))), "fc1.bias": Array(np.zeros(3))})
    with pytest.raises(ValueError, match="starts from one linear layer"):
        strategy.configure_train(1, wrong, ConfigRecord(), SilentGrid(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "svm"}, "no method 'svm': choose one of ridge, lda, fedncm, fedcof"),
        (
            {"wire_dtype": "float16"},
            "no wire_dtype 'float16': choose one of float64, float32, int16, compact",
        ),
        ({"penalties": []}, "must be above 0"),
        ({"penalties": [0.0]}, "must be above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClosedFormStrategy(**options)


def test_summary(caplog):
    with caplog.at_level(logging.INFO, "flwr"):
        for method in METHODS:
            ClosedFormStrategy(method=method).summary()
    for text in ("ridge", "Penalties: [1.0]", "fedncm", "class-sums in float64"):
        assert text in caplog.text
