"""Writing token shards: round trips, quantization, and data that do not fit."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.files import NotWrittenError
from flower_ist.tokens.shard import ShardError, open_shard
from flower_ist.tokens.writer import ShardWriter, quantize_rows, stored_rows, write_text
from tests.fakes.full_disk import files_of_at_most
from tests.fakes.shards import IDS, LABELS, TOKENS, make_meta, write_small


@pytest.fixture(params=["float16", "float32", "int8"])
def shard_folder(request, tmp_path):
    return write_small(tmp_path, request.param)


def test_the_text_form_holds_the_same_and_is_reproducible(shard_folder, tmp_path):
    shard = open_shard(shard_folder)
    for name in ("a.json", "b.json"):
        write_text(shard, tmp_path / name)
    again = open_shard(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert again.meta == shard.meta
    for name, array in shard.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_a_view_is_not_written_under_the_meta_data_of_the_whole(shard_folder, tmp_path):
    with pytest.raises(ShardError, match="write a whole shard, not a view"):
        write_text(open_shard(shard_folder).select(slice(2)), tmp_path / "view.json")


def test_quantization_by_hand():
    """Row maxima 127 and 1 give scales 1 and 1/127; 0.25 * 127 = 31.75 rounds to 32."""
    quantized, scales = quantize_rows(TOKENS)
    assert quantized.tolist() == [[127, -64, 0], [64, 32, -127], [0, 0, 0]]
    np.testing.assert_allclose(scales, [1, 1 / 127, 0], rtol=1e-7)


finite_rows = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(finite_rows)
def test_quantization_error_is_at_most_half_a_scale(tokens):
    quantized, scales = quantize_rows(tokens)
    assert quantized.min() >= -127
    assert (scales >= 0).all()
    # A row too small for a float32 scale becomes zeros: 127 smallest normal numbers at most.
    bound = np.where(scales > 0, scales.astype(np.float64) / 2, 127 * np.finfo(np.float32).tiny)
    error = np.abs(quantized * scales.astype(np.float64)[:, None] - tokens)
    assert (error <= bound[:, None] * (1 + 1e-5)).all()


@settings(max_examples=25)
@given(tokens=finite_rows, dtype=st.sampled_from(["float16", "float32", "int8"]), data=st.data())
def test_round_trip_of_any_rows(tmp_path_factory, tokens, dtype, data):
    if dtype == "float16":
        tokens = np.clip(tokens, -60000, 60000)
    count = len(tokens)
    labels = data.draw(hnp.arrays(np.int64, count, elements=st.integers(0, 1)))
    ids = data.draw(hnp.arrays(np.int64, count, elements=st.integers(0, 2**63 - 1)))
    folder = tmp_path_factory.mktemp("round") / "shard"
    meta = make_meta(num_examples=count, dim=tokens.shape[1], token_dtype=dtype)
    with ShardWriter(folder, meta) as writer:
        for row in range(count):
            part = slice(row, row + 1)
            writer.append(tokens[part], labels[part], ids[part])
    write_text(open_shard(folder), folder / "shard.json")
    for path in (folder, folder / "shard.json"):
        shard = open_shard(path, verify=True)
        if dtype != "int8":
            np.testing.assert_array_equal(shard.tokens, tokens.astype(dtype))
        np.testing.assert_array_equal(shard.labels, labels)
        np.testing.assert_array_equal(shard.image_ids, ids)


@pytest.mark.parametrize(
    ("tokens", "labels", "ids", "message"),
    [
        (TOKENS * np.nan, LABELS, IDS, "A token in rows 0 to 2 is not a finite number"),
        (TOKENS, LABELS + 1, IDS, "A label in rows 0 to 2 is outside 0 to 1"),
        (TOKENS, LABELS - 1, IDS, "A label in rows 0 to 2 is outside 0 to 1"),
        (TOKENS, LABELS, IDS - 6, "An image id in rows 0 to 2 is negative"),
        (TOKENS[:, :2], LABELS, IDS, r"shape \(3, 2\) do not fit after row 0 of a shard of 3 x 3"),
        (TOKENS.repeat(2, 0), LABELS.repeat(2), IDS.repeat(2), "do not fit after row 0"),
        (TOKENS, LABELS, IDS[:1], "must both have one entry a row"),
        (TOKENS * 1e4, LABELS, IDS, "too large for float16: store this shard as float32"),
        (TOKENS[:2], LABELS[:2], IDS[:2], "2 of 3 examples were written"),
    ],
)
def test_data_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, tokens, labels, ids, message):
    with (
        pytest.raises(ShardError, match=message),
        ShardWriter(tmp_path / "shard", make_meta()) as writer,
    ):
        writer.append(tokens, labels, ids)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_in_the_block_removes_what_was_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "shard", make_meta()):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(shard_folder):
    with pytest.raises(NotWrittenError, match="exists already"):
        ShardWriter(shard_folder, make_meta())
    assert len(open_shard(shard_folder, verify=True)) == 3


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWrittenError, match="cannot be written"):
        ShardWriter(tmp_path / "file" / "shard", make_meta())


def test_a_shard_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ShardError, match=r"needs \d+ bytes, but its disk has \d+ bytes free"):
        ShardWriter(tmp_path / "shard", make_meta(num_examples=10**18))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token_dtype", ["float16", "float32", "int8"])
def test_rows_rounded_one_by_one_make_the_same_shard(tmp_path, token_dtype):
    whole = write_small(tmp_path, token_dtype)
    meta = make_meta(token_dtype=token_dtype)
    with ShardWriter(tmp_path / "rows", meta) as writer:
        for row in range(3):
            part = slice(row, row + 1)
            rows = stored_rows(TOKENS[part], token_dtype)
            writer.append_stored(rows, LABELS[part], IDS[part])
    for file in whole.iterdir():
        assert file.read_bytes() == (tmp_path / "rows" / file.name).read_bytes()


def test_files_are_what_numpy_itself_writes(shard_folder, tmp_path):
    for file in shard_folder.glob("*.npy"):
        np.save(tmp_path / file.name, np.load(file))
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_an_unfinished_shard_lies_where_it_is_told_to(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with ShardWriter(tmp_path / "out" / "shard", make_meta(), scratch=scratch) as writer:
        assert len(list(scratch.iterdir())) == 1
        writer.append(TOKENS, LABELS, IDS)
    assert list(scratch.iterdir()) == []
    assert len(open_shard(tmp_path / "out" / "shard", verify=True)) == 3


def test_a_shard_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Every file whole, then the folder's names, the name, and the name's folder."""
    steps = []
    fsync, rename = os.fsync, os.rename

    def recorded(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append((path.name if path.is_file() else "folder", os.fstat(descriptor).st_size))
        if path.is_dir():
            steps[-1] = ("names", path == tmp_path)
        fsync(descriptor)

    def renamed(source, target):
        steps.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "rename", renamed)
    folder = write_small(tmp_path)
    sizes = {(file.name, file.stat().st_size) for file in folder.iterdir()}
    assert set(steps[:-3]) == sizes
    assert steps[-3:] == [("names", False), ("rename", "shard"), ("names", True)]


@pytest.mark.parametrize("count", [3, 30_000])
def test_a_disk_that_fills_up_in_the_middle_is_a_sentence_and_leaves_nothing(tmp_path, count):
    """Many rows are refused when they are written, few when their file is closed."""
    rows = np.arange(count) % 3
    expected = pytest.raises(NotWrittenError, match=r"shard cannot be written \(File too large\)")
    with (
        files_of_at_most(100),
        expected,
        ShardWriter(tmp_path / "shard", make_meta(num_examples=count)) as writer,
    ):
        writer.append(TOKENS[rows], LABELS[rows], IDS[rows])
    assert list(tmp_path.iterdir()) == []
