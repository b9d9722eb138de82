"""Any bytes as one of a shard's files: a ShardError or an opened shard, and little memory.
Minutes of the same outside CI: benchmarks/fuzz_shards.py.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flower_ist.tokens.shard import ShardError, open_shard
from flower_ist.tokens.writer import write_text
from tests.fakes.shards import write_small

# The files have a few kB.
_MOST_BYTES = 5_000_000
FILES = ("shard.json", "meta.json", "tokens.npy", "labels.npy", "scales.npy")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_small(tmp_path_factory.mktemp("good"))
    write_text(open_shard(folder), folder / "shard.json")
    return folder


@pytest.fixture(scope="module")
def damaged(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(good, tmp_path_factory.mktemp("damaged") / "shard"))


def read(good: Path, damaged: Path, name: str, content: bytes) -> None:
    """Put content in the place of a file, open the shard, and put the good file back."""
    (damaged / name).write_bytes(content)
    tracemalloc.start()
    try:
        shard = open_shard(damaged / name if name == "shard.json" else damaged, verify=True)
        shard.batch(slice(None))
    except ShardError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        shutil.copy(good / name, damaged / name)
    assert peak < _MOST_BYTES


_OPTIONS = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_OPTIONS
@given(data=st.data(), name=st.sampled_from(FILES))
def test_a_file_with_some_bytes_changed(good, damaged, data, name):
    content = bytearray((good / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 20, len(content))))
        content[start:end] = data.draw(st.binary(max_size=20))
    read(good, damaged, name, bytes(content))


@_OPTIONS
@given(content=st.binary(max_size=200), name=st.sampled_from(FILES))
def test_a_file_of_any_bytes(good, damaged, content, name):
    prefix = b"\x93NUMPY\x01\x00" if name.endswith(".npy") else b""
    read(good, damaged, name, prefix + content)


@_OPTIONS
@given(data=st.data(), name=st.sampled_from(FILES[:2]), value=values)
def test_meta_data_with_an_entry_changed(good, damaged, data, name, value):
    content = json.loads((good / name).read_text())
    owner = data.draw(st.sampled_from([content, content["mask"], content["encoder"]]))
    owner[data.draw(st.sampled_from(sorted(owner)))] = value
    read(good, damaged, name, json.dumps(content).encode())


def test_a_header_that_numpys_parser_gives_up_on(good, damaged):
    """Found by atheris: the tokenizer's own error came through."""
    content = (good / "tokens.npy").read_bytes()
    header = content[10:128].replace(b"}", b"(")
    (damaged / "tokens.npy").write_bytes(content[:10] + header + content[128:])
    with pytest.raises(ShardError, match=r"tokens\.npy is truncated or not a plain \.npy file"):
        open_shard(damaged)
    shutil.copy(good / "tokens.npy", damaged / "tokens.npy")
