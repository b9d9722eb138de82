"""A sealed file gives back what was written or an error, whichever of its bits flips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from flower_ist.runs.sealed import SealError, UnreadableError, sealed, unsealed

CONTENT = {"names": ["client-0", "Klinik Süd"], "round": 3, "third": 1 / 3, "none": None}
ARRAYS = {"b": np.arange(6.0).reshape(2, 3), "a": np.array([-1, 2**40]), "empty": np.empty((0, 4))}
BYTES = sealed("run", CONTENT, ARRAYS)


def same(arrays):
    return arrays.keys() == ARRAYS.keys() and all(
        np.array_equal(arrays[name], ARRAYS[name]) and arrays[name].dtype == ARRAYS[name].dtype
        for name in ARRAYS
    )


def test_what_is_sealed_comes_back(tmp_path: Path):
    (tmp_path / "f").write_bytes(BYTES)
    content, arrays = unsealed(tmp_path / "f", "run")
    assert content == CONTENT
    assert same(arrays)


def test_the_same_content_is_the_same_bytes():
    fortran = {**ARRAYS, "b": np.asfortranarray(ARRAYS["b"])}
    assert sealed("run", CONTENT, fortran) == BYTES


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(BYTES) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_is_read_as_if_nothing_were(tmp_path: Path, place: int, bit: int):
    """A blank in the header may become another blank: then all that is read is as it was."""
    changed = bytearray(BYTES)
    changed[place] ^= 1 << bit
    file = tmp_path / "f"
    file.write_bytes(changed)
    try:
        content, arrays = unsealed(file, "run")
    except UnreadableError:
        return
    assert content == CONTENT
    assert same(arrays)


@pytest.mark.parametrize("header", [None, {}, {"other": "1"}, {"run": "4"}, {"run": "{}"}])
def test_a_file_without_a_seal(tmp_path: Path, header):
    save_file({"a": np.zeros(2)}, tmp_path / "f", header)
    with pytest.raises(SealError):
        unsealed(tmp_path / "f", "run")


def test_a_tensor_more_or_less_is_noticed(tmp_path: Path):
    (tmp_path / "f").write_bytes(BYTES)
    with safe_open(tmp_path / "f", framework="numpy") as opened:
        header = opened.metadata()
    tensors = load_file(tmp_path / "f")
    for others in ({**tensors, "c": np.zeros(1)}, {"a": tensors["a"]}):
        save_file(others, tmp_path / "g", header)
        with pytest.raises(SealError, match="does not match its hash"):
            unsealed(tmp_path / "g", "run")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UnreadableError):
        unsealed(tmp_path / "f", "run")
