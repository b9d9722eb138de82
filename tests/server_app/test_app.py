"""The ServerApp: clients and folders it refuses, with one sentence and before any training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from safetensors import safe_open

from client_app.app import app as client_app
from flower_ist.grids.clients import Client, TooFewClientsError
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import RunLogError, read_run
from flower_ist.tokens.meta import encoder_settings
from flower_ist.tokens.shard import ShardError, open_shard
from server_app.admission import rejection_reason
from server_app.app import app as server_app
from server_app.settings import SettingsError
from tests.fakes.shards import edit_meta, replace_array
from tests.fakes.strategies import LossyGrid

MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture
def spoilt(blobs: Path, tmp_path: Path) -> Path:
    """A data folder of four clients and a test shard that a test may spoil."""
    for name in ("client-0", "client-1", "client-2", "client-3", "test"):
        shutil.copytree(blobs / name, tmp_path / "data" / name)
    return tmp_path / "data"


def refusal(config: dict[str, Any], error: type[Exception] = SettingsError) -> str:
    """Return the sentence with which a run of two clients ends before it has begun."""
    with pytest.raises(error) as caught:
        run_in_process(server_app, client_app, 2, config)
    assert not Path(config["output-dir"]).exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def server_context(config: dict[str, Any]) -> Context:
    return Context(1, 1, {}, RecordDict(), config)


class LateGrid(InProcessGrid):
    """An in-process grid whose last node connects after it was asked for nodes twice."""

    asked = 0

    def get_node_ids(self) -> Iterable[int]:
        self.asked += 1
        node_ids = list(super().get_node_ids())
        return node_ids if self.asked > 2 else node_ids[:-1]


def overwrite(file: Path, value: float) -> None:
    """Change a shard's array without changing its size."""
    array = np.load(file)
    array.reshape(-1)[0] = value
    np.save(file, array)


def other_width(folder: Path) -> None:
    count = json.loads((folder / "meta.json").read_text())["num_examples"]
    replace_array(folder, "tokens", np.zeros((count, 5), np.float16))
    edit_meta(folder, lambda meta: meta.update(dim=5))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (other_width, "token-dim 5, but the server's shard has 12"),
        (
            lambda f: edit_meta(f, lambda m: m["encoder"].update(weights_sha256="ab")),
            "encoder-sha256 'ab', but the server's shard has '0000",
        ),
    ],
)
@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_tokens_of_another_kind_are_refused(spoilt, blob_config: MakeConfig, strategy, spoil, text):
    spoil(spoilt / "client-1")
    message = refusal(blob_config(data_dir=str(spoilt), strategy=strategy))
    assert message.startswith(f"client-1 is not ready: it holds tokens with {text}")
    assert message.endswith("encode both with the same encoder and classes.")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"layer": 2}, "layer was 0 and is 2"),
        (
            {"normalisation": "half\x1b[31m", "pool": "mean"},  # hostile: an escape code
            "pool was cls and is mean; normalisation was imagenet and is half [31m",
        ),
    ],
    ids=["layer", "hostile"],
)
def test_tokens_of_another_space_are_refused(spoilt, blob_config: MakeConfig, change, text):
    """The weights, the width and the classes are the same ones."""
    edit_meta(spoilt / "client-1", lambda meta: meta["encoder"].update(change))
    assert refusal(blob_config(data_dir=str(spoilt))) == (
        f"client-1 is not ready: its tokens were not made as the server's ({text}): encode both "
        "alike."
    )


