"""The net that the settings ask for, and what fits into a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_app.app import app as client_app
from flower_ist.runs.app import run_in_process
from flower_ist.runs.log import read_run
from server_app.app import app as server_app
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
        # No width is left to choose.
        (
            {"strategy": "fedavg", "hidden_layers": 0, "slice_bytes": 9000, "num_slices": 4},
            [384, 10],
            (),
        ),
        ({"strategy": "ridge"}, [384, 10], ()),
        ({"strategy": "lda"}, [384, 10], ()),
        ({"strategy": "ridge-features"}, [768, 10], ()),
    ],
)
def test_widths_by_hand(config_of: MakeConfig, options, dims, cut):
    assert network(config_of(**{"hidden_width": 1024, **options})) == (dims, cut)


def test_a_slice_and_the_narrow_net_fill_the_bytes(config_of: MakeConfig):
    """In int8 n neurons take 384 n + 2 n + 2 n bytes in fc1 and 10 n + 2 x 10 + 2 x 10 in fc2.

    Of 40,000 bytes 2,048 are kept for what else a message holds: 398 n + 40 <= 37,952, n = 95.
    """
    options = {"slice_bytes": 40_000, "num_slices": 8, "wire_dtype": "int8"}
    assert network(config_of(**options))[0] == [384, 8 * 95, 10]
    narrow = network(config_of(strategy="fedavg-narrow", **options))[0]
    assert narrow == [384, 95, 10]
    two = network(config_of(hidden_layers=2, **options))[0]
    assert two[1] == 8 * two[2]
    assert two[2] < 95


@pytest.mark.parametrize("strategy", ["ist", "fedavg-narrow"])
@pytest.mark.parametrize("layers", [1, 2])
def test_no_train_message_is_larger(config_of: MakeConfig, strategy: str, layers: int):
    config = config_of(
        strategy=strategy,
        hidden_layers=layers,
        slice_bytes=6000,
        num_slices=2,
        num_rounds=1,
        wire_dtype="int8",
    )
    run_in_process(server_app, client_app, 2, config)
    line = read_run(Path(config["output-dir"]))[1]
    for client in line["clients"].values():
        assert 0.75 * 6000 < client["wire_bytes_down"] <= 6000
        assert client["wire_bytes_up"] <= 6000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        # (384 + 1 + 10 + 10) numbers of 4 bytes, and 2,048.
        ({"slice_bytes": 2000, "num_slices": 2}, "with one neuron takes 3,668 bytes: set at least"),
        ({"slice_bytes": 9000}, "'num-slices' is 0, but the widths of this net follow from it"),
        ({"hidden_layers": 2}, "'num-slices' is 0, but the widths"),
        ({"strategy": "fedavg-narrow"}, "'num-slices' is 0, but the widths"),
        ({"cut": "some"}, "'cut' is 'some', but must be one of: alternate, all"),
    ],
)
def test_what_cannot_be(config_of: MakeConfig, options, sentence):
    with pytest.raises(SettingsError, match=sentence):
        network(config_of(**options))
