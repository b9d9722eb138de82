"""Images join a client's shard, or leave it, while a run goes on or before it is resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.grids import clients
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.grids.prior import PriorOnce
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from flower_ist.tokens.edit import drop
from flower_ist.wire.protocol import FACTS_RECORD, SHARD_KEY, SUPERLINK_ERRORS
from server_app.app import app as server_app
from server_app.newcomers import Newcomers
from server_app.statistics_file import STATISTICS_FILE, Counted
from tests.fakes.changing import (
    asked,
    assert_sums_are_of,
    grow,
    serve,
    star_accuracy,
    sums,
    without_first,
)
from tests.fakes.shards import edit_meta, replace_array, write_blobs
from tests.fakes.tiny import tiny_app

MakeConfig = Callable[..., dict[str, Any]]
Change = Callable[[], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clients of 60 examples without any 'star', 50 new ones, all stars, and a test set.

    With them a client has 110, most of which the others recognize: all count.
    """
    for k in range(3):
        write_blobs(tmp_path / "data", f"client-{k}", 60, seed=k, shares=(0.5, 0.5, 0.0))
    write_blobs(tmp_path / "new", "stars", 50, seed=7, shares=(0.0, 0.0, 1.0))
    write_blobs(tmp_path / "data", "test", 300, seed=1000)
    return tmp_path / "data"


@pytest.fixture
def small(warm_config: MakeConfig, folder: Path) -> MakeConfig:
    options = {"data_dir": str(folder), "num_rounds": 6}
    return lambda **changes: warm_config(**{**options, **changes})


def test_a_class_that_joins_a_running_run_is_learnt(small: MakeConfig, folder: Path) -> None:
    """Round 3 trains on the larger shard and says so; 4 asks, and 5 has the new statistics."""
    run = serve(small(), round_3=lambda: grow(folder / "client-2", folder.parent / "new" / "stars"))
    lines = read_run(run)
    assert sum(line["clients_failed"] for line in lines) == 0
    assert asked(run) == {4: 1}
    assert_sums_are_of(run, folder, ["client-0", "client-1", "client-2"])
    assert star_accuracy(run, folder) > 0.8
    assert "3 with 60 to 110 examples each, 230 in total" in (run / "README.md").read_text()
    # One part for each client, and none that nobody counts by any more.
    assert len(list((run / "statistics").iterdir())) == 3


def test_without_its_statistics_it_is_not_learnt(small: MakeConfig, folder: Path, monkeypatch):
    monkeypatch.setattr(Newcomers, "_has_changed", lambda *_: False)
    new = folder.parent / "new" / "stars"
    assert (
        star_accuracy(serve(small(), round_3=lambda: grow(folder / "client-2", new)), folder) < 0.2
    )


@pytest.mark.parametrize("strategy", ["fedavg", "heterofl", "ridge"])
def test_other_strategies_take_replies_from_a_larger_shard(
    small: MakeConfig, folder: Path, strategy: str
) -> None:
    """With ridge a shard is read once, in round 1."""
    new = folder.parent / "new" / "stars"
    config = small(strategy=strategy, capacities="1" if strategy == "heterofl" else "")
    run = serve(config, round_3=lambda: grow(folder / "client-2", new))
    assert sum(line["clients_failed"] for line in read_run(run)) == 0
    if strategy != "ridge":
        assert asked(run) == {4: 1}
        assert star_accuracy(run, folder) > 0.8


def test_withdrawn_examples_leave_the_statistics_at_once(small: MakeConfig, folder: Path) -> None:
    """One of 180 is far from the tenth for which growth would wait."""
    run = serve(small(), round_2=lambda: without_first(folder / "client-0", 1))
    assert asked(run) == {3: 1}
    assert_sums_are_of(run, folder, ["client-0", "client-1", "client-2"])
    assert int(sums(run)["counts"].sum()) == 179


def test_examples_that_are_exchanged_are_exchanged_in_the_sums(
    small: MakeConfig, folder: Path
) -> None:
    """The same number of examples of the same classes, but others."""

    def exchange() -> None:
        tokens = np.load(folder / "client-1" / "tokens.npy")
        replace_array(folder / "client-1", "tokens", (tokens * 1.5).astype(tokens.dtype))

    run = serve(small(), round_2=exchange)
    assert asked(run) == {3: 1}
    assert_sums_are_of(run, folder, ["client-0", "client-1", "client-2"])


def test_little_growth_waits(small: MakeConfig, folder: Path) -> None:
    """6 of 180 examples are less than a tenth; with 50 more they are counted in."""
    write_blobs(folder.parent / "new", "few", 6, seed=8, shares=(0.5, 0.5, 0.0))
    few, stars = (folder.parent / "new" / name for name in ("few", "stars"))
    alone = serve(small(), round_2=lambda: grow(folder / "client-0", few))
    assert (asked(alone), int(sums(alone)["counts"].sum())) == ({3: 1}, 180)
    both = serve(small(), round_2=lambda: grow(folder / "client-1", stars))
    assert int(sums(both)["counts"].sum()) == 236


