"""What a run begins with: whole runs with standardization, replay and the ridge head on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file, save_file

from client_app.app import app as client_app
from flower_ist.classifier.predictor import load_classifier
from flower_ist.classifier.skip import LinearSkip
from flower_ist.grids import clients
from flower_ist.grids.clients import ClientRegistry
from flower_ist.grids.inprocess import InProcessGrid
from flower_ist.runs.log import read_run
from flower_ist.statistics.prior import TokenPrior
from flower_ist.statistics.sums import Statistics, full_gram
from flower_ist.strategies.replies import TrainingFailedError
from flower_ist.tokens.shard import open_shard
from server_app.app import app as server_app
from server_app.settings import Settings, SettingsError
from server_app.statistics_file import STATISTICS_FILE
from server_app.strategies import CLOSED_FORM, STRATEGIES
from server_app.warm_start import WarmStart, closed_form_for
from tests.fakes.apps import run_app
from tests.fakes.shards import replace_array, write_blobs

MakeConfig = Callable[..., dict[str, Any]]

# At most, as they are compressed: 12 + 12 + 3 + 2 numbers of 4 bytes, 48 class means and deviations
# of 2, and 12 x 12 numbers of 1; of the ridge head 36 weights of 2 bytes and 3 biases of 4.
PRIOR_BYTES = 29 * 4 + (36 + 12) * 2 + 144 + 36 * 2 + 3 * 4 + 1
# 3 counts of 8 bytes, 36 class means of 2, 24 means and spreads of 4, and 12 x 13 / 2 numbers of 2.
STATISTICS_BYTES = 3 * 8 + 36 * 2 + 24 * 4 + 78 * 2 + 1
SKEWED = ((0.96, 0.02, 0.02), (0.02, 0.96, 0.02), (0.02, 0.02, 0.96), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of four clients that each have one class mostly, one of them only one."""
    folder = tmp_path_factory.mktemp("skewed")
    for client, shares in enumerate(SKEWED):
        write_blobs(folder, f"client-{client}", 80, seed=client, shares=shares)
    write_blobs(folder, "test", 300, seed=1000)
    return folder


@pytest.fixture
def small(warm_config: MakeConfig, skewed: Path) -> MakeConfig:
    options = {"data_dir": str(skewed)}
    return lambda **changes: warm_config(**{**options, **changes})


def serve(grid: InProcessGrid, config: dict[str, Any]) -> Path:
    server_app(grid, Context(1, 1, {}, RecordDict(), config))
    return Path(config["output-dir"])


def settings(config: dict[str, Any]) -> Settings:
    return Settings.from_run_config(config)


class FaultyGrid(InProcessGrid):
    """A grid that stops the server, or lets a client lose its state, before a round is trained."""

    stop_in = 0
    forgets: tuple[int, int] = (0, 0)  # round, partition

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        messages = list(messages)
        for message in messages:
            server_round = message.content.config_records.get("config", {}).get("server-round")
            if server_round and server_round == self.stop_in:
                raise ConnectionError("the power is gone")
            partition = list(self._contexts).index(message.metadata.dst_node_id)
            if (server_round, partition) == self.forgets:
                self._contexts[message.metadata.dst_node_id].state = RecordDict()
        return super().send_and_receive(messages, timeout=timeout)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {n: w.tobytes() for n, w in load_file(folder / "model.safetensors").items()}


def logged(folder: Path, field: str) -> list[Any]:
    return [line[field] for line in read_run(folder)]


def prior_bytes(lines: list[dict[str, Any]]) -> int:
    """Return what client 0 got more of in round 1 than in round 2: the prior."""
    first, second = (line["clients"]["client-0"]["payload_bytes_down"] for line in lines[1:3])
    assert PRIOR_BYTES / 2 < first - second <= PRIOR_BYTES
    return int(first - second)


