"""A module becomes as narrow as what was sent, and stays itself."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import nn

from benchmarks.zoo import LowRank
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.fit import FitError, fit
from flower_ist.modules.narrow_attention import NarrowAttention
from flower_ist.strategies.slice_message import slice_message
from flower_ist.submodels.axes import mlp_axes
from flower_ist.submodels.cut import Cut


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def message_of(model, axes, neurons):
    weights = {n: t.detach().numpy() for n, t in model.state_dict().items() if n in axes.shapes}
    return slice_message(weights, Cut(axes, neurons), 1, ConfigRecord({"lr": 0.1}))


def test_a_slice_by_hand():
    """Neurons 1 and 6 of 8: the incoming rows as they are, the outgoing columns times 4."""
    whole = mlp()
    axes = mlp_axes({n: tuple(t.shape) for n, t in whole.state_dict().items()})
    message = message_of(whole, axes, {"h1": np.array([1, 6])})
    model = fit(mlp(), message)
    assert (model[0].out_features, model[2].in_features) == (2, 2)
    assert torch.equal(model[0].weight, whole[0].weight[[1, 6]])
    assert torch.equal(model[2].weight, 4 * whole[2].weight[:, [1, 6]])
    assert ArrayRecord(model.state_dict()).keys() == message.content["arrays"].keys()


def test_a_step_of_sgd_is_as_long_as_in_the_whole_net():
    """On the model's scale, for the same inputs and the same gradient of the logits."""
    whole = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        whole[0].bias.fill_(5.0)  # all neurons speak
    axes = mlp_axes({n: tuple(t.shape) for n, t in whole.state_dict().items()})
    cut = Cut(axes, {"h1": np.array([0, 1])})
    small = fit(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        message_of(whole, axes, cut.indices),
    )
    x, direction = torch.randn(5, 3), torch.randn(5, 2)
    (whole(x) * direction).sum().backward()
    (small(x) * direction).sum().backward()
    for name, parameter in small.named_parameters():
        step = parameter.grad.numpy() / cut.factor(name)
        expected = cut.part(name, whole.get_parameter(name).grad.numpy())
        np.testing.assert_allclose(step, expected, rtol=1e-5, atol=1e-6)


def test_balanced_axes_need_no_help():
    """The same with the factor on both sides of a neuron: no gradient is touched."""
    whole = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    axes = derive_axes(whole, torch.randn(2, 3), widths=["0"])
    cut = Cut(axes, {"0": np.array([0, 5])})
    assert {n: round(float(f), 6) for n, f in cut.factors().items()} == {
        "0.weight": 2.0,
        "0.bias": 2.0,
        "2.weight": 2.0,
    }
    state = cut.take({n: t.detach().numpy() for n, t in whole.state_dict().items()})
    small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))  # the user's own, no fit
    small.load_state_dict({n: torch.tensor(t) for n, t in state.items()})
    x, direction = torch.randn(5, 3), torch.randn(5, 2)
    (whole(x) * direction).sum().backward()
    (small(x) * direction).sum().backward()
    for name, parameter in small.named_parameters():
        step = parameter.grad.numpy() / cut.factor(name)
        expected = cut.part(name, whole.get_parameter(name).grad.numpy())
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_stay_and_are_not_sent_back():
    model = nn.Sequential(LowRank(nn.Linear(6, 5), 4), nn.ReLU(), nn.Linear(5, 2))
    state = {n: t for n, t in model.state_dict().items() if "base" not in n}
    state |= {"0.a": state["0.a"][:1], "0.b": state["0.b"][:, :1]}
    fitted = fit(model, state)
    assert fitted.state_dict().keys() == state.keys()
    assert fitted[0].scaling == 4.0  # alpha / the whole rank
    assert fitted(torch.randn(2, 6)).shape == (2, 2)


def test_bfloat16_goes_back_as_float32():
    model = fit(mlp().bfloat16(), mlp().state_dict())
    assert model[0].weight.dtype == torch.bfloat16
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    ArrayRecord(model.state_dict())


def test_tied_weights_stay_tied():
    def tied():
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
        model[2].weight = model[0].weight
        return model

    small = {n: torch.ones(2, 2) for n in ("0.weight", "2.weight")}
    model = fit(tied(), small)
    assert model[0].weight is model[2].weight
    assert len(list(model.parameters())) == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kdim", [None, 12])
def test_attention_with_all_of_its_heads_is_torchs(masked, batch_first, kdim):
    torch.manual_seed(1)
    whole = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kdim, vdim=kdim)
    query = torch.randn(3, 3, 8)
    key = torch.randn(3, 3, kdim or 8)
    masks = {}
    if masked:
        masks = {
            "attn_mask": torch.triu(torch.ones(3, 3, dtype=torch.bool), 1),
            "key_padding_mask": torch.tensor([[False, False, True]] * 3),
        }
    expected, weights = whole(query, key, key, **masks)
    whole.__class__ = NarrowAttention
    found, found_weights = whole(query, key, key, **masks)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_weights, weights)
    unbatched, _ = whole(query[0], key[0], key[0])
    assert unbatched.shape == (3, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), "'0.bias' of Sequential was not sent"),
        (lambda s: s.update(x=torch.ones(1)), "'x' was sent, but Sequential has no such tensor"),
        (lambda s: s.update({"0.bias": torch.ones(9)}), r"sent as \[9\], which is no part of"),
        (lambda s: s.update({"0.bias": torch.ones(1, 2)}), r"sent as \[1, 2\], which is no part"),
    ],
)
def test_what_is_no_slice_of_the_module(change, message):
    state = mlp().state_dict()
    change(state)
    with pytest.raises(FitError, match=message):
        fit(mlp(), state)


def test_a_message_of_two_records():
    record = ArrayRecord(mlp().state_dict())
    message = Message(RecordDict({"a": record, "b": record}), 1, "train")
    with pytest.raises(FitError, match="has 2 ArrayRecords"):
        fit(mlp(), message)
