"""``resume=true``: a run that was stopped anywhere goes on to the bits of one that never was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from safetensors.numpy import load_file

from client_app.app import app as client_app
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import RUN_LOG, RunLog, RunLogError, read_run, sole_writer
from flower_ist.submodels.schemes import SCHEMES
from server_app.app import app as server_app
from server_app.settings import SettingsError
from server_app.strategies import CLOSED_FORM, STRATEGIES
from tests.fakes.shards import edit_meta, write_blobs

MakeConfig = Callable[..., dict[str, Any]]


class StoppedError(RuntimeError):
    """The server stops here."""


class StoppingGrid(InProcessGrid):
    """A grid whose server is stopped when some round's replies are there, before it merges them."""

    stop_in = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        messages = list(messages)
        rounds = [
            m.content.config_records["config"]["server-round"] for m in messages if is_train(m)
        ]
        replies = list(super().send_and_receive(messages, timeout=timeout))
        if self.stop_in in rounds:
            raise StoppedError("the power is gone")
        return replies


def is_train(message: Message) -> bool:
    return message.metadata.message_type == "train"


def stop(config: dict[str, Any], server_round: int, num_clients: int = 4) -> Path:
    """Run until the middle of a round and return the folder."""
    grid = StoppingGrid(client_app, num_clients, config)
    grid.stop_in = server_round
    with pytest.raises(StoppedError):
        server_app(grid, Context(1, 1, {}, RecordDict(), config))
    return Path(config["output-dir"])


def run(config: dict[str, Any], num_clients: int = 4) -> Path:
    run_in_process(server_app, client_app, num_clients, config)
    return Path(config["output-dir"])


def bits(folder: Path) -> dict[str, bytes]:
    return {n: w.tobytes() for n, w in load_file(folder / "model.safetensors").items()}


def rounds_of(folder: Path) -> list[int]:
    return [line["round"] for line in read_run(folder)]


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small(blob_config: MakeConfig) -> MakeConfig:
    """Make configs of four quick rounds in which two of four clients train."""
    options = {"num_rounds": 4, "local_steps": 2, "batch_size": 4, "hidden_width": 8}
    return lambda **changes: blob_config(**{**options, "fraction_train": 0.5, **changes})


def options_of(strategy: str) -> dict[str, Any]:
    if strategy == "fedavg-narrow":
        return {"num_slices": 2}
    return {"capacities": "0.5,1.0,0.25"} if strategy in SCHEMES else {}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_on_to_the_same_bits(small: MakeConfig, strategy: str) -> None:
    options = {"strategy": strategy, **options_of(strategy)}
    expected = run(small(**options))
    config = small(**options)
    folder = stop(config, 1 if strategy in CLOSED_FORM else 3)
    found = run({**config, "resume": True})
    assert found == folder
    assert bits(found) == bits(expected)
    same = ("round", "accuracy", "loss", "clients_replied", "coverage", "examples")
    for ours, theirs in zip(read_run(found), read_run(expected), strict=True):
        assert [ours[field] for field in same] == [theirs[field] for field in same]


def test_what_was_not_over_is_kept_beside_the_log(small: MakeConfig) -> None:
    config = small()
    folder = stop(config, 3)
    assert rounds_of(folder) == [0, 1, 2, 3]
    assert read_run(folder)[3]["error"] == "StoppedError: the power is gone"
    with (folder / RUN_LOG).open("a") as log:
        log.write('{"round": 3, "accur')
    torn = (folder / RUN_LOG).read_text().splitlines()[3:]
    run({**config, "resume": True})
    assert rounds_of(folder) == [0, 1, 2, 3, 4]
    assert (folder / "run.dropped.jsonl").read_text().splitlines() == torn
    lines = read_run(folder)
    assert [line.get("resumed_after") for line in lines] == [None, None, None, 2, None]
    assert lines[3]["message_types"].keys() == {"query", "train"}
    assert json.loads((folder / "settings.json").read_text())["resume"] is True


def test_the_model_of_a_stopped_run_is_the_last_merged_one(small: MakeConfig) -> None:
    expected = run(small(num_rounds=2))
    assert bits(stop(small(), 3)) == bits(expected)


def test_the_same_command_begins_continues_and_ends_a_run(small: MakeConfig, caplog) -> None:
    """As a service that is restarted would do; the last start finds nothing left to do."""
    config = small(resume=True)
    folder = stop(config, 1)
    stop(config, 2)
    stop(config, 4)
    run(config)
    assert rounds_of(folder) == [0, 1, 2, 3, 4]
    assert bits(folder) == bits(run(small()))
    before = content_of(folder)
    with caplog.at_level("INFO", "flwr"):
        run(config)
    assert "is finished, all its 4 rounds are in run.jsonl: nothing is left to do" in caplog.text
    assert content_of(folder) == before


def test_a_finished_run_goes_on_for_more_rounds(small: MakeConfig) -> None:
    config = small(num_rounds=2, strategy="fedyogi")
    folder = run(config)
    run({**config, "num-rounds": 4, "resume": True})
    assert bits(folder) == bits(run(small(strategy="fedyogi")))
    with pytest.raises(SettingsError, match=r"'num-rounds' is 3, but the run .* has 4 rounds alr"):
        run({**config, "num-rounds": 3, "resume": True})


def test_a_damaged_checkpoint_costs_a_round(small: MakeConfig) -> None:
    config = small()
    folder = stop(config, 3)
    (folder / "checkpoints" / "round-000002.safetensors").write_bytes(b"\0" * 5000)
    run({**config, "resume": True})
    assert bits(folder) == bits(run(small()))
    assert rounds_of(folder) == [0, 1, 2, 3, 4]


