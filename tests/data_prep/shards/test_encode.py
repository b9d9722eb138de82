"""One encoding: tokens of views, bytes in the meta data, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.encoders.vit import TokenEncoder
from data_prep.images.decode import ImageFiles
from data_prep.images.stored import StoredImages
from data_prep.masks.draw import MASK_KINDS, kept_patches
from data_prep.masks.names import DRAWN_PER_EPOCH, check_views
from data_prep.shards.encode import Encoding
from tests.fakes.fake_encoder import FakeEncoder, image_set


def test_a_batch_is_decoded_once_and_masked_for_each_view():
    data = image_set(4)
    batch = Encoding(FakeEncoder(), seed=5).prepare(data, views=3)
    assert batch.pixels.shape == (4, 3, 12, 12)
    assert batch.kept.shape == (3, 4, 4)
    for epoch in range(3):
        drawn = kept_patches("random", (3, 3), 0.5, seed=5, image_ids=data.image_ids, epoch=epoch)
        np.testing.assert_array_equal(batch.kept[epoch], drawn)


def test_tokens_of_all_images_do_not_depend_on_the_batch_size(tiny_vit):
    encoding = Encoding(TokenEncoder(tiny_vit(), "half"), seed=5)
    data = image_set(7)
    by_size = [np.concatenate(list(encoding.batches(data, size))) for size in (1, 3, 7, 64)]
    assert by_size[0].shape == (7, 24)
    for tokens in by_size[1:]:
        np.testing.assert_allclose(tokens, by_size[0], atol=1e-5)


def test_bytes_count_every_example():
    """3 images of 6 x 6 x 1 bytes, 4 of 9 patches kept: 108 and 48 bytes, twice for two views."""
    data = replace(image_set(5), file_bytes=np.array([10, 20, 30, 40, 50]))
    encoding = Encoding(FakeEncoder(), seed=1)
    rows = np.array([0, 2, 4])
    meta = encoding.meta(data, "client-0", rows=rows)
    assert (meta.num_examples, meta.mask.views) == (3, 1)
    assert (meta.image_bytes, meta.masked_image_bytes, meta.image_file_bytes) == (108, 48, 90)
    two = encoding.meta(data, "client-0", rows=rows, views=2)
    assert (two.num_examples, two.mask.views) == (6, 2)
    assert (two.image_bytes, two.masked_image_bytes, two.image_file_bytes) == (216, 96, 180)
    two.check()


def test_images_without_files_of_their_own_count_as_native():
    meta = Encoding(FakeEncoder()).meta(image_set(2), "client-0", source="made up")
    assert meta.image_file_bytes == meta.image_bytes == 72
    assert meta.source == "made up"


def test_stored_images_count_their_own_sizes(tmp_path):
    data = image_set(3)
    reader = ImageFiles(tuple(tmp_path / f"{k}.png" for k in range(3)))
    files = StoredImages(reader, np.arange(3), np.array([100, 200, 300]))
    meta = Encoding(FakeEncoder()).meta(replace(data, images=files), "c", rows=np.array([0, 2]))
    assert meta.image_bytes == 400


def test_kept_patches_that_were_stored_count_what_they_took():
    encoding = Encoding(FakeEncoder())
    data = replace(image_set(3), mask=encoding.mask, masked_bytes=np.array([5, 6, 7]))
    assert encoding.meta(data, "c", rows=np.array([0, 2])).masked_image_bytes == 12


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_views_are_refused_exactly_where_they_would_be_the_same(kind):
    """Drawn for real: epochs 0 and 1 of 40 images, on a grid with room for two draws."""
    encoding = Encoding(FakeEncoder(), mask_kind=kind)
    masks = encoding.prepare(image_set(40), views=2).kept
    differ = not np.array_equal(masks[0], masks[1])
    assert differ == (kind in DRAWN_PER_EPOCH)
    if differ:
        check_views(2, encoding.mask)
    else:
        with pytest.raises(PrepError, match=f"2 views of the {kind} mask .* the same token"):
            check_views(2, encoding.mask)
    check_views(1, encoding.mask)


def test_views_of_whole_images_are_refused():
    mask = Encoding(FakeEncoder(), mask_ratio=0.0).mask
    assert mask.kept == mask.patches == 9
    with pytest.raises(PrepError, match=r"3 views of the random mask at ratio 0\.0"):
        check_views(3, mask)
    with pytest.raises(PrepError, match="at least 1, not 0"):
        check_views(0, mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_kind": "spiral"}, "The mask kind 'spiral' is unknown"),
        ({"mask_ratio": 1.0}, r"at least 0 and below 1, not 1\.0"),
        ({"mask_ratio": 0.95}, "keeps none of 9 patches"),
        ({"seed": -1}, "The seed must be 0 to"),
        ({"token_dtype": "int4"}, "The token type 'int4' is unknown"),
        ({"interpolation": "nearest"}, "The interpolation 'nearest' is unknown"),
    ],
)
def test_wrong_settings_are_found_without_an_image(options, message):
    with pytest.raises(PrepError, match=message):
        Encoding(FakeEncoder(), **options)
