"""A clone without git-lfs has pointers in the place of large files: each reader says so."""

import pytest

from data_prep.encoders.checkpoints import read_description
from data_prep.images.classes import read_classes
from data_prep.patches.read import read_masked
from data_prep.sources.open import read_source
from flower_ist.classifier.predictor import load_classifier
from flower_ist.errors import FlowerIstError, is_lfs_pointer
from flower_ist.tokens.shard import open_shard
from tests.fakes.shards import write_small

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"


def image(folder):
    (folder / "cat").mkdir()
    (folder / "cat" / "0.png").write_text(POINTER)
    read_source(folder)


def shard(folder, name):
    path = write_small(folder)
    (path / name).write_text(POINTER)
    open_shard(path)


def masked(folder):
    (folder / "meta.json").write_text(POINTER)
    read_masked(folder)


def one(read, name):
    def act(folder):
        (folder / name).write_text(POINTER)
        read(folder / name)

    return act


READERS = {
    "an image": image,
    "a table": one(read_source, "t.csv"),
    "a Parquet file": one(read_source, "t.parquet"),
    "arrays": one(read_source, "x.npz"),
    "a shard's meta file": lambda folder: shard(folder, "meta.json"),
    "a shard's array": lambda folder: shard(folder, "tokens.npy"),
    "a shard as text": one(open_shard, "shard.json"),
    "masked images": masked,
    "an encoder": one(read_description, "encoder.safetensors"),
    "a class schema": one(read_classes, "classes.json"),
    "a model": one(load_classifier, "model.safetensors"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_a_pointer_of_git_lfs_is_called_one(tmp_path, reader):
    with pytest.raises(FlowerIstError, match=r"is a pointer of git-lfs, .* git lfs pull fetches"):
        reader(tmp_path)


def test_other_files_are_no_pointers(tmp_path):
    (tmp_path / "a").write_text(POINTER[:30])
    assert not any(map(is_lfs_pointer, (tmp_path / "a", tmp_path, tmp_path / "none", "x\0y")))
