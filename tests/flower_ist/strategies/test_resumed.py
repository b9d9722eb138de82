"""A resumed strategy goes on bit for bit, and nothing that a strategy remembers is forgotten.

Clients add noise that follows from client, round and weight, so that a round more or less, another
order of clients or a lost momentum changes the bits of the model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from flower_ist.errors import ArgumentError
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.strategies.closed_form import ClosedFormStrategy
from flower_ist.strategies.resumed import ResumedStrategy
from flower_ist.strategies.state import FLOWER_STATE, load_strategy_state, strategy_state
from flower_ist.strategies.submodel import SubmodelStrategy
from flower_ist.submodels.axes import Axes
from tests.fakes.tiny import WEIGHTS, model, partition_of, tiny_app

Factory = Callable[[], Strategy]
SOME: dict[str, Any] = {"fraction_train": 0.5, "fraction_evaluate": 0.5, "min_train_nodes": 2}
ADAPTIVE: dict[str, Any] = {"beta_1": 0.9, "beta_2": 0.99, "eta": 0.1}


def submodels(**options: Any) -> SubmodelStrategy:
    axes = Axes.declare({n: w.shape for n, w in WEIGHTS.items()}, {"w": ("h", None), "b": ("h",)})
    options = {"min_train_nodes": 1, "min_available_nodes": 1, **options}
    return SubmodelStrategy(axes, fraction_train=0.5, **options)


# One of each class of FLOWER_STATE, so that each remembers something, and ours.
FACTORIES: dict[str, Factory] = {
    "FedAvg": lambda: flower.FedAvg(**SOME),
    "FedProx": lambda: flower.FedProx(proximal_mu=0.1, **SOME),
    "FedMedian": lambda: flower.FedMedian(**SOME),
    "FedTrimmedAvg": lambda: flower.FedTrimmedAvg(**SOME),
    "Krum": lambda: flower.Krum(num_malicious_nodes=0, **SOME),
    "MultiKrum": lambda: flower.MultiKrum(num_malicious_nodes=0, num_nodes_to_select=2, **SOME),
    "FedAdagrad": lambda: flower.FedAdagrad(**SOME),
    "FedAdam": lambda: flower.FedAdam(**ADAPTIVE, **SOME),
    "FedYogi": lambda: flower.FedYogi(**ADAPTIVE, **SOME),
    "FedAvgM": lambda: flower.FedAvgM(server_momentum=0.5, **SOME),
    "SubmodelStrategy": submodels,
}


def noisy_app() -> ClientApp:
    """Clients whose new weights follow from the old ones, their partition and the round."""
    app = ClientApp()
    tiny = tiny_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        server_round = int(str(message.content.config_records["config"]["server-round"]))
        generator = np.random.default_rng([server_round, partition_of(context)])
        trained = ArrayRecord()
        for name, array in message.content.array_records["arrays"].items():
            old = array.numpy()
            noise = generator.normal(size=old.shape)
            trained[name] = Array((0.9 * old + noise).astype(np.float32))
        metrics = MetricRecord({"num-examples": 10 - partition_of(context), "train_loss": 0.5})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return tiny(message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return tiny(message, context)

    return app


def run(
    strategy: Strategy,
    num_rounds: int,
    initial: ArrayRecord,
    after_round: Callable[[int, ArrayRecord], None] = lambda *_: None,
) -> Result:
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        after_round(server_round, arrays)
        return MetricRecord({"round": server_round})

    grid = InProcessGrid(noisy_app(), 6)
    return strategy.start(grid, initial, num_rounds, timeout=1.0, evaluate_fn=evaluate)


def arrays_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


def bits(record: ArrayRecord) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in record.items()}


def fresh(make: Factory) -> Strategy:
    random.seed(7)
    return make()


@pytest.mark.parametrize("name", FACTORIES)
def test_resumed_after_any_round_is_bit_identical(tmp_path, name):
    make = FACTORIES[name]
    checkpoints = Checkpoints(tmp_path, keep=9)
    strategy = fresh(make)

    def save(server_round: int, arrays: ArrayRecord) -> None:
        checkpoints.save(
            Checkpoint(server_round, arrays_of(arrays), strategy_state(strategy), 0, {})
        )

    expected = run(strategy, 4, model(), save)
    assert bits(expected.arrays) != bits(model())
    for server_round in (0, 1, 2, 3):
        for later in checkpoints.files()[server_round + 1 :]:
            later.rename(later.with_suffix(".later"))
        checkpoint = checkpoints.last()
        for later in checkpoints.folder.glob("*.later"):
            later.rename(later.with_suffix(".safetensors"))
        assert checkpoint is not None
        assert checkpoint.server_round == server_round
        resumed = fresh(make)
        load_strategy_state(resumed, checkpoint.strategy)
        random.setstate(checkpoint.random_state)
        start = ArrayRecord({n: Array(np.asarray(w)) for n, w in checkpoint.weights.items()})
        seen: list[int] = []
        found = run(
            ResumedStrategy(resumed, server_round), 4, start, lambda n, _, seen=seen: seen.append(n)
        )
        assert bits(found.arrays) == bits(expected.arrays)
        left = list(range(server_round + 1, 5))
        assert seen == list(found.evaluate_metrics_serverapp) == left
        assert list(found.train_metrics_clientapp) == left


# What each of Flower's own classes sets on itself while it runs. ``current_arrays`` is set from the
# model at the start of a round; all else must be in FLOWER_STATE. An update of flwr that adds
# something makes this test fail: read the class, then say here and there what it is.
DERIVED = {"current_arrays"}


def looks(value: Any) -> Any:
    """Return what a value looks like, so that a change of it shows."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: looks(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [looks(item) for item in value]
    if type(value).__module__.startswith("flower_ist."):
        return looks(vars(value)) if hasattr(value, "__dict__") else repr(value)
    return repr(value)


