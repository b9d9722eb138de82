"""Every strategy behind one setting: all run on the same batches, and Flower's own are Flower's."""

from __future__ import annotations

import inspect
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from client_app.app import app as client_app
from flower_ist.classifier.mlp import initial_weights
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.strategies.closed_form import METHODS
from flower_ist.submodels.schemes import SCHEMES
from flower_ist.tokens.shard import TokenShard, open_shard
from flower_ist.tokens.shard import test_folder as folder_of_test
from server_app.build import FLOWERS, build_strategy
from server_app.evaluation import split_rows
from server_app.network import network_of
from server_app.settings import Settings, SettingsError
from server_app.strategies import CLOSED_FORM, OPTIONS, STRATEGIES
from tests.fakes.apps import run_and_read

MakeConfig = Callable[..., dict[str, Any]]

OWN = (
    *("fedavg", "fedavg-narrow", "fedavg-features"),
    *("fedprox", "fedadam", "fedyogi", "fedavgm", "fedmedian", "fedtrimmedavg"),
)

# What a strategy needs beside its name.
NEEDS: dict[str, dict[str, Any]] = {
    name: {"capacities": "0.5"} for name in ("federated-dropout", "heterofl", "fedrolex")
}
SLICES: dict[str, dict[str, Any]] = {"fedavg-narrow": {"num_slices": 4}}
DIMS = [12, 30, 30, 3]


