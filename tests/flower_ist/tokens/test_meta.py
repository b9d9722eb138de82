"""A shard's meta data: what is refused when they are read and when they are written."""

import json
from dataclasses import replace

import pytest

from flower_ist.tokens.meta import (
    Encoder,
    ShardMeta,
    encoder_settings,
    encoder_space,
    unlike_settings,
)
from flower_ist.tokens.recipe import Recipe
from flower_ist.tokens.shard import ShardError, open_shard
from flower_ist.tokens.writer import ShardWriter
from tests.fakes.shards import edit_meta, make_meta, write_small


@pytest.fixture
def int8_folder(tmp_path):
    return write_small(tmp_path)


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
    (lambda m: m.update(reading=[1]), "reading must be an object of options"),
    (lambda m: m.update(reading={"alpha": None}), "reading must be an object of options"),
    (lambda m: m["encoder"].update(interpolation=1), "encoder.interpolation must be text, not 1"),
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


def test_meta_data_made_in_python_are_checked_when_written(tmp_path):
    with pytest.raises(ShardError, match=r"cannot be written: mask\.kept is 9 of only 4 patches"):
        ShardWriter(tmp_path / "shard", make_meta(mask=replace(make_meta().mask, kept=9)))
    with pytest.raises(ShardError, match="cannot be written: encoder and mask must be objects"):
        ShardWriter(tmp_path / "shard", make_meta(mask={}))


ENCODER = Encoder("vit", "00", image_size=28, patch_size=14)
SETTINGS = "image_size=28 patch_size=14 pool=cls normalisation=imagenet layer=0"


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 56},
        {"patch_size": 7},
        {"pool": "mean"},
        {"normalization": "half"},
        {"layer": 2},
        {"interpolation": "bilinear"},
    ],
)
def test_settings_that_make_another_space(change):
    other = replace(ENCODER, **change)
    assert encoder_space(other) != encoder_space(ENCODER)
    assert encoder_settings(other) != encoder_settings(ENCODER) == SETTINGS
    ((name, value),) = change.items()
    was = getattr(ENCODER, name)
    name = {"normalization": "normalisation"}.get(name, name)  # as it is stored
    told = unlike_settings(encoder_settings(other), encoder_settings(ENCODER))
    assert told == f"{name} was {value} and is {was}"


def test_what_leaves_the_space_as_it_is():
    """A label, rounding; other weights are told by their hash."""
    other = replace(ENCODER, name="mine", dtype="bfloat16", device="cuda")
    assert encoder_space(other) == encoder_space(ENCODER)
    other = replace(ENCODER, weights_sha256="11")
    assert encoder_space(other) != encoder_space(ENCODER)
    assert encoder_settings(other) == SETTINGS


def test_blanks_between_numbers_part_no_settings():
    spaced = replace(ENCODER, normalization="0.5, 0.5, 0.5 / 0.2, 0.2, 0.2")
    dense = replace(ENCODER, normalization="0.5,0.5,0.5/0.2,0.2,0.2")
    assert encoder_settings(spaced) == encoder_settings(dense)


def test_how_images_were_read_and_resized_is_written_where_it_is_not_the_usual():
    """A shard of the usual is byte for byte that of a release without these entries."""
    plain = make_meta()
    assert "reading" not in plain.to_json()
    assert "interpolation" not in plain.to_json()["encoder"]
    other = make_meta(
        encoder=replace(plain.encoder, interpolation="bilinear"),
        reading={"bit-depth": 12, "alpha": "ignore"},
    )
    for meta in (plain, other):
        content = json.loads(json.dumps(meta.to_json()))
        assert ShardMeta.from_json(content, "it") == meta
        recipe = Recipe.of(meta)
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(TypeError, match="reading must be an object"):
        Recipe.from_json({**Recipe.of(plain).to_json(), "reading": 3})


def test_settings_that_only_one_release_knows():
    assert unlike_settings("layer=0 crop=1", "layer=0") == "crop was 1 and is not given"
    assert unlike_settings("layer=0", "crop=1 layer=0") == "crop was not given and is 1"