def test_statistics_are_asked_once_and_the_prior_is_sent_once(small: MakeConfig):
    """Every client gets the same model bytes in each round, and the prior's only in the first."""
    lines = read_run(run_app(small()))
    assert 0 < lines[0]["message_types"]["train"]["payload_bytes_up"] <= 4 * STATISTICS_BYTES
    assert lines[0]["message_types"]["train"]["payload_bytes_down"] == 0
    assert lines[0]["examples"] == 4 * 80
    first, *later = (line["payload_bytes_down"] for line in lines[1:])
    prior = prior_bytes(lines)
    assert later == [first - 4 * prior] * 2
    for client in lines[1]["clients"]:
        down = [line["clients"][client]["payload_bytes_down"] for line in lines[1:]]
        assert [down[0] - down[1], down[1] - down[2]] == [prior, 0]
    assert [line["clients_failed"] for line in lines] == [0, 0, 0, 0]


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_client_that_lost_its_state_misses_a_round_and_gets_the_prior_again(
    small: MakeConfig, strategy: str
):
    config = small(strategy=strategy, num_rounds=4)
    grid = FaultyGrid(client_app, 4, config)
    grid.forgets = (2, 1)
    lines = read_run(serve(grid, config))
    assert [line["clients_failed"] for line in lines] == [0, 0, 1, 0, 0]
    failures = lines[2]["failures"]
    assert failures.keys() == {"client-1"}
    assert "PriorError: This client does not hold the token prior" in failures["client-1"]
    down = [line["clients"]["client-1"]["payload_bytes_down"] for line in lines[1:]]
    assert (down[1], down[2]) == (down[3], down[3] + prior_bytes(lines))
    others = [line["clients"]["client-2"]["payload_bytes_down"] for line in lines[2:]]
    assert len(set(others)) == 1


@pytest.mark.parametrize(
    ("stopped", "options"),
    [
        (1, {}),
        (2, {}),
        (2, {"strategy": "fedadam"}),
        (2, {"wire_dtype": "float16:int8"}),
        (2, {"wire_dtype": "compact"}),
        (1, {"wire_dtype": "compact", "strategy": "fedavg"}),
        (1, {"ridge_penalties": "0.1,10,1000", "validation_share": 0.3}),
        (2, {"replay": False, "standardize": False}),
    ],
)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(small: MakeConfig, stopped: int, options):
    expected = run_app(small(**options, num_rounds=2))
    config = small(**options, num_rounds=2)
    grid = FaultyGrid(client_app, 4, config)
    grid.stop_in = stopped
    with pytest.raises(ConnectionError):
        serve(grid, config)
    kept = (Path(config["output-dir"]) / STATISTICS_FILE).read_bytes()
    found = run_app({**config, "resume": True})
    assert weights_of(found) == weights_of(expected)
    assert (found / STATISTICS_FILE).read_bytes() == kept
    assert logged(found, "accuracy") == logged(expected, "accuracy")
    assert logged(found, "loss") == logged(expected, "loss")


def test_a_run_that_goes_on_asks_for_no_statistics_and_hands_out_the_prior_again(small: MakeConfig):
    folder = run_app({**(config := small(num_rounds=2))})
    before, prior = logged(folder, "payload_bytes_down"), prior_bytes(read_run(folder))
    run_app({**config, "num-rounds": 4, "resume": True})
    lines = read_run(folder)
    assert [line["message_types"]["train"]["messages_up"] for line in lines] == [4] * 5
    assert lines[3]["payload_bytes_down"] == before[2] + 4 * prior
    assert lines[4]["payload_bytes_down"] == before[2]


