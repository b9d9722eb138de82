"""Opening token shards: views, bytes, and every way the files can be damaged."""

import base64
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from flower_ist.tokens import shard as token_shards
from flower_ist.tokens.shard import ShardError, open_shard
from flower_ist.tokens.writer import ShardWriter, write_text
from tests.fakes.shards import IDS, LABELS, TOKENS, make_meta, replace_array, write_small


@pytest.fixture(params=["float16", "float32", "int8"])
def shard_folder(request, tmp_path):
    return write_small(tmp_path, request.param)


@pytest.fixture
def int8_folder(tmp_path):
    return write_small(tmp_path)


def test_a_folder_comes_back_as_it_was_written(shard_folder):
    shard = open_shard(shard_folder, verify=True)
    tokens, labels = shard.batch(slice(None))
    assert len(shard) == 3
    assert tokens.dtype == np.float32
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 1]
    assert shard.image_ids.tolist() == [7, 5, 2**40]
    # Rows 0 and 2 are exact in every dtype; row 1 is within half a scale (1/127/2) in int8.
    np.testing.assert_array_equal(tokens[[0, 2]][:, [0, 2]], TOKENS[[0, 2]][:, [0, 2]])
    bound = 0.5 if shard.scales is not None else 0.0
    assert np.abs(tokens - TOKENS).max() <= bound


@pytest.mark.parametrize(("dtype", "size"), [("float16", 6), ("float32", 12), ("int8", 3 + 4)])
def test_bytes_of_one_token_count_its_scale(tmp_path, dtype, size):
    with ShardWriter(tmp_path / "shard", make_meta(token_dtype=dtype)) as writer:
        writer.append(TOKENS, LABELS, IDS)
    assert open_shard(tmp_path / "shard").token_bytes_per_example == size


def test_opening_maps_files_instead_of_reading_them(shard_folder):
    shard = open_shard(shard_folder)
    assert all(isinstance(array, np.memmap) for array in shard.arrays().values())


def test_select_is_a_view(shard_folder):
    shard = open_shard(shard_folder)
    view = shard.select(slice(0, None, 2))
    assert len(view) == 2
    assert view.image_ids.tolist() == [7, 2**40]
    assert np.shares_memory(view.tokens, shard.tokens)
    np.testing.assert_array_equal(view.batch(slice(1, 2))[0], shard.batch(slice(2, 3))[0])
    np.testing.assert_array_equal(view.batch(np.array([1, 0]))[1], [1, 0])


@pytest.mark.parametrize("name", ["tokens", "scales", "labels", "image_ids"])
def test_missing_truncated_padded_and_foreign_arrays_are_refused(int8_folder, name):
    file = int8_folder / f"{name}.npy"
    whole = file.read_bytes()
    for size in (0, 5, 40, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=f"{name}.npy is truncated or not a plain .npy file"):
            open_shard(int8_folder)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ShardError, match="has bytes after its array"):
        open_shard(int8_folder)
    np.save(file, np.zeros((3, 4), dtype=np.int16))
    with pytest.raises(ShardError, match=r"holds int16\[3, 4\], but the shard's meta data say"):
        open_shard(int8_folder)
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ShardError, match=r"is truncated or not a plain \.npy file"):
        open_shard(int8_folder)
    file.unlink()
    with pytest.raises(ShardError, match=f"{name}.npy is missing"):
        open_shard(int8_folder)


def test_a_header_of_absurd_size_is_refused(int8_folder):
    file = int8_folder / "labels.npy"
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(
            opened, {"descr": "<i4", "fortran_order": False, "shape": (10**18,)}
        )
    with pytest.raises(ShardError, match=r"is truncated or not a plain \.npy file"):
        open_shard(int8_folder)


@pytest.mark.parametrize("name", ["tokens", "scales", "labels", "image_ids"])
def test_one_changed_bit_is_found_when_verifying(int8_folder, name):
    file = int8_folder / f"{name}.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    open_shard(int8_folder)
    with pytest.raises(ShardError, match=f"array '{name}' does not match its hash"):
        open_shard(int8_folder, verify=True)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("labels", np.array([0, 1, 2], np.int32), "a label is outside 0 to 1"),
        ("labels", np.array([0, -1, 1], np.int32), "a label is outside 0 to 1"),
        ("image_ids", np.array([0, 1, -2]), "'image_ids' holds a negative number"),
        ("scales", np.array([1, -1, 1], np.float32), "'scales' holds a negative number"),
        ("scales", np.array([1, np.inf, 1], np.float32), "'scales' holds a number that is not"),
        ("scales", np.array([np.nan, 1, 1], np.float32), "'scales' holds a number that is not"),
    ],
)
def test_impossible_values_are_found_when_verifying(int8_folder, name, values, message):
    replace_array(int8_folder, name, values)
    with pytest.raises(ShardError, match=message):
        open_shard(int8_folder, verify=True)


def test_tokens_that_are_not_finite_are_found_when_verifying(tmp_path):
    with ShardWriter(tmp_path / "shard", make_meta()) as writer:
        writer.append(TOKENS, LABELS, IDS)
    replace_array(tmp_path / "shard", "tokens", np.full((3, 3), np.inf, np.float16))
    with pytest.raises(ShardError, match="'tokens' holds a number that is not finite"):
        open_shard(tmp_path / "shard", verify=True)


def test_a_missing_shard_is_a_sentence(tmp_path):
    with pytest.raises(ShardError, match="There is no token shard at"):
        open_shard(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="not a complete token shard"):
        open_shard(tmp_path / "empty")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("data"), "lacks its array 'tokens'"),
        (lambda c: c["data"].pop("labels"), "lacks its array 'labels'"),
        (lambda c: c["data"].update(labels=[1]), "lacks its array 'labels'"),
        (lambda c: c["data"].update(labels="*"), "array 'labels' is not base64 text"),
        (lambda c: c["data"].update(labels="\u00e9"), "array 'labels' is not base64 text"),
        (lambda c: c["data"].update(labels="AAAA"), "'labels' has 3 bytes instead of 12"),
        (lambda c: c.update(num_examples=10**18), "has 9 bytes instead of 3000000000000000000"),
        (
            lambda c: c["data"].update(labels=base64.b64encode(bytes(12)).decode()),
            "'labels' does not match its hash",
        ),
    ],
)
def test_edited_text_shards_are_refused(int8_folder, tmp_path, edit, message):
    file = tmp_path / "shard.json"
    write_text(open_shard(int8_folder), file)
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ShardError, match=message):
        open_shard(file)


def test_names_in_a_data_folder(tmp_path):
    assert token_shards.client_folder(tmp_path, 7) == tmp_path / "client-7"
    assert token_shards.test_folder(tmp_path) == tmp_path / "test"


@pytest.mark.parametrize("method", ["is_file", "is_dir"])
def test_a_path_that_cannot_be_looked_at_is_a_sentence(tmp_path, monkeypatch, method):
    """Up to Python 3.13 these raise in a folder that one may not enter."""

    def closed(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, method, closed)
    with pytest.raises(ShardError, match="shard cannot be read: Permission denied"):
        open_shard(tmp_path / "shard")


def test_a_name_that_is_too_long_is_a_sentence(tmp_path):
    with pytest.raises(ShardError, match=r"File name too long|There is no token shard"):
        open_shard(tmp_path / ("x" * 300))
