"""A run on pictures, made once."""

from __future__ import annotations

import pytest

from tests.fakes.pictures import PictureRun, picture_run


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> PictureRun:
    """60 pictures of three colors, two clients' shards of them, and a model of these."""
    return picture_run(tmp_path_factory.mktemp("colors"))
