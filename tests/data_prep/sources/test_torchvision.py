import gzip
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.torchvision_guard import guard_torchvision
from data_prep.sources.open import left_out_tests, read_source, read_train_and_test

guard_torchvision()

import torchvision.datasets  # noqa: E402


@pytest.fixture
def unzipped(fashion_folder, tmp_path):
    """The small Fashion-MNIST where torchvision keeps it after its download."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in fashion_folder.iterdir():
        content = file.read_bytes()
        (raw / file.name.removesuffix(".gz")).write_bytes(
            gzip.decompress(content) if file.suffix == ".gz" else content
        )
    return f"torchvision:FashionMNIST?root={tmp_path}"


def test_a_published_split_is_the_same_images_as_from_the_files_themselves(
    unzipped, fashion_folder
):
    own = read_train_and_test(fashion_folder, None, 0.2, seed=0)
    for data, expected in zip(read_train_and_test(unzipped, None, 0.2, seed=0), own, strict=True):
        rows = np.arange(len(expected))
        np.testing.assert_array_equal(data.take(rows).native_pixels(), expected.images)
        np.testing.assert_array_equal(data.labels, expected.labels)
        np.testing.assert_array_equal(data.image_ids, expected.image_ids)
        assert (data.native_bytes, data.split) == (expected.native_bytes, expected.split)
        assert data.file_bytes is None
        assert data.class_names == expected.class_names
    assert data.source == "torchvision:FashionMNIST"
    # To count them may take a download.
    assert left_out_tests(unzipped).endswith(f"leaves out the test images of {unzipped}.")


@pytest.fixture
def satellite(tmp_path):
    """Two classes of four pictures where torchvision keeps EuroSAT."""
    for label, name in enumerate(("Forest", "River")):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (4, 3), (label, k, 0)).save(folder / f"{name}_{k}.png")
    return tmp_path


def test_a_set_without_a_test_split_is_held_out_from_and_decoded_when_needed(satellite):
    source = f"torchvision:EuroSAT?root={satellite}"
    train, test = read_train_and_test(source, None, 0.25, seed=0)
    assert (len(train), np.bincount(test.labels).tolist()) == (6, [1, 1])
    assert test.class_names == ("Forest", "River")
    assert test.native_bytes == 2 * 4 * 3 * 3
    assert [pixels[0, 0, 1] for pixels in test.images] == [
        image_id % 4 for image_id in test.image_ids
    ]
    for file in (satellite / "eurosat" / "2750" / "River").iterdir():
        file.unlink()
    with pytest.raises(PrepError, match=r"Image \d of torchvision:EuroSAT cannot be read: "):
        train.take(np.arange(0, 6)).network_input(8)


def test_a_damaged_image_is_skipped_without_moving_ids(satellite):
    (satellite / "eurosat" / "2750" / "Forest" / "Forest_1.png").write_bytes(b"damaged")
    source = f"torchvision:EuroSAT?root={satellite}"
    with pytest.raises(PrepError, match=r"Image 1 of torchvision:EuroSAT .* --on-error skip"):
        read_source(source)
    assert read_source(source, on_error="skip").image_ids.tolist() == [0, 2, 3, 4, 5, 6, 7]


def test_an_unknown_name_or_option_is_refused():
    with pytest.raises(
        PrepError,
        match="'ImageNet' is no torchvision data set known here: use one of CIFAR10, CIFAR100, ",
    ):
        read_source("torchvision:ImageNet")
    with pytest.raises(PrepError, match="knows no option 'split': use root"):
        read_source("torchvision:CIFAR10?split=test")


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        PrepError, match=r"CIFAR10 cannot be downloaded to .*flower-ist.torchvision or .*no route"
    ):
        read_source("torchvision:CIFAR10")
