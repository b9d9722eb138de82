"""Images to shards in one call: tokens, views, splits, masked images, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.open import open_encoder
from data_prep.images.classes import read_classes
from data_prep.images.reading import Reading
from data_prep.masks.draw import kept_patches
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked
from data_prep.shards.encode import Encoding
from data_prep.shards.prep import prep
from data_prep.shards.work_folder import WorkFolder
from data_prep.sources import open as opening
from data_prep.sources.open import read_train_and_test
from flower_ist.tokens.meta import ShardError
from flower_ist.tokens.shard import open_shard
from tests.fakes.prep_runs import contents, shards


def test_shards_hold_the_encoders_tokens_of_the_split_images(settings, real_picture):
    folders = prep(settings)
    assert [f.name for f in folders] == [*(f"client-{k}" for k in range(4)), "test"]
    names = {path.name for path in settings.out.iterdir()}
    assert names == {f.name for f in folders} | {"classes.json", "split.json", "split.png"}
    assert read_classes(settings.out / "classes.json") == tuple("01234")
    assert (settings.out / "split.png").read_bytes().startswith(b"\x89PNG")
    train, test = read_train_and_test(settings.source, None, 0.2, 0)
    ids = np.concatenate([shard.image_ids for shard in shards(settings.out)])
    assert sorted(ids) == sorted(train.image_ids)
    encoder = open_encoder(settings)
    held = open_shard(folders[-1], verify=True)
    assert (len(held), held.meta.split, held.meta.client) == (40, "test", "test")
    kept = kept_patches("random", (4, 4), 0.5, seed=0, image_ids=test.image_ids)
    tokens = encoder.encode(test.network_input(16), kept)
    np.testing.assert_allclose(held.tokens, tokens, atol=2e-3)
    np.testing.assert_array_equal(held.labels, test.labels)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_any_batch_size_gives_the_same_tokens_but_for_rounding(
    settings, whole, tmp_path, batch_size
):
    prep(replace(settings, batch_size=batch_size))
    for one, other in zip(shards(settings.out), shards(tmp_path / "whole"), strict=True):
        np.testing.assert_allclose(one.tokens, other.tokens, atol=2e-3)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.image_ids, other.image_ids)


def test_views_are_the_epochs_masks_and_the_test_shard_has_one(settings):
    prep(replace(settings, views=3, clients=2, dtype="float32"))
    train, _ = read_train_and_test(settings.source, None, 0.2, 0)
    encoder = open_encoder(settings)
    for shard in shards(settings.out, 2):
        assert (shard.meta.mask.views, len(shard)) == (3, 240)
        assert shard.meta.image_bytes == 240 * 64
        assert shard.meta.masked_image_bytes == 240 * 32
        ids = shard.image_ids[::3]
        data = train.take(np.searchsorted(train.image_ids, ids))
        np.testing.assert_array_equal(shard.image_ids, np.repeat(ids, 3))
        np.testing.assert_array_equal(shard.labels, np.repeat(data.labels, 3))
        pixels = data.network_input(16)
        for epoch in range(3):
            kept = kept_patches("random", (4, 4), 0.5, seed=0, image_ids=ids, epoch=epoch)
            by_hand = encoder.encode(pixels, kept)
            np.testing.assert_allclose(shard.tokens[epoch::3], by_hand, atol=1e-5)
    test = open_shard(settings.out / "test", verify=True).meta
    assert (test.mask.views, test.num_examples) == (1, 40)


def test_images_are_decoded_once_for_all_views(settings, monkeypatch):
    counted = []
    real = Encoding.prepare

    def prepare(self, data, views=1):
        counted.append((len(data), views))
        return real(self, data, views)

    monkeypatch.setattr(Encoding, "prepare", prepare)
    prep(replace(settings, views=4, test_share=0.0))
    assert sum(images for images, _ in counted) == 200
    assert {views for _, views in counted} == {4}


def test_a_skewed_split_end_to_end(settings):
    prep(replace(settings, split="dirichlet:0.3", clients=3, seed=5))
    made = shards(settings.out, 3)
    ids = np.concatenate([shard.image_ids for shard in made])
    assert (len(ids), len(set(ids))) == (160, 160)
    counts = np.stack([np.bincount(shard.labels, minlength=5) for shard in made])
    assert (counts.sum(axis=0) == 32).all()
    # An even split has 10 or 11 of each class; this one has a client without half of a class.
    assert counts.max() > 16
    assert b'"client-2"' in contents(settings.out)["split.json"]


def test_a_device_makes_its_own_shard_with_the_agreed_classes(settings, tmp_path):
    """It has images of two classes only, one of them under another number than all others'."""
    (tmp_path / "agreed.json").write_text(
        '{"format": "flower-ist-classes", "version": 1, "classes": ["owl", "cat", "dog"]}'
    )
    for name in ("dog", "owl"):
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        for k in range(3):
            Image.new("L", (8, 8), 40 * k).save(folder / f"{k}.png")
    own = replace(
        settings,
        source=str(tmp_path / "mine"),
        client="porch",
        classes=tmp_path / "agreed.json",
        test_share=0.0,
    )
    assert prep(own) == [own.out / "porch"]
    assert {path.name for path in own.out.iterdir()} == {"porch", "classes.json"}
    shard = open_shard(own.out / "porch", verify=True)
    assert shard.meta.class_names == ("owl", "cat", "dog")
    assert (shard.meta.client, shard.labels.tolist()) == ("porch", [2, 2, 2, 0, 0, 0])


