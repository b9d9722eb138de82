"""Settings of a small run, and what an uninterrupted run writes."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.shards.prep import PrepSettings, prep
from tests.fakes.prep_runs import contents
from tests.fakes.tiny_encoder import tiny_encoder


@pytest.fixture
def settings(tmp_path):
    """200 gray images of 8 x 8 in 5 classes; 160 of them train, 4 clients of 40, 10 a chunk."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(200) % 5)
    return PrepSettings(
        source=str(tmp_path / "set.npz"),
        out=tmp_path / "out",
        encoder=str(tiny_encoder(tmp_path)),
        chunk_images=10,
        batch_size=4,
        workers=0,
    )


@pytest.fixture(autouse=True)
def drawn(monkeypatch, request):
    """Drawing a picture takes longer than all else here; one test looks at a real one."""
    if "real_picture" not in request.fixturenames:
        monkeypatch.setattr("data_prep.shards.report.plot_split", lambda report, file: file.touch())


@pytest.fixture
def real_picture():
    """Asked for by a test that wants ``split.png`` to be one."""


@pytest.fixture
def whole(settings, tmp_path):
    """What an uninterrupted run writes."""
    prep(replace(settings, out=tmp_path / "whole"))
    return contents(tmp_path / "whole")