def test_growth_that_is_withdrawn_while_it_waits_is_never_counted(
    small: MakeConfig, folder: Path
) -> None:
    """6 examples wait from round 4 on and leave in round 5; 50 of another client come in 6."""
    write_blobs(folder.parent / "new", "few", 6, seed=8, shares=(0.5, 0.5, 0.0))
    few, stars = (folder.parent / "new" / name for name in ("few", "stars"))
    run = serve(
        small(num_rounds=10),
        round_2=lambda: grow(folder / "client-0", few),
        round_5=lambda: drop(folder / "client-0", range(10_000, 10_006)),
        round_6=lambda: grow(folder / "client-1", stars),
    )
    assert asked(run) == {3: 1, 7: 1}
    assert_sums_are_of(run, folder, ["client-0", "client-1", "client-2"])


def test_who_changes_all_the_time_is_asked_ever_more_rarely(small: MakeConfig, folder: Path):
    """Its first change is told in round 1; then it is asked after 2 rounds, 4, 8."""

    def change() -> None:
        tokens = np.load(folder / "client-1" / "tokens.npy")
        replace_array(folder / "client-1", "tokens", (tokens * 1.01).astype(tokens.dtype))

    run = serve(small(num_rounds=18), **{f"round_{k}": change for k in range(1, 19)})
    assert asked(run) == {2: 1, 4: 1, 8: 1, 16: 1}


def liar(folder: Path, count: int, *, turned: bool) -> Change:
    """Return what makes client-3's shard one of many examples, with wrong labels if turned."""

    def change() -> None:
        shard = write_blobs(folder.parent / "new", "many", count, seed=5)
        if turned:
            labels = np.load(shard / "labels.npy")
            replace_array(shard, "labels", ((labels + 1) % 3).astype(labels.dtype))
        grow(folder / "client-3", shard)

    return change


@pytest.mark.parametrize(("turned", "counts"), [(True, 60), (False, 20 * 60)])
def test_a_client_that_grows_without_measure_is_bounded(
    small: MakeConfig, folder: Path, caplog, turned: bool, counts: int
) -> None:
    """Of 6,060 examples it counts for 20 times the median client's, or for the median itself.

    The latter if the others do not recognize what it calls by which name. Its updates count for 3
    times the median client's examples, which are 60.
    """
    for k in range(4):
        shutil.rmtree(folder / f"client-{k}", ignore_errors=True)
        write_blobs(folder, f"client-{k}", 60, seed=k)
    config = small(strategy="fedavg")
    run = serve(config, 4, round_2=liar(folder, 6000, turned=turned))
    assert abs(int(sums(run)["counts"].sum()) - 180 - counts) <= 3
    assert "client-3 counts for 180 examples instead of its 6,060: see claim_bound" in caplog.text


def test_what_was_bounded_is_taken_out_as_it_was_counted(small: MakeConfig, folder: Path) -> None:
    """6,060 examples that count for 60 leave again: what is left is what there was."""
    write_blobs(folder, "client-3", 60, seed=3)
    shutil.copytree(folder / "client-3", folder.parent / "before")

    def restore() -> None:
        shutil.rmtree(folder / "client-3")
        shutil.copytree(folder.parent / "before", folder / "client-3")

    config = small(num_rounds=8)
    run = serve(config, 4, round_2=liar(folder, 6000, turned=True), round_4=restore)
    assert asked(run) == {3: 1, 5: 1}
    assert_sums_are_of(run, folder, [f"client-{k}" for k in range(4)])


@pytest.mark.parametrize("stop_in", [5, 6])
def test_a_run_that_was_killed_after_a_change_goes_on_to_the_same_bits(
    small: MakeConfig, folder: Path, stop_in: int
) -> None:
    """The change of round 2 is counted in when round 4 begins; a resumed run asks nobody again."""
    shutil.copytree(folder, folder.parent / "again")
    new = folder.parent / "new" / "stars"
    expected = serve(small(), round_2=lambda: grow(folder / "client-2", new))
    data = folder.parent / "again"
    config = small(data_dir=str(data))
    with pytest.raises(ConnectionError):
        serve(config, stop_in=stop_in, round_2=lambda: grow(data / "client-2", new))
    run_in_process(server_app, client_app, 3, {**config, "resume": True})
    run = Path(config["output-dir"])
    assert asked(run) == asked(expected) == {3: 1}
    found, wanted = (load_file(folder / "model.safetensors") for folder in (run, expected))
    assert {n: w.tobytes() for n, w in found.items()} == {n: w.tobytes() for n, w in wanted.items()}
    assert (run / STATISTICS_FILE).read_bytes() == (expected / STATISTICS_FILE).read_bytes()


