"""Sheets of six images of 4 x 4 pixels under masks of 2 x 2 patches."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.shards.sheet import draw_sheet, shown_pixels
from flower_ist.files import NotWrittenError
from flower_ist.tokens.shard import open_shard
from flower_ist.tokens.writer import ShardWriter
from tests.fakes.shards import make_meta

DROPPED = [183, 202, 226]


@pytest.fixture
def data():
    """Image k has id 10 + k and class k % 2; its pixels are (20 * k, 0, 99), no text's color."""
    colors = np.array([[20 * k, 0, 99] for k in range(6)], dtype=np.uint8)
    return ImageSet(
        images=np.tile(colors[:, None, None, :], (1, 4, 4, 1)),
        labels=np.arange(6) % 2,
        image_ids=10 + np.arange(6),
        class_names=("cat", "$dog{"),
        source="toy",
    )


def shard_of(folder, data, rows, **mask):
    views = mask.get("views", 1)
    meta = make_meta(num_examples=len(rows) * views, class_names=data.class_names)
    meta = replace(meta, mask=replace(meta.mask, **mask))
    with ShardWriter(folder / "shard", meta) as writer:
        labels, ids = data.labels[rows].repeat(views), data.image_ids[rows].repeat(views)
        writer.append(np.ones((len(labels), 3)), labels, ids)
    return open_shard(folder / "shard")


def colors(file):
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return {color for _, color in picture.convert("RGB").getcolors(1 << 20)}


def test_dropped_patches_are_colored():
    """Of 2 x 2 patches, 0 and 3 are kept: the upper left and the lower right."""
    pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    shown = shown_pixels(pixels, (2, 2), np.array([0, 3]))
    assert shown.tolist() == [[[0, 0, 0], DROPPED], [DROPPED, [3, 3, 3]]]


def test_images_are_found_by_id(tmp_path, data):
    shard = shard_of(tmp_path, data, np.array([5, 0, 3]))
    shuffled = data.take(np.array([3, 1, 5, 0, 2, 4]))
    names = np.array(data.class_names)[shard.labels]
    assert shuffled.find(shard.image_ids, names).tolist() == [2, 3, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"image_ids": np.arange(6)},
        {"image_ids": 100 + np.arange(6)},
        {"labels": 1 - np.arange(6) % 2},
        {"class_names": ("$dog{", "cat")},
    ],
)
def test_another_source_is_refused(tmp_path, data, changes):
    shard = shard_of(tmp_path, data, np.array([5, 0, 3]))
    with pytest.raises(PrepError, match=r"toy \(train\) has no image 15 of class '\$dog\{': give"):
        draw_sheet(shard, replace(data, **changes), tmp_path / "sheet.png")


def test_a_sheet_shows_images_and_masks(tmp_path, data):
    """Kept pixels of all six images and the color of dropped patches."""
    file = draw_sheet(shard_of(tmp_path, data, np.arange(6)), data, tmp_path / "sheet.png")
    assert {(20 * k, 0, 99) for k in range(6)} | {tuple(DROPPED)} <= colors(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard", "sheet.png"]


def test_nothing_is_dropped_at_ratio_0(tmp_path, data):
    shard = shard_of(tmp_path, data, np.arange(6), ratio=0.0, kept=4)
    assert tuple(DROPPED) not in colors(draw_sheet(shard, data, tmp_path / "sheet.png"))


def test_a_small_sheet_takes_images_at_even_distances(tmp_path, data):
    """Of six images two are the first and the last."""
    shard = shard_of(tmp_path, data, np.arange(6), ratio=0.0, kept=4)
    drawn = colors(draw_sheet(shard, data, tmp_path / "sheet.png", count=2))
    assert drawn & {(20 * k, 0, 99) for k in range(6)} == {(0, 0, 99), (100, 0, 99)}


def test_each_view_has_a_panel(tmp_path, data, monkeypatch):
    """Three views are the masks of epochs 0, 1 and 2; at most four are drawn."""
    seen = []

    def record(kind, grid, ratio, *, seed, image_ids, epoch):
        seen.append((int(image_ids[0]), epoch))
        return np.array([[0, 1]])

    monkeypatch.setattr("data_prep.masks.draw.kept_patches", record)
    draw_sheet(shard_of(tmp_path, data, np.array([4, 1]), views=3), data, tmp_path / "sheet.png")
    assert seen == [(14, 0), (14, 1), (14, 2), (11, 0), (11, 1), (11, 2)]
    seen.clear()
    shard = shard_of(tmp_path / "more", data, np.array([4]), views=6)
    draw_sheet(shard, data, tmp_path / "sheet.png")
    assert seen == [(14, epoch) for epoch in range(4)]


def test_masked_images_need_the_same_mask(tmp_path, data):
    shard = shard_of(tmp_path, data, np.arange(6))
    masked = replace(data, mask=shard.meta.mask)
    assert draw_sheet(shard, masked, tmp_path / "sheet.png").is_file()
    other = replace(data, mask=replace(shard.meta.mask, seed=4))
    with pytest.raises(PrepError, match=r"masked by random 0\.5 of 4 patches with seed 4, but the"):
        draw_sheet(shard, other, tmp_path / "sheet.png")


def test_what_cannot_be_drawn(tmp_path, data):
    shard = shard_of(tmp_path, data, np.arange(6))
    with pytest.raises(PrepError, match="at least 1 image, not 0"):
        draw_sheet(shard, data, tmp_path / "sheet.png", count=0)
    with pytest.raises(NotWrittenError, match="cannot be written"):
        draw_sheet(shard, data, tmp_path / "missing" / "sheet.png")
    odd = shard_of(tmp_path / "odd", data, np.arange(6), patches=6)
    with pytest.raises(PrepError, match="6 patches are no square grid"):
        draw_sheet(odd, data, tmp_path / "sheet.png")
