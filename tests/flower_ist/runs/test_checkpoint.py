"""Checkpoints come back bit for bit, damage is found, and a full disk spoils nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flower_ist.files import NotWrittenError
from flower_ist.runs.checkpoint import Checkpoint, Checkpoints
from flower_ist.tracked import TrackedDict
from tests.fakes.full_disk import files_of_at_most

WEIGHTS = {
    "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.array([1.5, -2.0, np.nan], np.float64),
}
STATE: dict[str, Any] = {
    "m_t": {"z.weight": np.array([[0.1]], np.float32), "a.bias": np.array(3.0)},
    "vectors": [np.zeros(0), np.array([1, 2], np.int64)],
    "seats": ["client-1", "client-0"],
    "penalty": 0.1,
    "done": True,
    "nothing": None,
}


def checkpoint(server_round: int = 1, **changes: Any) -> Checkpoint:
    content = {"weights": WEIGHTS, "strategy": STATE, "log_bytes": 17, "facts": {"seed": 3}}
    return Checkpoint(server_round, **{**content, **changes})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["$array", "$tracked", "$$array", "$", "$a b"])
def test_a_client_may_have_any_name(tmp_path, name):
    """Also one that stands for something else in the file: as in a quarantine of one client."""
    state = {"faults": {name: 1}, "until": {name: {name: [3]}}}
    facts = {"names": TrackedDict({name: 1})}
    Checkpoints(tmp_path).save(checkpoint(strategy=state, facts=facts))
    found = Checkpoints(tmp_path).last()
    assert found is not None
    assert found.strategy == state
    assert found.facts == {"names": {name: 1}}


def test_everything_comes_back_bit_for_bit_and_in_order(tmp_path):
    random.seed(5)
    saved = checkpoint()
    Checkpoints(tmp_path).save(saved)
    found = Checkpoints(tmp_path).last()
    assert found is not None
    assert (found.server_round, found.log_bytes, found.facts) == (1, 17, {"seed": 3})
    assert list(found.weights) == ["z.weight", "a.bias"]
    for name, weight in WEIGHTS.items():
        assert found.weights[name].dtype == weight.dtype
        assert found.weights[name].tobytes() == weight.tobytes()
    state: Any = found.strategy
    assert list(state["m_t"]) == ["z.weight", "a.bias"]
    assert state["m_t"]["z.weight"].tobytes() == STATE["m_t"]["z.weight"].tobytes()
    assert (state["m_t"]["a.bias"].shape, float(state["m_t"]["a.bias"])) == ((), 3.0)
    assert [v.tolist() for v in state["vectors"]] == [[], [1, 2]]
    for key in ("seats", "penalty", "done", "nothing"):
        assert state[key] == STATE[key]
    expected = random.sample(range(1000), 5)
    random.setstate(found.random_state)
    assert random.sample(range(1000), 5) == expected


def test_arrays_in_another_memory_order_are_saved_right(tmp_path):
    turned = {"w": np.asfortranarray(WEIGHTS["z.weight"])}
    Checkpoints(tmp_path).save(checkpoint(weights=turned, strategy={"m": turned["w"].T}))
    found: Any = Checkpoints(tmp_path).last()
    np.testing.assert_array_equal(found.weights["w"], WEIGHTS["z.weight"])
    np.testing.assert_array_equal(found.strategy["m"], WEIGHTS["z.weight"].T)


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [5]), (2, [4, 5]), (3, [3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_the_last_ones_are_kept(tmp_path, keep, left):
    checkpoints = Checkpoints(tmp_path, keep)
    for server_round in range(6):
        checkpoints.save(checkpoint(server_round))
    assert names(tmp_path / "checkpoints") == [f"round-{n:06d}.safetensors" for n in left]


def test_none_are_written_and_none_removed_with_keep_0(tmp_path):
    Checkpoints(tmp_path, 1).save(checkpoint(1))
    Checkpoints(tmp_path, 0).save(checkpoint(2))
    assert names(tmp_path / "checkpoints") == ["round-000001.safetensors"]


def test_a_run_that_went_back_to_an_earlier_round_keeps_its_own(tmp_path):
    """Round 3 was damaged, so the run went on from 2: saving 3 again must not remove 2."""
    checkpoints = Checkpoints(tmp_path, 2)
    for server_round in (2, 3, 4, 3):
        checkpoints.save(checkpoint(server_round))
    assert names(tmp_path / "checkpoints")[0] == "round-000003.safetensors"
    assert checkpoints.files()[-1].name == "round-000004.safetensors"


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_the_text(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'\\"log_bytes\\": 17', b'\\"log_bytes\\": 18'))


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        flip_last_byte,
        change_the_text,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\0" * file.stat().st_size),
        lambda file: save_file({"w": np.zeros(2)}, file),
        lambda file: save_file({"w": np.zeros(2)}, file, {"format": "flower-ist-checkpoint-9"}),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, spoil, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    checkpoints.save(checkpoint(2))
    before = checkpoints.files()[1].read_bytes()
    spoil(checkpoints.files()[1])
    assert checkpoints.files()[1].read_bytes() != before
    found = checkpoints.last()
    assert found is not None
    assert found.server_round == 1
    assert "round-000002.safetensors is damaged and passed over" in caplog.text


def test_there_may_be_none(tmp_path):
    assert Checkpoints(tmp_path).last() is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".round-000001.safetensors.tmp").write_bytes(b"half")
    assert Checkpoints(tmp_path).last() is None


@pytest.mark.parametrize("limit", [0, 1, 4096])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, limit):
    """The operating system itself writes ``limit`` bytes and refuses the rest."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    before = checkpoints.files()[0].read_bytes()
    with files_of_at_most(limit), pytest.raises(NotWrittenError) as caught:
        checkpoints.save(checkpoint(2))
    assert names(tmp_path / "checkpoints") == ["round-000001.safetensors"]
    assert checkpoints.files()[0].read_bytes() == before
    message = str(caught.value)
    assert message.endswith(
        "round-000002.safetensors cannot be written (File too large): make room, then resume or "
        "start again."
    )


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(NotWrittenError, match=r"cannot be written .*: check the folder, then"):
        Checkpoints(tmp_path).save(checkpoint())