@pytest.mark.parametrize("names", [["a", "a", "b"], ["a", "", "b"]])
def test_class_names_that_no_shard_set_can_have_are_found_before_anything_is_encoded(
    settings, names
):
    images = np.zeros((9, 8, 8), np.uint8)
    np.savez(settings.source, x=images, y=np.arange(9) % 3, class_names=np.array(names))
    with pytest.raises(
        PrepError, match=r"set\.npz(: every class name must| names the class 'a' twice)"
    ):
        prep(settings)
    assert not settings.out.exists()


@pytest.mark.parametrize("out", ["", "shards", "cat/shards", "../images", "../link/shards"])
@pytest.mark.parametrize("option", ["source", "test"])
def test_shards_do_not_go_into_the_images_folder(settings, tmp_path, monkeypatch, out, option):
    """They would be taken for a class by the run that goes on, and by the next one."""
    monkeypatch.setattr(opening, "read_train_and_test", lambda *_, **__: pytest.fail("read"))
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("images")
    folder = tmp_path / "images"
    with pytest.raises(PrepError, match=r"lies in the folder of the images, .*/images, where"):
        prep(replace(settings, out=folder / out, **{option: str(folder)}))
    assert [path.name for path in folder.rglob("*")] == ["cat"]


def test_a_natural_split_says_whose_images_a_client_has(settings, tmp_path, monkeypatch):
    rows = []
    for k in range(12):
        Image.new("L", (8, 8), k).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{k % 2},{('zoe', 'ann', 'bob')[k % 3]}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,client", *rows]))
    prep(replace(settings, source=str(table), test_share=0.0, split="natural"))
    clients = json.loads((settings.out / "split.json").read_text())["clients"]
    first = {"ann": 1, "bob": 2, "zoe": 0}
    for name, client in clients.items():
        ids = open_shard(settings.out / name).image_ids
        assert ids.tolist() == [first[client["owner"]] + 3 * k for k in range(4)]
    assert len({client["owner"] for client in clients.values()}) == 3


def test_existing_shards_are_found_before_anything_is_encoded(settings, monkeypatch):
    prep(settings)
    before = contents(settings.out)
    monkeypatch.setattr(Encoding, "tokens", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ShardError, match="client-0 exists already: choose another folder or"):
        prep(settings)
    assert contents(settings.out) == before