def test_a_client_of_an_older_release_tells_its_weights_alone(blobs: Path):
    shard = open_shard(blobs / "test")
    facts = {"token-dim": 12, "encoder-sha256": "0" * 64}
    assert rejection_reason(Client(1, "client-1", facts), shard) == ""
    reason = rejection_reason(Client(1, "client-1", {**facts, "encoder-settings": 7}), shard)
    assert reason.startswith("it holds tokens with encoder-settings 7, but the server's shard has")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["circle", "star", "square"],
            "the names are the same in another order: label 1 is 'star' for the client and "
            "'square' for the server",
        ),
        (
            ["circle", "ring", "star"],
            "only the client has ['ring']; only the server has ['square']",
        ),
        (
            # Hostile: escape codes, a false line and a name of a million characters.
            ["\x1b[31mcircle", "square\nINFO: all is well", 1_000_000 * "x"],
            "only the client has ['\\x1b[31mcircle', 'square\\nINFO: all is well', "
            f"'{60 * 'x'}'...]; only the server has ['circle', 'square', 'star']",
        ),
    ],
    ids=["order", "names", "hostile"],
)
def test_other_classes_are_refused_with_what_differs(spoilt, blob_config: MakeConfig, names, text):
    edit_meta(spoilt / "client-1", lambda meta: meta.update(class_names=names))
    message = refusal(blob_config(data_dir=str(spoilt)))
    assert message.startswith(f"client-1 is not ready: its classes are not the server's: {text}")
    assert message.endswith(
        "; encode the client's images again with flower-ist prep --classes FILE, where FILE is the "
        "classes.json that prep wrote beside the server's shards."
    )
    assert message.isprintable()
    assert len(message) < 1000


def test_class_names_that_are_no_list_are_refused(blobs: Path):
    client = Client(1, "client-1", {"class-names": "circle\nsquare"})
    reason = rejection_reason(client, open_shard(blobs / "test"))
    assert reason.startswith("it holds tokens with class-names 'circle\\nsquare', but the server's")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: (f / "tokens.npy").write_bytes(b"\x93NUMPY"), "tokens.npy is truncated"),
        (lambda f: (f / "labels.npy").unlink(), "labels.npy is missing"),
        (lambda f: edit_meta(f, lambda m: m.update(version=9)), "has format version 9"),
        (shutil.rmtree, "'data-dir' is '"),
        (shutil.rmtree, "but holds no shard 'client-1': give the folder that prep wrote with"),
        (lambda f: overwrite(f / "tokens.npy", np.nan), "does not match its hash"),
        (lambda f: overwrite(f / "labels.npy", 7), "does not match its hash"),
    ],
)
def test_a_client_with_a_corrupt_shard_is_refused(spoilt, blob_config: MakeConfig, spoil, text):
    spoil(spoilt / "client-1")
    message = refusal(blob_config(data_dir=str(spoilt)))
    assert " is not ready: " in message
    assert "ShardError: " in message
    assert text in message


def test_a_client_that_never_answers_is_left_out(blob_config: MakeConfig, caplog):
    """Silent from the query on: the run starts and goes on without it, for any strategy."""
    for strategy in ("ist", "fedavg"):
        config = blob_config(strategy=strategy, num_rounds=2)
        lossy = LossyGrid(client_app, 4, config)
        silent = list(lossy.get_node_ids())[2]
        lossy.lose = lambda message, silent=silent: message.metadata.dst_node_id == silent
        with caplog.at_level("WARNING", "flwr"):
            server_app(lossy, server_context(config))
        assert f"node-{silent} is left out of this run: it gave no answer in time" in caplog.text
        for line in read_run(Path(config["output-dir"]))[1:]:
            assert (line["clients_selected"], line["clients_replied"]) == (3, 3)
            assert set(line["clients"]) == {"client-0", "client-1", "client-3"}


def test_too_few_clients_that_answer(blob_config: MakeConfig):
    config = blob_config(min_available_nodes=4)
    lossy = LossyGrid(client_app, 4, config)
    silent = list(lossy.get_node_ids())[2]
    lossy.lose = lambda message: message.metadata.dst_node_id == silent
    with pytest.raises(SettingsError, match="4 clients are needed, but only 3 are ready"):
        server_app(lossy, server_context(config))


