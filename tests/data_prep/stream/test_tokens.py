"""A stream of images: how far it reads ahead, and that it holds on to nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.shards.encode import Encoding
from data_prep.stream.paths import batches
from data_prep.stream.tokens import stream_tokens
from tests.fakes.tiny_encoder import tiny_encoder


@pytest.fixture
def encoding(tmp_path: Path) -> Encoding:
    return Encoding(open_encoder(EncoderSettings(encoder=str(tiny_encoder(tmp_path)))))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_it_reads_ahead_by_two_batches_a_worker(encoding: Encoding, tmp_path: Path, workers: int):
    """However many images there are: those that were asked for, less those that were answered."""
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(picture)
    asked = answered = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        for _ in range(400):
            asked += 1
            yield picture

    kept = []
    for names, tokens in stream_tokens(encoding, batches(endless(), 5), workers=workers):
        answered += len(names)
        kept.append(weakref.ref(tokens))
        # Two batches a worker wait or are made; one more is what was just answered.
        assert asked - answered <= 5 * (2 * workers + 1)
        del tokens
    assert (asked, answered) == (400, 400)
    gc.collect()
    assert not any(each() is not None for each in kept[:-1])


def test_the_same_picture_has_the_same_token_under_any_name(encoding: Encoding, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray(pixels[::-1]).save(tmp_path / "c.png")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    ((_, tokens),) = stream_tokens(encoding, [paths])
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert np.abs(tokens[0] - tokens[2]).max() > 1e-3


def test_what_cannot_be_streamed(encoding: Encoding, tmp_path: Path):
    with pytest.raises(PrepError, match="The choice on error 'x' is unknown"):
        next(stream_tokens(encoding, [], on_error="x"))
    fixed = Encoding(encoding.encoder, mask_kind="fixed")
    with pytest.raises(PrepError, match="3 views of the fixed mask"):
        next(stream_tokens(fixed, [], views=3))
    told: list[str] = []
    missing = [[tmp_path / "none.png"], [tmp_path / "no\0name"]]
    assert list(stream_tokens(encoding, missing, on_error="skip", tell=told.append)) == []
    assert len(told) == 2
    assert all("cannot be read as an image" in sentence for sentence in told)