@pytest.mark.parametrize("kind", FLOWER_STATE, ids=lambda kind: kind.__name__)
def test_nothing_else_changes_on_a_strategy_of_flowers(kind):
    strategy = fresh(FACTORIES[kind.__name__])
    assert type(strategy) is kind
    before = {name: looks(value) for name, value in vars(strategy).items()}
    run(strategy, 2, model())
    changed = {n for n, value in vars(strategy).items() if before.get(n) != looks(value)}
    assert changed - DERIVED == set(FLOWER_STATE[kind])


def test_nothing_else_changes_on_a_strategy_of_ours():
    """Sub-models: what :meth:`state` tells; the rest follows from model and round."""
    strategy = submodels()
    everything = {**vars(strategy), **vars(strategy.selection)}
    before = {name: looks(value) for name, value in everything.items()}
    run(strategy, 2, model())
    everything = {**vars(strategy), **vars(strategy.selection)}
    changed = {n for n, value in everything.items() if before.get(n) != looks(value)}
    derived = {"_weights", "_weights_record", "_retired", "_sent", "last_round", "registry"}
    derived |= {"_silent_rounds"}  # a clock: whoever goes on waits anew
    derived |= {"_met", "_free"}  # of the last look at who is connected
    assert changed - derived <= {"selection", "seats", "turns", "quarantine"}
    assert "seats" in changed


def test_flowers_strategies_have_no_loop_of_their_own():
    for kind in FLOWER_STATE:
        assert kind.start is Strategy.start


def test_seats_by_client_name_survive():
    """Clients keep the capacities they had, whoever is there first after the restart."""
    first = submodels(scheme="heterofl", capacities=[0.5, 1.0])
    first.selection.seats = {"client-9": 0, "client-1": 1}
    second = submodels(scheme="heterofl", capacities=[0.5, 1.0])
    load_strategy_state(second, strategy_state(first))
    assert second.selection.seats == {"client-9": 0, "client-1": 1}


def test_a_head_that_is_made_is_not_made_again():
    first = ClosedFormStrategy(method="ridge", penalties=[2.0])
    first._done = True
    second = ClosedFormStrategy(method="ridge", penalties=[2.0])
    load_strategy_state(second, strategy_state(first))
    assert second._done


class Unknown(FedAvg):
    """A strategy of which nothing is known, not even that it forgets everything."""


class OwnLoop(FedAvg):
    def start(self, *_: Any, **__: Any) -> Result:
        return Result()


def test_a_strategy_of_unknown_state_is_refused():
    with pytest.raises(ArgumentError, match=r"not known what Unknown remembers.*state\(\) and lo"):
        strategy_state(Unknown())


def test_a_state_of_another_strategy_is_refused():
    with pytest.raises(ValueError, match=r"FedAdam has the state \['m_t', 'v_t'\], but the check"):
        load_strategy_state(flower.FedAdam(), {"momentum_vector": None})


def test_a_strategy_with_a_loop_of_its_own_is_refused():
    with pytest.raises(ValueError, match="OwnLoop has a loop of its own"):
        ResumedStrategy(OwnLoop(), 1)


def test_a_model_that_nobody_changed_stays():
    """Closed forms send nothing after round 1: Flower's result has no arrays then."""

    class Idle(FedAvg):
        def configure_train(self, *_: Any) -> Iterable[Message]:
            return []

    strategy = Idle(fraction_evaluate=0.0)
    assert bits(run(ResumedStrategy(strategy, 1), 3, model()).arrays) == bits(model())
