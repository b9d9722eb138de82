"""The net that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from server_app.network import network_of
from server_app.settings import Settings, SettingsError

MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture
def config_of(blob_config: MakeConfig) -> MakeConfig:
    """Make configs with the app's own depth and cut."""
    return lambda **changes: blob_config(**{"hidden_layers": 1, "cut": "alternate", **changes})


def network(config: dict[str, Any], dim: int = 384, num_classes: int = 10) -> tuple[Any, ...]:
    found = network_of(Settings.from_run_config(config), dim, num_classes)
    return found.dims, found.cut


@pytest.mark.parametrize(
    ("options", "dims", "cut"),
    [
        ({}, [384, 1024, 10], (1,)),
        ({"hidden_layers": 2, "num_slices": 4}, [384, 1024, 256, 10], (1,)),
        ({"hidden_layers": 3, "num_slices": 4}, [384, 1024, 256, 1024, 10], (1, 3)),
        ({"hidden_layers": 2, "cut": "all"}, [384, 1024, 1024, 10], (1, 2)),
        ({"strategy": "fedavg"}, [384, 1024, 10], (1,)),
        ({"strategy": "fedavg-narrow", "num_slices": 4}, [384, 256, 10], ()),
        (
            {"strategy": "fedavg-narrow", "num_slices": 4, "hidden_layers": 2},
            [384, 256, 256, 10],
            (),
        ),
        ({"strategy": "fedavg-features"}, [384 + 1024, 10], ()),
        ({"strategy": "fedavg", "hidden_layers": 0}, [384, 10], ()),
        ({"strategy": "ridge"}, [384, 10], ()),
        ({"strategy": "lda"}, [384, 10], ()),
        ({"strategy": "ridge-features"}, [768, 10], ()),
    ],
)
def test_widths_by_hand(config_of: MakeConfig, options, dims, cut):
    assert network(config_of(**{"hidden_width": 1024, **options})) == (dims, cut)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_layers": 2}, "'num-slices' is 0, but the widths of this net follow from it"),
        ({"strategy": "fedavg-narrow"}, "'num-slices' is 0, but the widths"),
        ({"cut": "some"}, "'cut' is 'some', but must be one of: alternate, all"),
    ],
)
def test_what_cannot_be(config_of: MakeConfig, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        network(config_of(**options))