def alone(strategy: Strategy, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Start a strategy by itself: no meter, no recorder, no server app. Return its model."""
    grid = InProcessGrid(client_app, 4, config)
    random.seed(config["seed"])
    keys = ("local-steps", "batch-size", "learning-rate", "seed")
    weights = initial_weights(DIMS, config["seed"])
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(weight) for name, weight in weights.items()}),
        num_rounds=config["num-rounds"],
        train_config=ConfigRecord({key: config[key] for key in keys}),
    )
    return {name: array.numpy() for name, array in result.arrays.items()}


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].tobytes() == expected[name].tobytes()


def build(config: dict[str, Any]) -> Any:
    settings = Settings.from_run_config(config)
    return build_strategy(settings, network_of(settings, 12, 3), ClientRegistry())


def build_named(default: dict[str, Any], name: str, **changes: Any) -> Any:
    options = {**NEEDS.get(name, {}), **SLICES.get(name, {}), **changes}
    values = {key.replace("_", "-"): value for key, value in options.items()}
    return build({**default, "strategy": name, **values})


def test_the_names_are_the_family_the_closed_forms_and_flowers_own():
    assert list(STRATEGIES) == [*SCHEMES, *CLOSED_FORM, *OWN]
    assert set(CLOSED_FORM) == {*METHODS, "ridge-features"}
    assert tuple(FLOWERS) == OWN


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_are_keywords_of_the_constructor(default_run_config, name):
    """Of Flower's own they are all that FedAvg does not have; eta_l is the learning rate."""
    keywords = {option.replace("-", "_") for option in OPTIONS.get(name, {})}
    parameters = inspect.signature(type(build_named(default_run_config, name))).parameters.keys()
    assert keywords <= parameters
    if name in FLOWERS:
        assert keywords == parameters - inspect.signature(FedAvg).parameters.keys() - {"eta_l"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_and_learns(blob_config: MakeConfig, name: str):
    """Three classes: chance is 1/3. A closed form sends in round 1 only. The whole model has
    12*30 + 30 + 30*30 + 30 + 30*3 + 3 = 1,413 numbers: Flower's own send it to and from 4 clients,
    in 4 bytes in every round (FedAdam would take 8, see server_app/build.py). A quarter as wide it
    has 12*7 + 7 + 7*7 + 7 + 7*3 + 3 = 171; the head on 12 numbers and 30 features has 3*42 + 3.
    """
    needs = {**NEEDS.get(name, {}), **SLICES.get(name, {})}
    config = blob_config(strategy=name, validation_share=0.3, num_rounds=4, **needs)
    rounds, weights = run_and_read(config)
    assert [line["round"] for line in rounds] == [0, 1, 2, 3, 4]
    assert {line["strategy"] for line in rounds} == {name}
    assert rounds[-1]["accuracy"] > 0.6
    assert rounds[-1]["validation_accuracy"] > 0.6
    sent = [line["clients_replied"] for line in rounds]
    assert sent == ([0, 4, 0, 0, 0] if name in CLOSED_FORM else [0, 4, 4, 4, 4])
    # A head on random features is a net of one hidden layer.
    layers = 2 if "features" in name else 1 if name in CLOSED_FORM else 3
    assert len(weights) == 2 * layers
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    if name in OWN:
        payloads = {(r["payload_bytes_down"], r["payload_bytes_up"]) for r in rounds[1:]}
        numbers = {"fedavg-narrow": 171, "fedavg-features": 129}.get(name, 1413)
        assert payloads == {(4 * 4 * numbers, 4 * 4 * numbers)}


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedmedian"])
def test_flowers_own_also_train_a_linear_head(blob_config: MakeConfig, name: str):
    rounds, weights = run_and_read(blob_config(strategy=name, hidden_layers=0, num_rounds=2))
    assert {key: array.shape for key, array in weights.items()} == {
        "fc1.weight": (3, 12),
        "fc1.bias": (3,),
    }
    assert rounds[-1]["loss"] < 0.9 * rounds[0]["loss"]


@pytest.mark.parametrize(
    ("name", "changes", "kind", "options"),
    [
        ("fedavg", {}, "FedAvg", {}),
        ("fedprox", {"strategy_options": "proximal-mu=0.5"}, "FedProx", {"proximal_mu": 0.5}),
        ("fedmedian", {}, "FedMedian", {}),
        ("fedtrimmedavg", {"strategy_options": "beta=0.3"}, "FedTrimmedAvg", {"beta": 0.3}),
        (
            "fedavgm",
            {"strategy_options": "server-momentum=0.25"},
            "FedAvgM",
            {"server_learning_rate": 1.0, "server_momentum": 0.25},
        ),
        (
            "fedavgm",
            {"strategy_options": "server-learning-rate=0.5 server-momentum=0.0"},
            "FedAvgM",
            {"server_learning_rate": 0.5, "server_momentum": 0.0},
        ),
        ("fedadam", {}, "FedAdam", {"eta": 0.03, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001}),
        (
            "fedyogi",
            {"strategy_options": "eta=0.5"},
            "FedYogi",
            {"eta": 0.5, "beta_1": 0.9, "eta_l": 0.001},
        ),
    ],
)
def test_flowers_own_are_flowers_classes(default_run_config, name, changes, kind, options):
    strategy = build_named(
        default_run_config, name, fraction_train=0.5, min_train_nodes=3, **changes
    )
    assert type(strategy) is getattr(flower, kind)
    assert {key: getattr(strategy, key) for key in options} == pytest.approx(options)
    assert (strategy.fraction_train, strategy.fraction_evaluate) == (0.5, 0.0)
    assert strategy.min_train_nodes == 3
    assert (strategy.train_metrics_aggr_fn, strategy.evaluate_metrics_aggr_fn) == (
        FedAvg().train_metrics_aggr_fn,
        FedAvg().evaluate_metrics_aggr_fn,
    )


def test_fedavg_here_is_fedavg_alone(blob_config: MakeConfig):
    """Bit for bit: the same clients, drawn and so added in the same order."""
    config = blob_config(strategy="fedavg")
    _, weights = run_and_read(config)
    assert_same_bits(weights, alone(FedAvg(fraction_evaluate=0.0), config))


@pytest.mark.parametrize("name", ["ist", "heterofl", "fedadam"])
def test_metering_changes_no_result(blob_config: MakeConfig, name: str):
    config = blob_config(strategy=name, **NEEDS.get(name, {}))
    _, weights = run_and_read(config)
    settings = Settings.from_run_config(config)
    strategy = build_strategy(settings, network_of(settings, 12, 3), ClientRegistry())
    assert_same_bits(weights, alone(strategy, config))


def test_all_strategies_see_the_same_batches(blob_config: MakeConfig, monkeypatch):
    """What each client really read in each round, by strategy."""
    reads: dict[str, list[list[int]]] = defaultdict(list)
    batch = TokenShard.batch

    def note(shard: TokenShard, rows: Any = slice(None)) -> Any:
        if not isinstance(rows, slice):
            reads[shard.meta.client].append(rows.tolist())
        return batch(shard, rows)

    monkeypatch.setattr(TokenShard, "batch", note)
    seen = {}
    for name in ("ist", "fedavg", "fedprox", "heterofl"):
        run_and_read(blob_config(strategy=name, **NEEDS.get(name, {})))
        seen[name] = dict(reads)
        reads.clear()
    assert set(seen["ist"]) == {f"client-{k}" for k in range(4)}
    # 3 rounds of 10 steps of 16 rows.
    assert [sum(map(len, rows)) for rows in seen["ist"].values()] == [480] * 4
    assert seen["ist"] == seen["fedavg"] == seen["fedprox"] == seen["heterofl"]


def test_fedprox_holds_the_clients_back(blob_config: MakeConfig):
    """Without its term it is FedAvg; with a heavy one the model stays near where it began."""
    start = initial_weights(DIMS, 0)
    moved, models = {}, {}
    for name, mu in (("fedavg", 0.0), ("fedprox", 0.0), ("fedprox", 100.0)):
        _, models[name, mu] = run_and_read(
            blob_config(
                strategy=name,
                strategy_options=f"proximal-mu={mu}" if name == "fedprox" else "",
                num_rounds=1,
            )
        )
        moved[name, mu] = sum(
            float(np.square(weight - start[key]).sum()) for key, weight in models[name, mu].items()
        )
    assert_same_bits(models["fedprox", 0.0], models["fedavg", 0.0])
    assert moved["fedprox", 100.0] < moved["fedavg", 0.0] / 4


def test_capacities_bound_what_each_client_gets(blob_config: MakeConfig):
    """Of 30 neurons: 15, 3, 3 and 3; 15 have 12*15 + 15 + 15*15 + 15 + 15*3 + 3 = 483 numbers, 3
    have 12*3 + 3 + 9 + 3 + 9 + 3 = 63."""
    rounds, _ = run_and_read(
        blob_config(strategy="heterofl", capacities="0.5,0.1,0.1,0.1", num_rounds=1)
    )
    sent = [client["payload_bytes_down"] for client in rounds[1]["clients"].values()]
    assert sent == [4 * 483, 4 * 63, 4 * 63, 4 * 63]


def test_where_sub_models_overlap_slices_set_the_widths_alone(blob_config: MakeConfig):
    """With K = 3 the net is 12-30-10-3. Half of 30 neurons, the 10 whole: 12*15 + 15 + 15*10 + 10 +
    10*3 + 3 = 388 numbers."""
    options = {"hidden_layers": 2, "cut": "alternate", "num_slices": 3, "num_rounds": 1}
    rounds, weights = run_and_read(blob_config(strategy="heterofl", capacities="0.5", **options))
    assert weights["fc2.weight"].shape == (10, 30)
    sent = [client["payload_bytes_down"] for client in rounds[1]["clients"].values()]
    assert sent == [4 * 388] * 4


def test_ridge_takes_the_penalty_that_is_best_on_validation_data(blob_config: MakeConfig):
    """A penalty of 1e9 leaves a head of nearly zeros, which tells the largest class at best."""
    penalties = ("1e9", "1e9,1", "1")
    models = [
        run_and_read(
            blob_config(strategy="ridge", ridge_penalties=text, validation_share=0.3, num_rounds=1)
        )
        for text in penalties
    ]
    (poor, _), (_, chosen), (good, best) = models
    assert_same_bits(chosen, best)
    assert poor[1]["validation_accuracy"] < good[1]["validation_accuracy"]


def test_without_a_validation_share_the_log_is_as_before(blob_config: MakeConfig):
    rounds, _ = run_and_read(blob_config(num_rounds=1, local_steps=1))
    assert all("validation_accuracy" not in line for line in rounds)


def test_the_test_part_alone_gives_the_accuracy(blob_config: MakeConfig):
    """The initial model: what the parts have right adds up to what the whole has."""
    config = blob_config(num_rounds=1, local_steps=1)
    whole = run_and_read(config)[0][0]["accuracy"]
    labels = open_shard(folder_of_test(Path(config["data-dir"]))).labels
    validation, test = split_rows(labels, 0.3)
    parts = run_and_read(
        {**config, "validation-share": 0.3, "output-dir": config["output-dir"] + "-2"}
    )[0][0]
    correct = len(test) * parts["accuracy"], len(validation) * parts["validation_accuracy"]
    assert correct == pytest.approx([round(count) for count in correct])
    assert sum(correct) == pytest.approx(300 * whole)


REFUSED = [
    ({"strategy": "nonsense"}, "'strategy' is 'nonsense', but must be one of: ist, ist-fixed, "),
    *[
        ({"strategy": name, "hidden-layers": 0, **NEEDS.get(name, {})}, "'hidden-layers' is 0, but")
        for name in SCHEMES
    ],
    *[
        (
            {"strategy": name},
            f"'{name}' needs the share of the neurons that each client can hold: give 'capacities'",
        )
        for name in NEEDS
    ],
    *[
        (
            {"strategy": name, "capacities": "0.5"},
            f"'capacities' is '0.5', but '{name}' does not follow it: leave it at '', or choose",
        )
        for name in (*CLOSED_FORM, *OWN)
    ],
    # What constructors refuse, under the names of the run config.
    ({"num-slices": 1025}, "'num-slices' is 1025, but 1024 neurons cannot be divided into 1025"),
    ({"num-slices": 9, "hidden-width": 8}, "'num-slices' is 9, but 8 neurons cannot be"),
    ({"capacities": "0.5,0"}, "'capacities' is [0.5, 0.0], but must be shares of the neurons abo"),
    ({"capacities": "1.01"}, "'capacities' is [1.01], but must be shares of the neurons above 0"),
    ({"capacities": "nan"}, "'capacities' is [nan]"),
    ({"capacities": "1", "num-slices": 2}, "Give 'num-slices' or 'capacities', but "),
    ({"merge-rule": "mode"}, "'merge-rule' is 'mode', but must be mean, median, or trimmed-mean:"),
    ({"merge-rule": "trimmed-mean"}, "'merge-rule' is 'trimmed-mean', but must be mean, median,"),
    ({"merge-rule": "trimmed-mean:0.5"}, "'merge-rule' is 'trimmed-mean:0.5', but must be mean,"),
    ({"norm-bound": 0.5}, "'norm-bound' is 0.5, but must be at least 1, or 0 for no bound"),
    *[
        ({"strategy": "ridge", "ridge-penalties": text}, f"'ridge-penalties' is {numbers}, but")
        for text, numbers in (("", "[]"), ("1,0", "[1.0, 0.0]"), ("inf", "[inf]"))
    ],
]


@pytest.mark.parametrize(("changes", "text"), REFUSED)
def test_what_a_strategy_cannot_use_is_refused_with_a_sentence(default_run_config, changes, text):
    with pytest.raises(SettingsError) as caught:
        build({**default_run_config, **changes})
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_defaults_are_fine_for_every_strategy(default_run_config, name):
    assert isinstance(build_named(default_run_config, name), Strategy)