def refused(config: dict[str, Any], error: type[Exception]) -> str:
    """Return the sentence with which a resume is refused; nothing may have changed."""
    before = content_of(Path(config["output-dir"]))
    with pytest.raises(error) as caught:
        run({**config, "resume": True})
    assert content_of(Path(config["output-dir"])) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_another(blobs: Path, tmp_path: Path, name: str) -> Path:
    """Return a data folder of four clients in which one shard is of other data."""
    data = tmp_path / f"other-{name}"
    for shard in ("client-0", "client-1", "client-2", "client-3", "test"):
        shutil.copytree(blobs / shard, data / shard)
    shutil.rmtree(data / name)
    write_blobs(data, name, 70, seed=1)
    return data


def of_another_encoder(data: Path, name: str) -> None:
    edit_meta(data / name, lambda meta: meta["encoder"].update(weights_sha256="1" * 64))


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_client_that_comes_back_with_other_tokens_is_left_out_alone(
    small: MakeConfig, blobs: Path, tmp_path: Path, caplog, strategy: str
) -> None:
    config = small(num_rounds=2, fraction_train=1.0, strategy=strategy)
    folder = stop(config, 2)
    data = with_another(blobs, tmp_path, "client-2")
    of_another_encoder(data, "client-2")
    run({**config, "data-dir": str(data), "resume": True})
    reason = "it holds tokens with encoder-sha256"
    assert f"client-2 is left out of this run: {reason}" in caplog.text
    assert read_run(folder)[2]["clients_replied"] == 3
    assert read_run(folder)[2]["clients"].keys() == {"client-0", "client-1", "client-3", "client-2"}


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_client_may_come_back_with_other_images(
    small: MakeConfig, blobs: Path, tmp_path: Path, strategy: str
) -> None:
    config = small(num_rounds=2, fraction_train=1.0, strategy=strategy)
    folder = stop(config, 2)
    data = with_another(blobs, tmp_path, "client-2")
    run({**config, "data-dir": str(data), "resume": True})
    assert read_run(folder)[2]["clients_replied"] == 4


def test_too_few_clients_with_such_tokens(small: MakeConfig, blobs: Path, tmp_path: Path) -> None:
    config = small(num_rounds=2, min_train_nodes=4, fraction_train=1.0)
    stop(config, 2)
    data = with_another(blobs, tmp_path, "client-2")
    of_another_encoder(data, "client-2")
    message = refused({**config, "data-dir": str(data)}, SettingsError)
    assert message.startswith("client-2 is not ready: it holds tokens with encoder-sha256")


def test_other_settings_and_data_are_refused(
    small: MakeConfig, blobs: Path, tmp_path: Path
) -> None:
    config = small(num_rounds=2)
    folder = stop(config, 2)
    assert refused({**config, "learning-rate": 0.02}, SettingsError).startswith(
        "The run in 'output-dir' was begun with other settings (learning-rate was 0.01 and is 0.02)"
    )
    data = with_another(blobs, tmp_path, "test")
    assert refused({**config, "data-dir": str(data)}, SettingsError).startswith(
        "The server's test shard is not the one with which"
    )
    # The same data elsewhere, more patience, and one client less than before are the same run.
    moved = shutil.copytree(blobs, tmp_path / "moved")
    run({**config, "resume": True, "data-dir": str(moved), "round-timeout": 9.0}, 3)
    assert rounds_of(folder) == [0, 1, 2]


def test_a_run_without_checkpoints_is_refused(small: MakeConfig) -> None:
    config = small(keep_checkpoints=0, num_rounds=1)
    run(config)
    assert not (Path(config["output-dir"]) / "checkpoints").exists()
    message = refused({**config, "num-rounds": 2}, RunLogError)
    assert (
        "holds a run of 1 rounds, but no whole checkpoint of this release to go on from" in message
    )


def test_a_log_that_was_changed_is_refused(small: MakeConfig) -> None:
    config = small(num_rounds=2)
    folder = stop(config, 2)
    lines = (folder / RUN_LOG).read_text().splitlines(keepends=True)
    (folder / RUN_LOG).write_text(lines[0])
    assert "is not the log of its checkpoint" in refused(config, RunLogError)
    (folder / RUN_LOG).unlink()
    assert "holds checkpoints of a run whose run.jsonl is gone" in refused(config, RunLogError)


def test_a_run_that_stopped_before_its_first_checkpoint_begins_again(small: MakeConfig) -> None:
    config = small(num_rounds=1)
    folder = Path(config["output-dir"])
    RunLog(folder).append({"round": 0, "accuracy": None})
    run({**config, "resume": True})
    assert rounds_of(folder) == [0, 1]
    assert json.loads((folder / "run.dropped.jsonl").read_text())["round"] == 0
    assert bits(folder) == bits(run(small(num_rounds=1)))


def test_a_second_process_is_refused(small: MakeConfig) -> None:
    config = small(num_rounds=2)
    folder = stop(config, 2)
    with sole_writer(folder):
        assert f"Another process writes to {folder}: end it" in refused(config, RunLogError)
    run({**config, "resume": True})


def test_a_changed_byte_of_the_log_is_refused(blob_config: MakeConfig):
    """The same length, and still JSON: a resumed run would report what never was."""
    config = blob_config(num_rounds=1)
    run_in_process(server_app, client_app, 2, config)
    log = Path(config["output-dir"]) / RUN_LOG
    good = log.read_bytes()
    place = good.index(b'"accuracy": 0.') + len(b'"accuracy": 0.')
    log.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    again = {**config, "num-rounds": 2, "resume": True}
    with pytest.raises(RunLogError, match=r"run.jsonl is not the log of its checkpoint") as caught:
        run_in_process(server_app, client_app, 2, again)
    assert "\n" not in str(caught.value)
    log.write_bytes(good)
    run_in_process(server_app, client_app, 2, again)
