"""Run configs with what a run knows before its first round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def warm_config(blob_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make configs of quick runs with all of the head start."""
    options = {
        "hidden_width": 16,
        "local_steps": 4,
        "batch_size": 8,
        "standardize": True,
        "replay": True,
        "lda_skip": True,
    }
    return lambda **changes: blob_config(**{**options, **changes})
