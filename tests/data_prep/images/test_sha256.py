"""One digest for the same images anywhere, another for each change that a plan must see."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.images.decode import ImageFiles
from data_prep.images.stored import StoredImages
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked
from data_prep.sources.open import read_source
from tests.fakes.fake_encoder import image_set


@pytest.fixture
def folder(tmp_path):
    """Two classes of three gray images in BMP files, all of one size."""
    for label, name in enumerate(("a", "b")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("L", (4, 4), 10 * label + k).save(tmp_path / "set" / name / f"{k}.bmp")
    return tmp_path / "set"


def test_of_arrays_every_pixel_their_shape_and_ids_count():
    data = image_set(6)
    same = replace(data, images=data.images.copy(), labels=data.labels[::-1])
    assert same.sha256() == data.sha256()
    changed = data.images.copy()
    changed[5, 5, 5, 0] ^= 1
    others = [
        replace(data, images=changed),
        replace(data, images=data.images.reshape(6, 4, 9, 1)),
        replace(data, image_ids=data.image_ids + 1),
        replace(data, file_bytes=np.ones(6, np.int64)),
    ]
    assert len({other.sha256() for other in (data, *others)}) == 5


def test_of_files_names_below_their_folder_and_content_count(folder, tmp_path, monkeypatch):
    first = read_source(folder).sha256()
    shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    assert read_source(tmp_path / "elsewhere" / "deep").sha256() == first
    monkeypatch.chdir(tmp_path)
    assert read_source("set").sha256() == first
    (folder / "a" / "2.bmp").rename(folder / "a" / "3.bmp")
    renamed = read_source(folder).sha256()
    # Of the same size, in bytes too.
    Image.new("L", (4, 4), 3).save(folder / "a" / "3.bmp")
    assert len({first, renamed, read_source(folder).sha256()}) == 3


def test_a_name_that_is_no_text_counts_too():
    one, other = (
        StoredImages(ImageFiles((Path("a") / os.fsdecode(name),)), np.zeros(1, int), np.ones(1))
        for name in (b"\xff.bmp", b"\xfe.bmp")
    )
    data = image_set(1)
    digests = {replace(data, images=images).sha256() for images in (one, other)}
    assert len(digests) == 2


def test_of_images_masked_already_every_stored_byte_counts(tmp_path):
    data = image_set(6)
    changed = replace(data, images=255 - data.images)
    settings = MaskSettings(image_size=4, patch_size=2)
    digests = []
    for name, images in (("one", data), ("two", data), ("three", changed)):
        write_masked(images, tmp_path / name, settings)
        digests.append(read_source(tmp_path / name).sha256())
    assert digests[0] == digests[1] != digests[2]
