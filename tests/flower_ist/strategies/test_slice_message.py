"""What a slice's message takes on the wire, against the whole model's, at the paper's widths."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord

from flower_ist.classifier.mlp import initial_weights, mlp_shapes
from flower_ist.grids.packed import Packed
from flower_ist.runs.recorder import full_model_bytes
from flower_ist.strategies.slice_message import slice_message
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut
from flower_ist.submodels.partition import partition
from flower_ist.wire.size import payload_bytes, wire_bytes

DIMS = [768, 1024, 1024, 10]
SETTINGS = {
    "local-steps": 160,
    "batch-size": 64,
    "learning-rate": 5e-4,
    "seed": 0,
    "server-round": 1,
}


@pytest.mark.parametrize("num_slices", [2, 4, 8, 16])
def test_a_slice_takes_its_share_of_the_model_on_the_wire(num_slices):
    """At most 1.005 times the exact share of the weights: 35.81, 14.36, 6.29 and 2.92 %."""
    weights = initial_weights(DIMS, seed=0)
    axes = mlp_axes(mlp_shapes(DIMS))
    whole = full_model_bytes(ArrayRecord({n: Array(w) for n, w in weights.items()}))
    part = partition(0, 1, axes.widths, num_slices)[0]
    sent = slice_message(weights, Cut(axes, part), 5, ConfigRecord(dict(SETTINGS)))
    (message,) = Packed().down([sent])
    share = axes.share({name: len(rows) for name, rows in part.items()})
    assert payload_bytes(message) == round(share * sum(w.nbytes for w in weights.values()))
    assert wire_bytes(message) <= 1.005 * share * whole
    if num_slices == 4:
        assert wire_bytes(message) <= 1.005 * payload_bytes(message)


def test_nothing_in_the_message_depends_on_which_neurons_it_holds():
    """Two slices of one size differ in their weights only: no index is sent."""
    weights = initial_weights(DIMS, seed=0)
    axes = mlp_axes(mlp_shapes(DIMS))
    one, other = Packed().down(
        [
            slice_message(weights, Cut(axes, part), 5, ConfigRecord(dict(SETTINGS)))
            for part in partition(0, 1, axes.widths, 4)[:2]
        ]
    )
    assert one.content["config"] == other.content["config"]
    assert wire_bytes(one) == wire_bytes(other)
    assert not np.array_equal(
        *(m.content.array_records["arrays"]["packed"].data for m in (one, other))
    )
