"""The token-shard format: round trips, views, bytes, and every way a shard can be damaged."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist import demo_tokens
from flower_ist.token_writer import ShardWriter, quantise_rows, write_text
from flower_ist.tokens import (
    Encoder,
    Mask,
    ShardError,
    ShardMeta,
    TokenShard,
    array_sha256,
    open_shard,
)

TOKENS = np.array([[127.0, -63.5, 0.0], [0.5, 0.25, -1.0], [0.0, 0.0, 0.0]], dtype=np.float32)
LABELS = np.array([0, 1, 1])
IDS = np.array([7, 5, 2**40])


def make_meta(**changes):
    meta = ShardMeta(
        num_examples=3,
        dim=3,
        class_names=("cat", "dog"),
        encoder=Encoder(name="vit", weights_sha256="00", image_size=28, patch_size=14),
        mask=Mask(kind="random", ratio=0.5, seed=3, patches=4, kept=2),
        image_bytes=3 * 784,
        image_file_bytes=3 * 784,
        masked_image_bytes=3 * 392,
        client="client-0",
    )
    return replace(meta, **changes)


@pytest.fixture(params=["float16", "float32", "int8"])
def shard_folder(request, tmp_path):
    with ShardWriter(tmp_path / "shard", make_meta(token_dtype=request.param)) as writer:
        writer.append(TOKENS[:2], LABELS[:2], IDS[:2])
        writer.append(TOKENS[2:], LABELS[2:], IDS[2:])
    return tmp_path / "shard"


@pytest.fixture
def int8_folder(tmp_path):
    with ShardWriter(tmp_path / "shard", make_meta(token_dtype="int8")) as writer:
        writer.append(TOKENS, LABELS, IDS)
    return tmp_path / "shard"


def edit_meta(folder, edit):
    file = folder / "meta.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def replace_array(folder, name, array):
    """Write another array with a matching hash: only its content can give it away."""
    np.save(folder / f"{name}.npy", array)
    edit_meta(folder, lambda meta: meta["sha256"].update({name: array_sha256(array)}))


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


def test_the_text_form_holds_the_same_and_is_reproducible(shard_folder, tmp_path):
    shard = open_shard(shard_folder)
    for name in ("a.json", "b.json"):
        write_text(shard, tmp_path / name)
    again = open_shard(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert again.meta == shard.meta
    for name, array in shard.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


def test_select_is_a_view(shard_folder):
    shard = open_shard(shard_folder)
    view = shard.select(slice(0, None, 2))
    assert len(view) == 2
    assert view.image_ids.tolist() == [7, 2**40]
    assert np.shares_memory(view.tokens, shard.tokens)
    np.testing.assert_array_equal(view.batch(slice(1, 2))[0], shard.batch(slice(2, 3))[0])
    np.testing.assert_array_equal(view.batch(np.array([1, 0]))[1], [1, 0])


def test_a_view_is_not_written_under_the_meta_data_of_the_whole(shard_folder, tmp_path):
    with pytest.raises(ShardError, match="write a whole shard, not a view"):
        write_text(open_shard(shard_folder).select(slice(2)), tmp_path / "view.json")


def test_quantisation_by_hand():
    """Row maxima 127 and 1 give scales 1 and 1/127; 0.25 * 127 = 31.75 rounds to 32."""
    quantised, scales = quantise_rows(TOKENS)
    assert quantised.tolist() == [[127, -64, 0], [64, 32, -127], [0, 0, 0]]
    np.testing.assert_allclose(scales, [1, 1 / 127, 0], rtol=1e-7)


finite_rows = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(finite_rows)
def test_quantisation_error_is_at_most_half_a_scale(tokens):
    quantised, scales = quantise_rows(tokens)
    assert quantised.min() >= -127
    assert (scales >= 0).all()
    # A row too small for a float32 scale becomes zeros: 127 smallest normal numbers at most.
    bound = np.where(scales > 0, scales.astype(np.float64) / 2, 127 * np.finfo(np.float32).tiny)
    error = np.abs(quantised * scales.astype(np.float64)[:, None] - tokens)
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
    with pytest.raises(ShardError, match="exists already"):
        ShardWriter(shard_folder, make_meta())
    assert len(open_shard(shard_folder, verify=True)) == 3


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="cannot be written"):
        ShardWriter(tmp_path / "file" / "shard", make_meta())


def test_a_shard_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ShardError, match=r"needs \d+ bytes, but its disk has \d+ bytes free"):
        ShardWriter(tmp_path / "shard", make_meta(num_examples=10**18))
    assert list(tmp_path.iterdir()) == []


META_EDITS = [
    (lambda m: m.update(format="other"), "its format is not 'flower-ist-tokens'"),
    (lambda m: m.update(version=2), "format version 2, but this release reads version 1"),
    (lambda m: m.pop("dim"), "the meta data lacks dim"),
    (lambda m: m.update(extra=1), "the meta data has unknown entries: extra"),
    (lambda m: m.update(num_examples="3"), "num_examples must be a whole number, not '3'"),
    (lambda m: m.update(num_examples=True), "num_examples must be a whole number, not True"),
    (lambda m: m.update(num_examples=0), "num_examples must be at least 1, not 0"),
    (lambda m: m.update(num_examples=10**18), "but the shard's meta data say"),
    (lambda m: m.update(dim=10**400), "but the shard's meta data say"),
    (lambda m: m.update(image_bytes=-1), "image_bytes must be at least 0, not -1"),
    (lambda m: m.update(image_bytes=1.5), "image_bytes must be a whole number, not 1.5"),
    (lambda m: m.update(client=None), "client must be text, not None"),
    (lambda m: m.update(class_names="cat"), "class_names must be a list of texts"),
    (lambda m: m.update(class_names=["cat", 2]), "class_names must be a list of texts"),
    (lambda m: m.update(class_names=[]), "the number of classes must be at least 1, not 0"),
    (lambda m: m.update(sha256=None), "sha256 must be an object"),
    (lambda m: m.update(token_dtype="bfloat16"), "token_dtype must be one of"),
    (lambda m: m.update(encoder=[]), "encoder must be an object"),
    (lambda m: m["encoder"].pop("name"), "encoder lacks name"),
    (lambda m: m["encoder"].update(name=1), "encoder.name must be text, not 1"),
    (lambda m: m["encoder"].update(image_size=28.0), "encoder.image_size must be a whole number"),
    (lambda m: m["encoder"].update(patch_size=0), "encoder.patch_size must be at least 1"),
    (lambda m: m.update(mask=None), "mask must be an object"),
    (lambda m: m["mask"].update(note=1), "mask has unknown entries: note"),
    (lambda m: m["mask"].update(ratio="0.5"), "mask.ratio must be a number, not '0.5'"),
    (lambda m: m["mask"].update(ratio=1), "mask.ratio must be at least 0 and below 1, not 1"),
    (lambda m: m["mask"].update(ratio=float("nan")), "mask.ratio must be at least 0"),
    (lambda m: m["mask"].update(kept=5), "mask.kept is 5 of only 4 patches"),
    (lambda m: m["mask"].update(seed=-1), "mask.seed must be at least 0, not -1"),
]


@pytest.mark.parametrize(("edit", "message"), META_EDITS, ids=[m for _, m in META_EDITS])
def test_edited_meta_data_are_refused(int8_folder, edit, message):
    edit_meta(int8_folder, edit)
    with pytest.raises(ShardError, match=message) as caught:
        open_shard(int8_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "\ud800"]
)
def test_meta_data_that_are_no_object_are_refused(int8_folder, text):
    (int8_folder / "meta.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ShardError, match=r"cannot be read|is not a token shard's meta data"):
        open_shard(int8_folder)


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


def test_meta_data_made_in_python_are_checked_when_written(tmp_path):
    with pytest.raises(ShardError, match=r"cannot be written: mask\.kept is 9 of only 4 patches"):
        ShardWriter(tmp_path / "shard", make_meta(mask=replace(make_meta().mask, kept=9)))
    with pytest.raises(ShardError, match="cannot be written: encoder and mask must be objects"):
        ShardWriter(tmp_path / "shard", make_meta(mask={}))


@pytest.mark.parametrize("num_clients", [1, 4, 7, 400])
def test_demo_shares_are_disjoint_and_cover_the_4000_rows(num_clients):
    shares = [demo_tokens.train_shard(client, num_clients) for client in range(num_clients)]
    ids = np.concatenate([share.image_ids for share in shares])
    assert len(ids) == len(np.unique(ids)) == 4000
    for client, share in enumerate(shares):
        assert isinstance(share, TokenShard)
        assert share.meta.client == f"demo-{client}"
        assert share.meta.num_examples == len(share) >= 4000 // num_clients
        assert share.meta.image_bytes == 784 * len(share)
        # Half of the patches, each over 2 x 2 native pixels.
        assert share.meta.masked_image_bytes == 392 * len(share)


def test_demo_sets_are_balanced_and_their_files_fit_an_app_bundle():
    test = demo_tokens.test_shard()
    assert np.bincount(test.labels).tolist() == [200] * 10
    assert np.bincount(demo_tokens.train_shard(0, 1).labels).tolist() == [400] * 10
    assert test.meta.split == "test"
    assert test.meta.encoder == demo_tokens.train_shard(1, 2).meta.encoder
    for file in Path(demo_tokens.__file__).parent.glob("*.json"):
        assert file.stat().st_size < 1_000_000
    # Every tenth row is a random draw of classes, not one class.
    assert len(np.unique(demo_tokens.train_shard(0, 10).labels)) == 10


@pytest.mark.parametrize(
    ("client", "num_clients", "message"),
    [
        (0, 0, "1 to 400 clients, not 0"),
        (0, 401, "not 401"),
        (-1, 4, "one of 0 to 3"),
        (4, 4, "Client 4"),
    ],
)
def test_demo_clients_out_of_range_are_refused(client, num_clients, message):
    with pytest.raises(ShardError, match=message):
        demo_tokens.train_shard(client, num_clients)
