"""Registered nodes that lie of who they are and what they have: it costs nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from client_app.app import app as client_app
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.checkpoint import Checkpoints
from flower_ist.runs.log import read_run
from server_app.app import app as server_app
from tests.fakes.hostile import (
    Lie,
    calls_itself,
    flipped,
    larger,
    lying,
    nonsense,
    sums,
    tells,
    then,
    times,
)

MakeConfig = Callable[..., dict[str, Any]]
VICTIM = "client-0"


def serve(config: dict[str, Any], lies: dict[int, Lie], clients: int = 4) -> list[dict[str, Any]]:
    grid = InProcessGrid(lying(client_app, lies), clients, config)
    server_app(grid, Context(1, 1, {}, RecordDict(), dict(config)))
    return read_run(Path(config["output-dir"]))


@pytest.fixture
def quick(blob_config: MakeConfig) -> MakeConfig:
    options = {"num_rounds": 4, "local_steps": 2, "batch_size": 8, "hidden_width": 8}
    return lambda **changes: blob_config(**{**options, **changes})


@pytest.mark.parametrize("liar", [0, 3], ids=["met first", "met last"])
def test_quarantine_goes_to_who_earned_it(quick: MakeConfig, liar: int):
    """Client 1 is the victim: the liar is registered before it, or after it."""
    config = quick()
    lines = serve(config, {liar: then(calls_itself("client-1"), nonsense)})
    last = Checkpoints(Path(config["output-dir"])).last()
    assert last is not None
    quarantined = last.strategy["quarantine"]["until"]  # type: ignore[index, call-overload]
    assert len(quarantined) == 1
    honest = {"client-1", "client-2", "client-3" if liar == 0 else "client-0"}
    for line in lines[1:]:
        # Of two that tell a name the one that was registered first has it; both have a name.
        failed = set(line["failures"])
        replied = {name for name in line["clients"] if name not in failed}
        assert len(replied) == 3
        assert len(honest & replied) >= 2
    assert [line["clients_selected"] for line in lines[1:]] == [4, 4, 4, 3]


def test_bad_facts_under_another_name_leave_out_nobody_else(quick: MakeConfig, caplog):
    lines = serve(quick(), {3: then(calls_itself(VICTIM), tells(token_dim=5))})
    for line in lines[1:]:
        assert line["clients"].keys() == {"client-0", "client-1", "client-2"}
        assert line["failures"] == {}
    assert "'client-0' is another node's name: a node goes by client-0-" in caplog.text


def test_a_name_that_sorts_first_takes_no_other_share(quick: MakeConfig):
    """Shares follow the nodes' order: the liar's is the fourth, 0.05, and client 0 keeps 0.6."""
    config = quick(capacities="0.6,0.2,0.15,0.05", strategy="ist", hidden_width=40)
    honest = serve(quick(capacities="0.6,0.2,0.15,0.05", strategy="ist", hidden_width=40), {})
    lines = serve(config, {3: calls_itself("aaa")})
    down = "payload_bytes_down"
    for name in ("client-0", "client-1", "client-2"):
        assert lines[1]["clients"][name][down] == honest[1]["clients"][name][down]
    assert lines[1]["clients"]["aaa"][down] == honest[1]["clients"]["client-3"][down]


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_false_name_at_a_resume_blocks_nobody(quick: MakeConfig, strategy: str):
    config = quick(num_rounds=1, strategy=strategy)
    serve(config, {})
    lie = then(calls_itself(VICTIM), tells(num_examples=5))
    lines = serve({**config, "num-rounds": 2, "resume": True}, {3: lie})
    assert {"client-0", "client-1", "client-2"} <= lines[2]["clients"].keys()
    assert lines[2]["clients_replied"] >= 3
    assert not {"client-0", "client-1", "client-2"} & lines[2]["failures"].keys()


def test_a_told_name_does_not_keep_a_late_joiner_out_of_the_statistics(
    quick: MakeConfig, tmp_path: Path
):
    """The late client alone has stars; the liar told its name from the beginning."""
    from tests.fakes.shards import write_blobs
    from tests.server_app.test_newcomers import LateGrid, asked, counted

    data = tmp_path / "data"
    for k in range(3):
        write_blobs(data, f"client-{k}", 60, seed=k, shares=(0.5, 0.5, 0.0))
    write_blobs(data, "client-3", 60, seed=3, shares=(0.0, 0.0, 1.0))
    write_blobs(data, "test", 300, seed=1000)
    config = quick(data_dir=str(data), num_rounds=7, lda_skip=True, standardize=True, replay=True)
    late = LateGrid(lying(client_app, {2: calls_itself("client-3")}), 4, config)
    late.arrives = {3: 2}
    server_app(late, Context(1, 1, {}, RecordDict(), config))
    run = Path(config["output-dir"])
    assert counted(run) == 240
    assert asked(run) == {4: 1}


def statistics_run(quick: MakeConfig, lie: Lie | None, **changes: Any) -> float:
    config = quick(
        num_rounds=1, local_steps=1, standardize=True, replay=True, lda_skip=True, **changes
    )
    return float(serve(config, {} if lie is None else {3: lie}, 8)[-1]["accuracy"])


MANY = tells(num_examples=10**8)


@pytest.mark.parametrize(
    "lie",
    [
        then(MANY, sums(lambda told: times(10**5)(flipped(told)), classes=3, dim=12)),
        sums(larger(100), classes=3, dim=12),
    ],
    ids=["count", "spread"],
)
def test_statistics_that_lie_are_bounded_by_the_others(quick: MakeConfig, lie: Lie):
    honest = statistics_run(quick, None)
    assert statistics_run(quick, lie) > honest - 0.05
    assert statistics_run(quick, lie, claim_bound=0.0) < honest - 0.2


def test_what_counts_for_less_is_in_the_run_log(quick: MakeConfig, caplog):
    """Of 61, 62, 63, 64 and 60,000 examples the median is 63."""
    config = quick(num_rounds=1, local_steps=1, standardize=True, replay=True, lda_skip=True)
    lie = then(MANY, sums(lambda told: times(1000)(flipped(told)), classes=3, dim=12))
    lines = serve(config, {0: lie}, 5)
    assert lines[0]["bounded"] == {"client-0": [60_000.0, 63.0]}
    assert "client-0 counts for 63 examples instead of its 60,000" in caplog.text
    assert "bounded" not in lines[1]


def test_one_that_cannot_take_part_does_not_stop_a_run_before_the_others_are_there(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
    """Three are needed; the liar and two others are there first, the fourth a moment later."""
    config = quick(min_available_nodes=3, node_timeout=30.0, num_rounds=1)
    grid = InProcessGrid(lying(client_app, {0: tells(token_dim=5)}), 4, config)
    nodes, asked = list(grid.get_node_ids()), []

    def there() -> list[int]:
        asked.append(1)
        return nodes[:3] if len(asked) < 4 else nodes

    monkeypatch.setattr(grid, "get_node_ids", there)
    monkeypatch.setattr("server_app.admission._PAUSE_SECONDS", 0.01)
    server_app(grid, Context(1, 1, {}, RecordDict(), dict(config)))
    lines = read_run(Path(config["output-dir"]))
    assert lines[1]["clients"].keys() == {"client-1", "client-2", "client-3"}