def test_wrong_settings_are_found_before_images_are_read(settings, monkeypatch):
    monkeypatch.setattr(opening, "read_train_and_test", lambda *_, **__: pytest.fail("read"))
    for change, message in (
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        ({"workers": -1}, "--workers must be at least 0, not -1"),
        ({"views": 0}, "--views must be at least 1, not 0"),
        ({"views": 2, "mask": "grid"}, "2 views of the grid mask"),
        ({"shard_index": 1}, "The shard index must be 0 to 0, not 1"),
        ({"num_shards": 2, "ray": True}, "leave --num-shards or --ray out"),
        ({"split": "magic"}, "The split 'magic' is unknown"),
        ({"client": "a/b"}, "must be a plain name"),
        ({"client": "test"}, "cannot be called test"),
        ({"client": "a", "clients": 2}, "leave --clients and --split out"),
        ({"mask_ratio": 1.0}, "below 1, not 1.0"),
        ({"encoder": "vit_gigantic"}, "vit_gigantic"),
        ({"classes": Path("none.json")}, "none.json cannot be read"),
    ):
        with pytest.raises(PrepError) as error:
            prep(replace(settings, **change))
        assert message in str(error.value)
    assert not settings.out.exists()


def test_classes_in_another_order_in_the_test_set_are_refused(settings, tmp_path):
    np.savez(
        tmp_path / "test.npz",
        x=np.zeros((5, 8, 8), np.uint8),
        y=np.arange(5),
        class_names=np.array(list("43210")),
    )
    with pytest.raises(PrepError, match="number their classes differently"):
        prep(replace(settings, test=str(tmp_path / "test.npz")))


def test_memory_holds_no_more_than_a_chunk_of_tokens(settings, monkeypatch):
    """What is read back for assembling is one chunk at a time, and is let go."""
    held = []
    real = WorkFolder.read

    def read(self, chunk):
        rows = real(self, chunk)
        held.append(len(rows["tokens"]))
        return rows

    monkeypatch.setattr(WorkFolder, "read", read)
    prep(settings)
    assert held == [10] * 20


def test_how_stored_patches_were_read_goes_into_the_shard(settings, tmp_path):
    """What prep is told is not about them: they were read and resized when they were masked."""
    sets = read_train_and_test(settings.source, None, 0.2, 7)
    stored = MaskSettings(image_size=16, patch_size=4, interpolation="bilinear")
    write_masked(sets[0], tmp_path / "masked", stored, test=sets[1], reading=Reading(12, "ignore"))
    prep(replace(settings, source=str(tmp_path / "masked"), orientation="exif"))
    meta = open_shard(settings.out / "test").meta
    assert meta.encoder.interpolation == "bilinear"
    assert meta.reading == {"bit-depth": 12, "alpha": "ignore"}


def test_masked_images_are_encoded_to_the_same_tokens_and_count_their_real_bytes(
    settings, whole, tmp_path
):
    """A quarter of 16 x 16 gray pixels is 64 bytes an image, at whatever size it had."""
    sets = read_train_and_test(settings.source, None, 0.2, 7)
    stored = MaskSettings(image_size=16, patch_size=4, kind="block", ratio=0.75, seed=7)
    write_masked(sets[0], tmp_path / "masked", stored, test=sets[1])
    images = replace(settings, mask="block", mask_ratio=0.75, seed=7, out=tmp_path / "images")
    prep(images)
    masked = replace(settings, source=str(tmp_path / "masked"))
    prep(masked)
    for name in ("client-0", "client-3", "test"):
        one, other = (open_shard(out / name, verify=True) for out in (images.out, masked.out))
        for array, found in one.arrays().items():
            np.testing.assert_array_equal(found, other.arrays()[array])
        assert other.meta.mask == one.meta.mask
        assert other.meta.image_bytes == one.meta.image_bytes == 40 * 64
        assert (one.meta.masked_image_bytes, other.meta.masked_image_bytes) == (40 * 16, 40 * 64)
    for change, difference in (
        ({"mask": "random"}, r"kind was block and is random"),
        ({"mask_ratio": 0.5}, r"ratio was 0\.75 and is 0\.5"),
        ({"seed": 8}, "seed was 7 and is 8"),
        ({"image_size": 32}, "image size was 16 and is 32"),
        ({"patch_size": 8}, "patch size was 4 and is 8"),
        ({"views": 2}, "views was 1 and is 2"),
    ):
        with pytest.raises(PrepError, match=difference):
            prep(replace(masked, out=tmp_path / "never", **change))
    assert not (tmp_path / "never").exists()