def test_a_client_of_another_kind_that_comes_later_is_left_out(spoilt, blob_config: MakeConfig):
    """Client 3 connects after the start; its tokens are of another encoder."""
    edit_meta(spoilt / "client-3", lambda m: m["encoder"].update(weights_sha256="ab"))
    config = blob_config(data_dir=str(spoilt), num_rounds=2)
    late = LateGrid(client_app, 4, config)
    server_app(late, server_context(config))
    assert late.asked >= 3
    rounds = read_run(Path(config["output-dir"]))
    assert [line["clients_selected"] for line in rounds[1:]] == [3, 3]


def test_a_corrupt_test_shard_is_refused(spoilt, blob_config: MakeConfig):
    (spoilt / "test" / "labels.npy").unlink()
    assert "labels.npy is missing" in refusal(blob_config(data_dir=str(spoilt)), ShardError)


def test_settings_are_checked_first(blob_config: MakeConfig):
    assert "'strategy' is 'nonsense'" in refusal(blob_config(strategy="nonsense"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"merge_rule": "mode"}, "'merge-rule' is 'mode', but must be"),
        ({"lda_skip": True, "ridge_penalties": "0"}, "'ridge-penalties' is [0.0], but"),
    ],
)
def test_what_a_constructor_refuses_comes_before_any_client_is_asked(
    blob_config: MakeConfig, changes, text
):
    """A third client is not there: to wait for it would be refused later."""
    assert refusal(blob_config(min_available_nodes=3, **changes)).startswith(text)


def test_too_few_clients_are_refused(blob_config: MakeConfig):
    message = refusal(blob_config(min_available_nodes=3), TooFewClientsError)
    assert message.startswith("3 SuperNodes are needed, 2 are connected after 0 s: start more")


def test_a_folder_with_a_run_is_kept(blob_config: MakeConfig):
    config = blob_config(num_rounds=1, local_steps=1)
    run_in_process(server_app, client_app, 2, config)
    before = content_of(Path(config["output-dir"]))
    with pytest.raises(RunLogError, match="holds a run already: choose another output folder"):
        run_in_process(server_app, client_app, 2, config)
    assert content_of(Path(config["output-dir"])) == before


def test_what_a_run_leaves_behind(blobs: Path, blob_config: MakeConfig):
    """12 inputs, two hidden layers of 30, 3 classes."""
    config = blob_config(num_rounds=1, local_steps=1)
    run_in_process(server_app, client_app, 2, config)
    folder = Path(config["output-dir"])
    names = {path.name for path in folder.iterdir()}
    files = {"README.md", "settings.json", "run.jsonl", "model.safetensors", "checkpoints"}
    assert names == files
    assert json.loads((folder / "settings.json").read_text()) == config
    assert read_run(folder)[0]["settings"] == config
    with safe_open(folder / "model.safetensors", framework="numpy") as model:
        about = model.metadata()
        assert model.get_tensor("fc2.weight").shape == (30, 30)
    assert json.loads(about["dims"]) == [12, 30, 30, 3]
    assert json.loads(about["class_names"]) == ["circle", "square", "star"]
    assert (about["encoder"], about["format"]) == ("blobs", "flower-ist-mlp")
    assert about["encoder_settings"] == encoder_settings(open_shard(blobs / "test").meta.encoder)
    assert json.loads(about["settings"]) == config


@pytest.mark.parametrize("strategy", ["ridge", "fedncm", "fedcof"])
def test_wire_dtypes_do_not_concern_who_sends_no_model(
    blob_config: MakeConfig, strategy: str, caplog: pytest.LogCaptureFixture
):
    """The defaults quantize models: a closed form takes them and sends what it always sends."""
    rounds = []
    for dtype in ("float32", "int8"):
        config = blob_config(strategy=strategy, num_rounds=1, wire_dtype=dtype)
        with caplog.at_level("WARNING", "flwr"):
            run_in_process(server_app, client_app, 2, config)
        rounds.append(read_run(Path(config["output-dir"])))
    for plain, small in zip(*rounds, strict=True):
        for key in ("payload_bytes_down", "payload_bytes_up", "accuracy"):
            assert plain[key] == small[key]
    assert "hold no arrays" not in caplog.text
