"""Shards of three tokens: whole, damaged, and of different kinds in one folder."""

import io
import shutil

import pytest
from rich.console import Console

from data_prep import PrepError
from data_prep.shards.inspect import inspect_shards, to_table
from tests.fakes.shards import edit_meta, write_small


@pytest.fixture
def folder(tmp_path):
    """Clients 0, 1 and 10 and a test shard, all equal, beside a folder of other things."""
    source = write_small(tmp_path / "source")
    for name in ("client-0", "client-1", "client-10", "test"):
        shutil.copytree(source, tmp_path / "data" / name)
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / ".client-2.17.tmp").mkdir()
    return tmp_path / "data"


def shown(report, width=80):
    text = io.StringIO()
    Console(file=text, width=width).print(to_table(report))
    return text.getvalue()


def test_a_sound_folder(folder):
    report = inspect_shards(folder)
    assert [found.name for found in report.inspections] == [
        "client-0",
        "client-1",
        "client-10",
        "test",
    ]
    assert report.sound
    assert report.damages == report.disagreements == ()


def test_one_shard_by_itself(folder):
    (found,) = inspect_shards(folder / "client-1").inspections
    assert (found.name, found.damage) == ("client-1", "")
    assert len(found.shard) == 3


def test_the_table_by_hand(folder):
    """3 int8 tokens of 3 numbers with a scale of 4 bytes are 21 bytes of 2,352 native ones."""
    edit_meta(folder / "client-0", lambda m: m.update(image_bytes=2_352_000_000))
    edit_meta(folder / "client-0", lambda m: m["encoder"].update(name="[bold]" + "v" * 30))
    edit_meta(folder / "client-0", lambda m: m["mask"].update(views=3))
    text = shown(inspect_shards(folder))
    rows = [line.split() for line in text.splitlines()]
    assert ["client-1", "3", "vit", "3", "random", "0.5", "0.00", "0.00", "0.00"] in rows
    assert ["whole", "2", "classes", "00", "int8", "2", "of", "4"] in rows
    assert "[bold]vvv" in text
    assert "2,352" in text
    assert "3 views" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def damage_labels(shard):
    content = bytearray((shard / "labels.npy").read_bytes())
    content[-4] ^= 1
    (shard / "labels.npy").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (damage_labels, "array 'labels' does not match its hash"),
        (lambda shard: (shard / "tokens.npy").unlink(), "tokens.npy is missing"),
        (lambda shard: (shard / "meta.json").unlink(), "meta.json is missing"),
        (lambda shard: (shard / "meta.json").write_text("{"), "meta.json cannot be read"),
    ],
)
def test_a_damaged_shard_is_told_beside_the_others(folder, spoil, sentence):
    spoil(folder / "client-1")
    report = inspect_shards(folder)
    assert not report.sound
    assert [found.shard is None for found in report.inspections] == [False, True, False, False]
    (damage,) = report.damages
    assert sentence in damage
    assert "client-1" in damage
    assert report.disagreements == ()
    assert shown(report).count("damaged") == 1
    assert shown(report).count("whole") == 3


def test_a_folder_of_damaged_shards_only(folder):
    for shard in folder.glob("[ct]*"):
        damage_labels(shard)
    report = inspect_shards(folder)
    assert (len(report.damages), report.disagreements) == (4, ())


def test_another_encoder_is_told(folder):
    edit_meta(folder / "test", lambda m: m["encoder"].update(normalization="half"))
    report = inspect_shards(folder)
    assert not report.sound
    assert report.disagreements == (
        "test is not of the space of client-0 (encoder.normalization was imagenet and is half): "
        "encode both with the same encoder and settings.",
    )


def test_other_classes_are_told_by_what_differs(folder):
    edit_meta(folder / "client-10", lambda m: m.update(class_names=["dog", "cow"]))
    (sentence,) = inspect_shards(folder).disagreements
    assert sentence == (
        "client-10 and client-0 have different classes: only client-10 has ['cow']; only client-0 "
        "has ['cat']; encode one of them again with flower-ist prep --classes FILE."
    )


def test_another_mask_or_device_is_no_disagreement(folder):
    """A test shard of whole images beside masked clients is a fair experiment."""
    edit_meta(folder / "test", lambda m: m["mask"].update(ratio=0.0, kept=4))
    edit_meta(folder / "client-1", lambda m: m["encoder"].update(device="cuda", dtype="bfloat16"))
    assert inspect_shards(folder).sound


def test_no_shard_at_all(tmp_path):
    with pytest.raises(PrepError, match="holds no token shard: give a shard's folder"):
        inspect_shards(tmp_path)
