"""The folder of a comparison, and the tokens that it uses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from flower_ist.compare import folder as folders
from flower_ist.compare.folder import ComparisonFolder, read_plan
from flower_ist.compare.plan import PlanError, Run
from flower_ist.compare.planning import repeated_plan
from flower_ist.compare.shards import fingerprint, pool
from flower_ist.tokens.shard import ShardError, open_shard
from tests.fakes.comparisons import tiny_plan
from tests.fakes.shards import edit_meta, write_blobs


def test_a_plan_is_adopted_once_and_then_extended(tmp_path, blobs):
    folder = ComparisonFolder(tmp_path)
    assert folder.adopt(tiny_plan(blobs, "ist")).strategies == ("ist",)
    (folder.prepare(Run("ist", {}, 0), {}) / "done.json").touch()
    assert folder.adopt(tiny_plan(blobs, "fedavg")).strategies == ("ist", "fedavg")
    assert read_plan(tmp_path).strategies == ("ist", "fedavg")
    with pytest.raises(PlanError, match=r"\(--rounds was 2 and is 3\)"):
        folder.adopt(tiny_plan(blobs, "ist", rounds=3))


def test_a_plan_without_a_finished_run_is_replaced_with_all_that_it_left(tmp_path, blobs):
    folder = ComparisonFolder(tmp_path)
    folder.adopt(tiny_plan(blobs, "ist"))
    failed = folder.prepare(Run("ist", {}, 0), {})
    pool(str(blobs), 2, tmp_path / "pooled")
    folder.adopt(tiny_plan(blobs, "ist"))
    assert failed.exists()
    assert folder.adopt(tiny_plan(blobs, "fedavg", rounds=3)).strategies == ("fedavg",)
    assert read_plan(tmp_path).rounds == 3
    assert {entry.name for entry in tmp_path.iterdir()} == {"plan.json"}


@pytest.mark.parametrize("name", ["runs", "cat.png", ".git"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        with (
            pytest.raises(PlanError, match="is not a comparison's folder: choose another"),
            ComparisonFolder(folder).locked(),
        ):
            pass
    assert {entry.name for entry in tmp_path.iterdir()} == {name, "file"}


def test_a_comparison_that_ended_before_it_had_a_plan_is_begun_again(tmp_path, blobs):
    for name in (".lock", ".plan.json.tmp"):
        (tmp_path / name).touch()
    folder = ComparisonFolder(tmp_path)
    for _ in range(2):
        with folder.locked():
            folder.adopt(tiny_plan(blobs, "ist"))
    assert {entry.name for entry in tmp_path.iterdir()} == {".lock", "plan.json"}


def test_a_second_comparison_waits_then_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.0)
    with (
        ComparisonFolder(tmp_path).locked(),
        pytest.raises(PlanError, match="Another comparison is writing"),
        ComparisonFolder(tmp_path).locked(),
    ):
        pass
    with ComparisonFolder(tmp_path).locked():
        pass


def test_the_config_of_a_run_is_the_apps_with_some_changes(tmp_path, blobs):
    plan = tiny_plan(blobs, "central,ist", settings=["learning-rate=1", "ridge-penalties=10"])
    folder = ComparisonFolder(tmp_path)
    config = folder.config(Run("ist", {}, 3), plan)
    assert config["data-dir"] == str(blobs)
    assert config["output-dir"] == str(tmp_path / "runs" / "ist-default-seed3")
    assert (config["seed"], config["num-rounds"], config["hidden-width"]) == (3, 2, 8)
    # Typed as the app's own: TOML's 1 is no decimal number, and one penalty is still a text.
    assert isinstance(config["learning-rate"], float)
    assert config["ridge-penalties"] == "10"
    assert config.keys() == plan.usage.config.keys()
    assert folder.config(Run("central", {}, 0), plan)["data-dir"] == str(tmp_path / "pooled")
    with pytest.raises(PlanError, match="no setting 'nonsense'"):
        folder.config(Run("ist", {"nonsense": 1}, 0), plan)


def test_central_takes_the_steps_of_one_client(tmp_path, blobs):
    """8 epochs of one of 2 clients are 4 epochs of their pooled examples."""
    plan = tiny_plan(blobs, "ist,central")
    plan = replace(plan, settings={**plan.settings, "local-steps": 0, "local-epochs": 8.0})
    folder = ComparisonFolder(tmp_path)
    assert folder.config(Run("ist", {}, 0), plan)["local-epochs"] == 8.0
    assert folder.config(Run("central", {}, 0), plan)["local-epochs"] == 4.0


def test_an_unfinished_run_starts_from_nothing(tmp_path):
    run = Run("ist", {}, 0)
    folder = ComparisonFolder(tmp_path)
    leftover = folder.prepare(run, {"seed": 0}) / "run.jsonl"
    leftover.write_text("torn")
    prepared = folder.prepare(run, {"seed": 0})
    assert not leftover.exists()
    assert json.loads((prepared / "settings.json").read_text()) == {"seed": 0}
    assert not folder.is_done(run)


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_pooled_tokens_are_the_clients_stored_ones(tmp_path, dtype):
    for client in range(2):
        write_blobs(tmp_path, f"client-{client}", 5 + client, seed=client, dtype=dtype)
    write_blobs(tmp_path, "test", 4, seed=9, dtype=dtype)
    pool(str(tmp_path), 2, tmp_path / "pooled")
    pool(str(tmp_path), 2, tmp_path / "pooled")  # is there already
    pooled = open_shard(tmp_path / "pooled" / "client-0", verify=True)
    parts = [open_shard(tmp_path / f"client-{client}") for client in range(2)]
    for name, array in pooled.arrays().items():
        np.testing.assert_array_equal(array, np.concatenate([p.arrays()[name] for p in parts]))
    assert (len(pooled), pooled.meta.image_bytes) == (11, 64 * 11)
    assert len(open_shard(tmp_path / "pooled" / "test", verify=True)) == 4


def test_tokens_of_two_kinds_are_not_pooled(tmp_path):
    write_blobs(tmp_path, "client-0", 5, seed=0, dtype="int8")
    write_blobs(tmp_path, "client-1", 5, seed=1, dtype="float16")
    write_blobs(tmp_path, "test", 5, seed=1)
    with pytest.raises(
        PlanError, match=r"client-1 are not of the kind of client-0 \(token_dtype was"
    ):
        pool(str(tmp_path), 2, tmp_path / "pooled")


def test_tokens_of_two_spaces_are_not_pooled(tmp_path):
    for client in range(2):
        write_blobs(tmp_path, f"client-{client}", 5, seed=client)
    write_blobs(tmp_path, "test", 5, seed=1)
    edit_meta(tmp_path / "client-1", lambda meta: meta["encoder"].update(layer=2, pool="mean"))
    with pytest.raises(PlanError, match=r"\(pool was cls and is mean; layer was 0 and is 2\)"):
        pool(str(tmp_path), 2, tmp_path / "pooled")


def test_other_tokens_are_another_comparison(tmp_path, blobs):
    assert fingerprint(str(blobs), 2) != fingerprint(str(blobs), 3) != fingerprint("", 3)
    plan = tiny_plan(blobs, "ist")
    ComparisonFolder(tmp_path).adopt(plan)
    assert repeated_plan(tmp_path) == plan
    ComparisonFolder(tmp_path / "b").path.mkdir()
    ComparisonFolder(tmp_path / "b").adopt(replace(plan, data_sha256="0"))
    with pytest.raises(PlanError, match="The tokens have changed"):
        repeated_plan(tmp_path / "b")
    with pytest.raises(PlanError, match="There is no comparison in"):
        repeated_plan(tmp_path / "c")


def test_too_few_shards_are_refused(blobs):
    with pytest.raises(ShardError):
        tiny_plan(blobs, "ist", clients=9)
    with pytest.raises(ShardError, match="serve 1 to 400 clients"):
        tiny_plan(None, "ist", clients=401)
