"""Chunks: how they are cut, and that their tokens depend on nothing but their images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.images.pixels import network_input
from data_prep.masks.draw import kept_patches
from data_prep.shards.chunks import Chunk, PlannedShard, cut_chunks, encode_chunks
from data_prep.shards.encode import Encoding
from data_prep.shards.work_folder import WorkFolder
from flower_ist.tokens.meta import ShardError
from tests.fakes.fake_encoder import FakeEncoder, image_set


def planned(encoding, data, rows, name="client-0", views=1):
    rows = np.asarray(rows)
    return PlannedShard(data, rows, encoding.meta(data, name, rows=rows, views=views))


def encode(folder, *, workers=0, batch_size=4, chunk_images=5, only=None, encoder=None, **options):
    encoding = Encoding(encoder or FakeEncoder(), seed=3, **options)
    data = image_set(17)
    shards = [
        planned(encoding, data, np.arange(0, 12)),
        planned(encoding, data, np.arange(12, 17), "client-1", views=2),
    ]
    chunks = cut_chunks(shards, chunk_images)
    work = WorkFolder(folder / ".prep", {})
    advanced = []
    encode_chunks(
        encoding,
        shards,
        [chunk for chunk in chunks if only is None or chunk.number in only],
        work,
        batch_size=batch_size,
        workers=workers,
        advance=advanced.append,
    )
    return work, chunks, advanced


def test_chunks_are_cut_shard_by_shard():
    encoding, data = Encoding(FakeEncoder()), image_set(17)
    shards = [planned(encoding, data, range(12)), planned(encoding, data, range(12, 17))]
    assert cut_chunks(shards, 5) == [
        Chunk(0, 0, slice(0, 5)),
        Chunk(1, 0, slice(5, 10)),
        Chunk(2, 0, slice(10, 12)),
        Chunk(3, 1, slice(0, 5)),
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 40))
def test_chunks_cover_every_image_once_in_order(counts, images):
    encoding, data = Encoding(FakeEncoder()), image_set(30)
    shards = [planned(encoding, data, range(count)) for count in counts]
    chunks = cut_chunks(shards, images)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(1 <= len(chunk) <= images for chunk in chunks)
    covered = [(c.shard, row) for c in chunks for row in range(c.part.start, c.part.stop)]
    assert covered == [(k, row) for k, count in enumerate(counts) for row in range(count)]


def test_views_are_image_major_and_equal_to_encoding_each_epoch_by_hand(tmp_path):
    encoder = FakeEncoder()
    work, _, _ = encode(tmp_path, encoder=encoder, token_dtype="float32")
    data = image_set(17)
    pixels = network_input(data.images[12:], 12)
    by_hand = [
        encoder.encode(
            pixels,
            kept_patches("random", (3, 3), 0.5, seed=3, image_ids=data.image_ids[12:], epoch=e),
        )
        for e in range(2)
    ]
    tokens = work.read(3)["tokens"]
    np.testing.assert_array_equal(tokens[0::2], by_hand[0])
    np.testing.assert_array_equal(tokens[1::2], by_hand[1])
    assert not np.array_equal(by_hand[0], by_hand[1])


def test_labels_and_ids_repeat_with_the_views():
    data = image_set(5, first_id=7)
    shard = planned(Encoding(FakeEncoder()), data, [1, 3, 4], views=2)
    labels, ids = shard.labels_and_ids(slice(1, 3))
    assert labels.tolist() == [0, 0, 1, 1]
    assert ids.tolist() == [10, 10, 11, 11]


@pytest.mark.parametrize("token_dtype", ["float16", "int8"])
def test_files_are_the_same_for_any_workers_order_and_batch_size(tmp_path, token_dtype):
    """The fake encoder has no rounding that depends on the batch."""

    def files(name, **options):
        work, _, _ = encode(tmp_path / name, token_dtype=token_dtype, **options)
        return {path.name: path.read_bytes() for path in work.path.glob("chunk-*")}

    first = files("a")
    assert len(first) == 4
    for name, workers in (("b", 1), ("c", 4)):
        assert files(name, workers=workers) == first
    assert files("d", batch_size=1) == files("e", batch_size=100, workers=2) == first
    for only in ((3, 1), (0, 2)):
        shared = files("f", only=only)
    assert shared == first


def test_batches_end_with_their_chunk_and_are_counted_in_images(tmp_path):
    encoder = FakeEncoder()
    _, _, advanced = encode(tmp_path, encoder=encoder, workers=2)
    assert advanced == [4, 1, 4, 1, 2, 4, 1]
    # The second shard has two views.
    assert encoder.calls == [4, 1, 4, 1, 2, 4, 4, 1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_keeps_the_chunks_before_it(tmp_path, monkeypatch, workers):
    real = Encoding.prepare

    def prepare(self, data, views=1):
        if 107 in data.image_ids:
            raise PrepError("image 107 cannot be read.")
        return real(self, data, views)

    monkeypatch.setattr(Encoding, "prepare", prepare)
    with pytest.raises(PrepError, match=r"^image 107 cannot be read\.$"):
        encode(tmp_path, workers=workers)
    assert [p.name for p in (tmp_path / ".prep").glob("chunk-*")] == ["chunk-000000.npz"]


def test_a_token_that_cannot_be_stored_is_found_with_its_chunk(tmp_path):
    class Loud(FakeEncoder):
        def encode(self, pixels, kept):
            return super().encode(pixels, kept) * 1e4

    with pytest.raises(ShardError, match="too large for float16"):
        encode(tmp_path, encoder=Loud())

    class Broken(FakeEncoder):
        def encode(self, pixels, kept):
            return super().encode(pixels, kept) * np.nan

    with pytest.raises(ShardError, match="A token in images 0 to 4 of client-0 is not a finite"):
        encode(tmp_path, encoder=Broken())