def test_nobody_grows_beyond_the_most_examples(
    small: MakeConfig, folder: Path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(clients, "MAX_EXAMPLES", 100)
    config = small(strategy="fedavg", num_rounds=3)
    new = folder.parent / "new" / "stars"
    serve(config, round_2=lambda: grow(folder / "client-2", new))
    assert "client-2 is left out of this round: 'num-examples' is 110, not betw" in caplog.text


def test_data_of_another_encoder_have_no_part(small: MakeConfig, folder: Path, caplog) -> None:
    def other() -> None:
        edit_meta(folder / "client-2", lambda m: m["encoder"].update(weights_sha256="1" * 64))

    lines = read_run(serve(small(), round_3=other))
    assert (
        "its data have changed: it holds tokens with encoder-s" in lines[3]["failures"]["client-2"]
    )
    assert [line["clients_selected"] for line in lines] == [3, 3, 3, 3, 2, 2, 2]
    assert "client-2 is left out of this run: it holds tokens with encoder-sha256" in caplog.text


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_resumed_run_takes_a_grown_shard(small: MakeConfig, folder: Path, strategy: str) -> None:
    config = small(strategy=strategy)
    with pytest.raises(ConnectionError):
        serve(config, stop_in=3)
    run = Path(config["output-dir"])
    assert int(sums(run)["counts"].sum()) == 180
    grow(folder / "client-2", folder.parent / "new" / "stars")
    without_first(folder / "client-0", 10)
    run_in_process(server_app, client_app, 3, {**config, "resume": True})
    lines = read_run(run)
    assert sum(line["clients_failed"] for line in lines) == 0
    assert asked(run) == {3: 2}
    assert_sums_are_of(run, folder, ["client-0", "client-1", "client-2"])
    assert star_accuracy(run, folder) > 0.8


def test_what_is_no_longer_kept_is_not_replaced(small: MakeConfig, folder: Path, caplog) -> None:
    """A damaged part is none: nothing but what was counted may be taken out of the sums."""
    config = small()
    with pytest.raises(ConnectionError):
        serve(config, stop_in=3)
    run = Path(config["output-dir"])
    for part in (run / "statistics").iterdir():
        part.write_bytes(part.read_bytes()[:-1])
    grow(folder / "client-2", folder.parent / "new" / "stars")
    run_in_process(server_app, client_app, 3, {**config, "resume": True})
    assert int(sums(run)["counts"].sum()) == 180
    assert "what it counted for before is no longer in the run's folder" in caplog.text
    assert read_run(run)[-1]["clients_replied"] == 3


def test_a_private_client_does_not_name_its_data(small: MakeConfig, folder: Path) -> None:
    """It may grow all the same, and nobody asks it for sums."""
    config = small(
        standardize=False, replay=False, lda_skip=False, privacy_clip=1.0, privacy_noise=0.01
    )
    new = folder.parent / "new" / "stars"
    run = serve(config, round_3=lambda: grow(folder / "client-2", new))
    assert sum(line["clients_failed"] for line in read_run(run)) == 0
    assert asked(run) == {}
    assert not (run / "statistics").exists()


class GoneGrid(InProcessGrid):
    """A grid that answers at the second look, as Flower does when a node is gone."""

    asked = looks = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = []
        for message in messages:
            pushed += super().push_messages([message])
            error = Error(SUPERLINK_ERRORS[-1], "it is gone")
            self._replies[pushed[-1]] = Message(error, reply_to=message)
        self.asked = len(pushed)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:  # type: ignore[override]
        self.looks += 1
        return super().pull_messages(message_ids) if self.looks % 2 == 0 else []


def test_one_that_was_gone_when_it_was_asked_about_a_change_is_asked_again():
    """Asked in round 1, again when the pauses of two and of four rounds are over."""
    grid, registry, asked_in = GoneGrid(tiny_app(), 1), ClientRegistry(), []
    (node,) = grid.get_node_ids()
    registry.meet(InProcessGrid(tiny_app(), 1), [node])
    facts = RecordDict({FACTS_RECORD: ConfigRecord({SHARD_KEY: "new"})})
    registry.renew(Message(facts, reply_to=Message(RecordDict(), node, "train")))
    closed_form = SimpleNamespace(question=lambda _: RecordDict())
    counted = {"client-0": Counted(40.0, "digest", "old")}
    start: Any = SimpleNamespace(sums=SimpleNamespace(clients=counted, closed_form=closed_form))
    now = 0
    newcomers = Newcomers(registry, start, PriorOnce(), Path(), lambda: now, 20)
    for now in range(1, 12):
        grid.asked = 0
        newcomers.nodes(grid)
        asked_in += [now] * grid.asked
    assert asked_in == [1, 3, 7]
