"""Initial weights that a client makes itself: by hand, for any slice, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord

from flower_ist.classifier.initial import (
    InitialWeights,
    StartError,
    checksum_of,
    neurons_to_bytes,
    start_from,
)
from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.schemes import submodel_scheme
from flower_ist.wire.layout import layout_of
from flower_ist.wire.protocol import LR_SCALES_KEY, NEURONS_KEY


def slice_and_config(dims, cut, kept, *, scheme="ist", seed=3):
    """Return a slice of the initial weights as a strategy cuts it, and its message's config."""
    axes = mlp_axes(mlp_shapes(dims), cut)
    slots = submodel_scheme(scheme).draw(seed, 1, axes.widths, kept)
    found = Cut(axes, slots[0], scaled=submodel_scheme(scheme).scaled)
    config = ConfigRecord(
        {
            LR_SCALES_KEY: json.dumps(found.lr_scales()),
            NEURONS_KEY: neurons_to_bytes(axes.widths, found.indices),
        }
    )
    return found.take(initial_weights(dims, seed)), config


def test_neurons_by_hand():
    """Of ten neurons 0, 3 and 9: 1001 0000, 0100 0000. A width that is whole is not named."""
    indices = {"h1": np.array([0, 3, 9]), "h2": np.arange(4)}
    assert neurons_to_bytes({"h1": 10, "h2": 4}, indices) == bytes([0b10010000, 0b01000000])


@pytest.mark.parametrize("scheme", ["ist", "federated-dropout", "heterofl", "fedrolex"])
@pytest.mark.parametrize(
    ("dims", "cut"),
    [((6, 30, 3), None), ((6, 30, 11, 3), (1,)), ((6, 30, 20, 3), None), ((6, 9, 8, 3), (2,))],
)
def test_both_ends_make_the_same_slice_to_the_bit(scheme, dims, cut):
    part, config = slice_and_config(dims, cut, [0.4, 0.6], scheme=scheme)
    whole = InitialWeights(3, dims)
    found = start_from(whole.to_text(part), layout_of(part), config)
    assert list(found) == list(part)
    for name, tensor in part.items():
        assert found[name].tobytes() == np.ascontiguousarray(tensor).tobytes()


def test_a_whole_net_needs_no_neurons():
    dims = (6, 8, 3)
    weights = initial_weights(dims, 5)
    text = InitialWeights(5, dims).to_text(weights)
    assert text == f"5 6,8,3 {checksum_of(weights):08x}"
    found = start_from(text, layout_of(weights), ConfigRecord())
    assert checksum_of(found) == checksum_of(weights)


def test_another_numpys_numbers_are_noticed():
    weights = initial_weights((6, 8, 3), 5)
    text = InitialWeights(5, (6, 8, 3)).to_text({**weights, "fc1.bias": weights["fc1.bias"] + 1})
    with pytest.raises(StartError, match=r"cannot make the initial weights: numpy .* draws other"):
        start_from(text, layout_of(weights), ConfigRecord())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 6,8,3",
        "x 6,8,3 00000000",
        "-1 6,8,3 00000000",
        "0 6 00000000",
        "0 6,-8,3 00000000",
        "0 6,8,0 00000000",
        "0 6,1048577,3 00000000",
        "0 1048576,1048576,3 00000000",
        "0 6,8,3 zz",
    ],
)
def test_a_text_that_describes_no_net_is_refused_before_anything_is_made(text):
    with pytest.raises(StartError, match="cannot make the initial weights"):
        InitialWeights.from_text(text)


@pytest.mark.parametrize("bits", [b"", b"\xff", b"\xe0\0", b"\xe0\0\0", "text", 3])
def test_neurons_that_do_not_fit_the_tensors_are_refused(bits):
    """Three of ten neurons were sent: b"\\xe0\\0" would be right."""
    part, _ = slice_and_config((6, 10, 3), None, [0.3, 0.7])
    config = ConfigRecord({NEURONS_KEY: bits})
    if bits == b"\xe0\0":
        assert InitialWeights(3, (6, 10, 3)).part(layout_of(part), config).keys() == part.keys()
        return
    with pytest.raises(StartError, match="no slice of that net"):
        InitialWeights(3, (6, 10, 3)).part(layout_of(part), config)
