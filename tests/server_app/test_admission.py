"""The steps of a round: the formula by hand, what clients may tell, and that a run keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from client_app.app import app as client_app
from flower_ist.grids.clients import Client
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import run_in_process
from flower_ist.runs.checkpoint import Checkpoints
from flower_ist.runs.log import read_run
from server_app.admission import local_steps, steps_of_epochs
from server_app.app import app as server_app
from server_app.settings import Settings, SettingsError

MakeConfig = Callable[..., dict[str, Any]]


def clients(*examples: Any) -> list[Client]:
    """Return clients that told these numbers of examples; None: nothing."""
    told = [{} if count is None else {"num-examples": count} for count in examples]
    return [Client(node, f"client-{node}", facts) for node, facts in enumerate(told)]


@pytest.fixture
def settings(default_run_config: dict[str, Any]) -> Callable[..., Settings]:
    """Make settings of 10 epochs in batches of 64."""

    def make(**changes: Any) -> Settings:
        values = {key.replace("_", "-"): value for key, value in changes.items()}
        return Settings.from_run_config({**default_run_config, "local-epochs": 10.0, **values})

    return make


@pytest.mark.parametrize(
    ("epochs", "examples", "batch_size", "expected"),
    [
        (10, [1000] * 4, 64, 156),  # 156.25
        (10, [1250] * 8, 64, 195),  # 195.3
        (1, [64], 64, 1),
        (1.5, [64], 64, 2),  # 1.5, to the even number
        (2.5, [64], 64, 2),  # and 2.5 too
        (1, [31, 31, 31], 64, 1),  # 0.48: never none
        (0.001, [10], 1000, 1),
        (2, [10, 500, 90], 10, 18),  # the middle one of 10, 90 and 500
        (2, [90, 10, 500, 30], 10, 6),  # of 30 and 90 the smaller one
        (3, [100, 100, 100, 10**9], 10, 30),  # one liar of four
        (3, [10**9, 100], 10, 30),  # and of two
    ],
)
def test_steps_by_hand(epochs, examples, batch_size, expected):
    assert steps_of_epochs(epochs, examples, batch_size) == expected


def test_they_follow_from_the_clients_and_are_logged(settings, caplog):
    with caplog.at_level("INFO", "flwr"):
        assert local_steps(settings(), clients(1000, 1000, 1000, 1000)) == 156
    line = "Local steps a round: 156, 10 epochs of the median client's 1,000 examples"
    assert [record.message for record in caplog.records] == [line]


@pytest.mark.parametrize(
    "count",
    [
        *(None, "1000", True, b"9", [1000], float("nan"), float("inf"), 10**400),
        *(0, -5, 0.5, 100_000_001),  # no client has so few; no reply may count so many
    ],
)
def test_what_is_no_number_of_examples_has_no_part(settings, count):
    """640 and 64 examples: the smaller one is 10 steps. With a third that counts it is not."""
    assert local_steps(settings(), clients(640, count, 64)) == 10
    with pytest.raises(SettingsError) as caught:
        local_steps(settings(), clients(count, count))
    assert str(caught.value) == (
        "'local-steps' is 0, but no client told how many examples it has, from which "
        "'local-epochs' would make steps: set 'local-steps' to the steps of a round."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"local_steps": 7}, 7),
        ({"local_steps": 7, "local_epochs": 1.0}, 7),
        *(({"strategy": name}, 0) for name in ("ridge", "fedncm", "fedcof")),
    ],
)
def test_who_does_not_need_the_clients_answer(settings, caplog, changes, expected):
    with caplog.at_level("INFO", "flwr"):
        assert local_steps(settings(**changes), clients(None)) == expected
    assert not caplog.records


def serve(config: Mapping[str, Any], shards: list[Path]) -> list[dict[str, Any]]:
    """Run with these shards as clients and return the lines of the trained rounds."""
    nodes = [{"data-path": str(shard)} for shard in shards]
    grid = InProcessGrid(client_app, len(shards), config, nodes)
    server_app(grid, Context(1, 1, {}, RecordDict(), dict(config)))
    return read_run(Path(config["output-dir"]))[1:]


@pytest.fixture
def small(blob_config: MakeConfig) -> MakeConfig:
    """Make configs of two quick rounds; of 60 to 63 examples 61 count: 2 x 61 / 16 = 7.6."""
    options = {"num_rounds": 2, "local_steps": 0, "local_epochs": 2.0, "hidden_width": 8}
    return lambda **changes: blob_config(**{**options, **changes})


@pytest.mark.parametrize("strategy", ["ist", "fedavg", "fedrolex"])
def test_every_client_takes_the_same_steps_in_every_round(small: MakeConfig, strategy: str):
    capacities = "0.5,0.25" if strategy == "fedrolex" else ""
    config = small(strategy=strategy, capacities=capacities)
    run_in_process(server_app, client_app, 4, config)
    for line in read_run(Path(config["output-dir"]))[1:]:
        assert (line["local_steps"], line["examples"]) == (8, 4 * 8 * 16)


def test_a_run_that_goes_on_with_other_clients_takes_the_steps_it_began_with(
    small: MakeConfig, blobs: Path
):
    """8 epochs in batches of 8 are a step an example: 61 of clients 0 to 3, 66 of 6 and 7."""
    options = {"local_epochs": 8.0, "batch_size": 8}
    first, others = ([blobs / f"client-{k}" for k in numbers] for numbers in ((0, 1, 2, 3), (6, 7)))
    assert [line["local_steps"] for line in serve(small(**options), others)] == [66, 66]
    config = small(**options)
    serve(config, first)
    lines = serve({**config, "num-rounds": 4, "resume": True}, others)
    assert [line["local_steps"] for line in lines] == [61] * 4
    assert [line["clients_replied"] for line in lines] == [4, 4, 2, 2]
    last = Checkpoints(Path(config["output-dir"])).last()
    assert last is not None
    assert last.facts["local_steps"] == 61


def test_other_epochs_are_refused_when_a_run_goes_on(small: MakeConfig, blobs: Path):
    config = small(num_rounds=1)
    shards = [blobs / "client-0", blobs / "client-1"]
    serve(config, shards)
    with pytest.raises(SettingsError, match=r"\(local-epochs was 2.0 and is 3.0\)"):
        serve({**config, "num-rounds": 2, "local-epochs": 3.0, "resume": True}, shards)