def test_damaged_statistics_are_refused_when_a_run_goes_on(small: MakeConfig):
    config = small(num_rounds=1)
    file = run_app(config) / STATISTICS_FILE
    again = {**config, "num-rounds": 2, "resume": True}
    good, tensors = file.read_bytes(), load_file(file)
    clients = {"clients": json.dumps([f"client-{k}" for k in range(4)])}

    def refusal() -> str:
        with pytest.raises(SettingsError) as caught:
            run_app(again)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for changed, metadata in (
        ({**tensors, "sums": tensors["sums"][:, :5].copy()}, clients),
        ({"counts": tensors["counts"]}, clients),
        ({name: tensors[name] for name in ("counts", "sums", "gram")}, clients),
        (tensors, {}),
        (tensors, {"clients": "4"}),
    ):
        save_file(changed, file, metadata)
        assert "does not hold the statistics that this run began with: begin another" in refusal()
    save_file(tensors, file, {"clients": "[client-0"})
    assert "cannot be read" in refusal()
    for place in range(len(good) - 1, 100, -len(good) // 9):
        file.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        assert str(file) in refusal()
    file.write_bytes(b"\0" * 100)
    assert f"{file}, the statistics that this run began with, cannot be read" in refusal()
    file.unlink()
    assert "cannot be read" in refusal()
    save_file(tensors, file, clients)
    assert load_file(file).keys() == {"counts", "sums", "gram", "mean", "spread"}
    file.write_bytes(good)
    run_app(again)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lda_skip": False},
        {"standardize": False},
        {"replay": False},
        {"wire_dtype": "int8"},
        *(
            {"strategy": name}
            for name in (
                "fedavg",
                "fedprox",
                "fedavg-features",
                "ist-fixed",
                "ridge",
                "ridge-features",
                "lda",
            )
        ),
        {"strategy": "fedavg", "hidden_layers": 0},
        {"strategy": "fedavg-narrow", "num_slices": 4},
        {"hidden_layers": 2, "num_slices": 4},
        {"hidden_layers": 2, "cut": "all"},
    ],
)
def test_the_model_file_predicts_what_the_last_round_s_log_says(small: MakeConfig, options):
    config = small(num_rounds=2, **options)
    folder = run_app(config)
    classifier, shard = load_classifier(folder), open_shard(Path(config["data-dir"]) / "test")
    probabilities = classifier.probabilities(shard.tokens)
    right = probabilities.argmax(axis=1) == shard.labels
    assert right.sum() / len(shard) == logged(folder, "accuracy")[-1]
    of_label = probabilities[np.arange(len(shard)), shard.labels]
    assert -np.log(of_label).mean() == pytest.approx(logged(folder, "loss")[-1], rel=1e-5)
    has_head = config["lda-skip"] and config["strategy"] not in CLOSED_FORM
    assert ("skip.weight" in load_file(folder / "model.safetensors")) == has_head


def test_the_statistics_are_those_of_all_clients_tokens(small: MakeConfig, skewed: Path):
    folder = run_app(small(num_rounds=1))
    found = Statistics.from_tensors(load_file(folder / STATISTICS_FILE))
    expected = Statistics.empty(3, 12, gram=True)
    for client in range(4):
        expected.add_tokens(*open_shard(skewed / f"client-{client}").batch(slice(None)))
    np.testing.assert_array_equal(found.counts, expected.counts)
    # See flower_ist/statistics/codec.py. A class mean is off by a 512th of a deviation, at most the
    # root of the mean square, and a product of sums by two of them.
    size = np.sqrt(np.diagonal(full_gram(expected)))
    assert (np.abs(found.sums - expected.sums) <= 1.01 * 320**0.5 * size / 512).all()
    bound = (2.2 * 12**0.5 + 2) / 512 * np.outer(size, size)
    assert (np.abs(full_gram(found) - full_gram(expected)) <= bound).all()


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_replay_helps_where_every_client_has_one_class_mostly(small: MakeConfig, strategy: str):
    """Without it each client's net forgets the other classes, and so does their mean."""
    options = {"strategy": strategy, "num_rounds": 2, "local_steps": 20, "batch_size": 16}
    options |= {"hidden_width": 24, "standardize": False, "lda_skip": False}
    off, on = (run_app(small(**options, replay=replay)) for replay in (False, True))
    assert logged(on, "accuracy")[-1] > logged(off, "accuracy")[-1] + 0.1


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_replay_changes_nothing_where_all_clients_have_the_same_shares(
    blob_config: MakeConfig, tmp_path: Path, strategy: str
):
    for client in range(2):
        write_blobs(tmp_path / "same", f"client-{client}", 50, seed=4, shares=(0.5, 0.5, 0.0))
    write_blobs(tmp_path / "same", "test", 40, seed=5)
    options = {"data_dir": str(tmp_path / "same"), "strategy": strategy, "num_rounds": 2}
    off, on = (run_app(blob_config(**options, replay=replay), 2) for replay in (False, True))
    assert weights_of(off) == weights_of(on)


