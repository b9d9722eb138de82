"""Architectures that people use: derived, proven, and trained in slices that are put back."""

import numpy as np
import pytest
import torch

from flower_ist.modules.derive import derive_axes
from flower_ist.modules.fit import fit
from flower_ist.modules.prove import prove
from flower_ist.modules.subject import as_inputs
from flower_ist.submodels.cut import Cut, Returned
from flower_ist.submodels.merging import merge
from flower_ist.submodels.partition import partition
from tests.fakes.axes import labels_of, summed_of
from tests.fakes.zoo import NARROW, torchvision

# By default, and with widths="all": the number of widths that are cut, and the largest share of the
# weights that a slice may hold.
EXPECTED = {
    "quickstart CNN": ((1, 0.30), (4, 0.07)),
    "ResNet-18": ((8, 0.29), (12, 0.08)),
    "MobileNetV3-small": ((11, 0.28), (26, 0.11)),
    "EfficientNet": ((4, 0.30), (11, 0.13)),
    "DenseNet": ((6, 0.48), (17, 0.12)),
    "ShuffleNetV2": ((7, 0.42), (11, 0.12)),
    "ConvNeXt": ((3, 0.55), (3, 0.55)),
    "ViT": ((2, 0.53), (4, 0.30)),
    "Swin": ((4, 0.56), (8, 0.31)),
    "LSTM": ((1, 0.65), (2, 0.10)),
    "GRU": ((1, 0.64), (2, 0.10)),
    "TransformerEncoder": ((2, 0.55), (4, 0.33)),
    "U-Net": ((2, 0.39), (7, 0.08)),
    "LoRA on a ViT": ((4, 0.28), (4, 0.28)),
    "Embedding classifier": ((1, 0.26), (1, 0.26)),
}


@pytest.mark.parametrize("widths", ["inner", "all"])
@pytest.mark.parametrize("name", NARROW)
def test_a_model_is_cut_and_put_back(name, widths):
    torch.manual_seed(0)
    model, example = NARROW[name]()
    axes = derive_axes(model, example, widths=widths)
    count, share = EXPECTED[name][widths == "all"]
    assert len(axes.widths) == count, axes.report()
    slices = partition(0, 1, axes.widths, 4)
    assert all(axes.share({w: len(rows) for w, rows in s.items()}) <= share for s in slices)
    if widths == "inner":  # no two of them meet in one weight
        assert not any(axes.neighbors().values())
    prove(model, axes, example, seed=1)
    # The whole, fitted, is the module itself.
    state = {n: t.numpy() for n, t in model.state_dict().items() if n in axes.shapes}
    inputs = as_inputs(example)
    whole = fit(NARROW[name]()[0].eval(), {n: torch.as_tensor(t) for n, t in state.items()})
    if not axes.frozen:
        with torch.no_grad():
            torch.testing.assert_close(whole(*inputs), model.eval()(*inputs), rtol=0, atol=0)
    # Each slice trains as what it is, and merging what nobody trained changes no bit.
    replies = []
    for part in slices:
        cut = Cut(axes, part)
        sent = cut.take(state)
        small = fit(NARROW[name]()[0], {n: torch.as_tensor(t) for n, t in sent.items()})
        returned = {n: t.numpy().copy() for n, t in small.state_dict().items()}
        assert {n: t.shape for n, t in returned.items()} == cut.shapes()
        replies.append(Returned(cut, returned, 1.0))
        small.train()(*inputs).square().mean().backward()
        trained = [p for p in small.parameters() if p.requires_grad]
        assert trained
        assert all(p.grad is not None and p.grad.shape == p.shape for p in trained)
    merged = {n: t.copy() for n, t in state.items()}
    coverage = merge(merged, replies)
    assert coverage == 1.0 if widths == "inner" else 0 < coverage <= 1
    assert all(np.array_equal(merged[n], state[n]) for n in state)


def test_all_widths_of_a_recurrent_net_are_cut_on_request():
    model, example = NARROW["LSTM"]()
    axes = derive_axes(model, example, widths="all")
    assert labels_of(axes)["rnn.weight_hh_l0"] == (("rnn",) * 4, "rnn")
    assert labels_of(axes)["rnn.weight_ih_l0"] == (("rnn",) * 4, "embedding")
    assert summed_of(axes)["embedding.weight"] == ()


def test_frozen_tensors_stay_on_the_clients():
    model, example = NARROW["LoRA on a ViT"]()
    axes = derive_axes(model, example)
    assert set(axes.frozen) == {n for n, p in model.named_parameters() if not p.requires_grad}
    assert axes.widths["blocks.0.attn.qkv"] == 16  # the rank, not the heads
    assert labels_of(axes)["blocks.0.attn.qkv.b"] == (None, "blocks.0.attn.qkv")


def test_what_cannot_be_fitted_stays_whole_with_the_modules_own_error():
    """Torchvision's Swin takes a head's dimension from the embedding: fewer heads do not fit."""
    model = torchvision.models.SwinTransformer([2, 2], 32, [1, 1], [8, 8], [7, 7], num_classes=10)
    axes = derive_axes(model, torch.randn(2, 3, 28, 28), widths="all")
    assert set(axes.widths) == {"features.1.0.mlp.0", "features.3.0.mlp.0"}
    assert "cannot be computed: RuntimeError: shape" in axes.whole["features.1.0.attn"]