def test_fewer_tokens_than_dimensions_and_one_that_never_varies(
    blob_config: MakeConfig, tmp_path: Path
):
    """Seven tokens of 12 numbers in all, every fifth number always 3."""
    for client, count in enumerate([1, 6]):
        path = write_blobs(tmp_path / "few", f"client-{client}", count, seed=client)
        tokens = np.load(path / "tokens.npy")
        tokens[:, 4] = 3
        replace_array(path, "tokens", tokens)
    write_blobs(tmp_path / "few", "test", 60, seed=9)
    options = {"standardize": True, "replay": True, "lda_skip": True}
    folder = run_app(blob_config(**options, data_dir=str(tmp_path / "few")), 2)
    assert max(logged(folder, "loss")) < 2
    assert logged(folder, "clients_failed") == [0] * 4


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_class_that_nobody_has_is_no_trouble(
    blob_config: MakeConfig, tmp_path: Path, batch_size: int
):
    for client, shares in enumerate([(1.0, 0.0, 0.0), (0.2, 0.8, 0.0)]):
        write_blobs(tmp_path / "two", f"client-{client}", 40, seed=client, shares=shares)
    write_blobs(tmp_path / "two", "test", 60, seed=9, shares=(0.5, 0.5, 0.0))
    options = {"standardize": True, "replay": True, "lda_skip": True, "batch_size": batch_size}
    folder = run_app(blob_config(**options, data_dir=str(tmp_path / "two")), 2)
    assert all(np.isfinite(logged(folder, "loss")))
    # One example a step leaves no room for a virtual one.
    assert logged(folder, "accuracy")[-1] > (0.5 if batch_size == 1 else 0.85)
    tokens, _ = open_shard(tmp_path / "two" / "test").batch()
    classifier = load_classifier(folder)
    star = classifier.class_names.index("star")
    assert star not in classifier.probabilities(tokens).argmax(axis=1)


class LyingGrid(InProcessGrid):
    """A grid whose second client counts one example more than it has in its statistics."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        liar = list(self._contexts)[1]
        for reply in replies:
            metrics = reply.content.metric_records.get("metrics")
            if reply.metadata.src_node_id == liar and metrics and "local-steps" not in metrics:
                lie = MetricRecord({**metrics, "num-examples": 81})
                reply.content = RecordDict({**reply.content, "metrics": lie})
        return replies


def test_statistics_that_were_refused_are_in_the_log(small: MakeConfig):
    """Each client has 80 examples and said so at first."""
    config = small()
    folder = serve(LyingGrid(client_app, 4, config), config)
    first, *later = read_run(folder)
    assert [first[f"clients_{what}"] for what in ("selected", "replied", "failed")] == [4, 3, 1]
    assert first["failures"] == {"client-1": "'num-examples' is 81, not between 1 and 80"}
    assert [line["clients_failed"] for line in later] == [0, 0, 0]
    assert load_file(folder / STATISTICS_FILE)["counts"].sum() == 3 * 80
    # It has answered, so it is not asked again.
    assert "query.statistics" not in {t for line in later for t in line["message_types"]}


@pytest.mark.parametrize(("strategy", "server_round"), [("ist", 0), ("fedavg", 0), ("ridge", 1)])
def test_statistics_of_too_many_examples_are_refused(
    small: MakeConfig, strategy: str, server_round: int, monkeypatch
):
    sentence = rf"^Round {server_round}: 0 of 4 replies.*'num-examples' is 80, not between 1 and 79"
    monkeypatch.setattr(clients, "MAX_EXAMPLES", 79)
    with pytest.raises(TrainingFailedError, match=sentence):
        run_app(small(strategy=strategy))
    monkeypatch.setattr(clients, "MAX_EXAMPLES", 80)
    run_app(small(strategy=strategy, num_rounds=1))


def test_a_private_device_gives_no_statistics_and_trains_all_the_same(
    small: MakeConfig, skewed: Path
):
    nodes: list[Any] = [{"data-path": str(skewed / f"client-{k}")} for k in range(4)]
    nodes[3] |= {"privacy-clip": 1.0, "privacy-noise": 0.01}
    config = small()
    lines = read_run(serve(FaultyGrid(client_app, 4, config, nodes), config))
    assert [line["clients_failed"] for line in lines] == [1, 0, 0, 0]
    failure = lines[0]["failures"]["client-3"]
    assert "PrivacyError: This client's data are private" in failure
    assert failure.endswith("set 'standardize', 'replay' and 'lda-skip' to false")
    total = load_file(Path(config["output-dir"]) / STATISTICS_FILE)["counts"].sum()
    assert total == 3 * 80


def test_too_few_answers_end_the_run_before_it_has_begun(small: MakeConfig, skewed: Path):
    nodes: list[Any] = [
        {"data-path": str(skewed / f"client-{k}"), "privacy-clip": 1.0, "privacy-noise": 1.0}
        for k in range(2)
    ]
    config = small()
    with pytest.raises(TrainingFailedError, match=r"Round 0: 0 of 2 replies were good.*PrivacyErr"):
        serve(FaultyGrid(client_app, 2, config, nodes), config)
    assert not Path(config["output-dir"]).exists()


@pytest.mark.parametrize(
    "part", [{"standardize": True}, {"replay": True}, {"lda_skip": True}, {"privacy_clip": 0.0}]
)
def test_the_run_s_own_privacy_and_a_warm_start_exclude_each_other(blob_config: MakeConfig, part):
    config = blob_config(**{"privacy_clip": 1.0, "privacy_noise": 1.0, "strategy": "ist", **part})
    if "privacy_clip" in part:
        config["privacy-clip"], config["privacy-noise"] = 1.0, 1.0
        settings(config)
        return
    with pytest.raises(SettingsError, match=r"'privacy-clip' is 1.0, but the statistics that") as e:
        run_app(config)
    assert "\n" not in str(e.value)
    assert not Path(config["output-dir"]).exists()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_of_several_penalties_a_sensible_one_is_taken(small: MakeConfig, share: float):
    """By cross-validation of the sums, or on validation data; 1e9 leaves a head of nearly zeros."""
    options = {"num_rounds": 1, "local_steps": 1, "validation_share": share}
    several, good = (
        load_file(run_app(small(**options, ridge_penalties=text)) / "model.safetensors")
        for text in ("1e9,1", "1")
    )
    np.testing.assert_array_equal(several["skip.weight"], good["skip.weight"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_wants_a_warm_start(blob_config: MakeConfig, strategy: str):
    """Closed-form strategies ask for their own statistics."""
    asks = strategy not in CLOSED_FORM
    options = {"strategy": strategy, "num_slices": 2 if strategy == "fedavg-narrow" else 0}
    assert closed_form_for(settings(blob_config(**options)), ClientRegistry(), None) is None
    for part in ({"standardize": True}, {"replay": True}, {"lda_skip": True}):
        asking = closed_form_for(settings(blob_config(**options, **part)), ClientRegistry(), None)
        assert (asking is not None) == asks


def test_without_a_warm_start_nothing_is_asked_or_written(blob_config: MakeConfig):
    folder = run_app(blob_config(num_rounds=1), 2)
    assert not (folder / STATISTICS_FILE).exists()
    assert "train" not in read_run(folder)[0]["message_types"]
    weights = {"fc1.weight": np.ones((2, 2)), "fc1.bias": np.ones(2)}
    assert WarmStart().model(weights) == weights


def test_what_is_trained_is_folded_into_what_predicts():
    """W = (6, 4), b = 1, mean (3, 1), spread (2, 4): W / spread = (3, 1), b' = 1 - 9 - 1 = -9."""
    weights = {"fc1.weight": np.array([[6, 4]], np.float32), "fc1.bias": np.ones(1, np.float32)}
    head = LinearSkip(np.ones((1, 2), np.float32), np.zeros(1, np.float32))
    prior = TokenPrior(np.array([3, 1], np.float32), np.array([2, 4], np.float32))
    start = WarmStart(prior, head)
    net = start.net(weights)
    assert {name: array.tolist() for name, array in net.items()} == {
        "fc1.weight": [[3, 1]],
        "fc1.bias": [-9],
    }
    model = start.model(net)
    assert model.keys() == {"fc1.weight", "fc1.bias", "skip.weight", "skip.bias"}
    assert model["skip.weight"] is head.weight
    assert model["fc1.bias"] is net["fc1.bias"]
    assert net.keys() == weights.keys()
    assert weights["fc1.bias"] == 1
