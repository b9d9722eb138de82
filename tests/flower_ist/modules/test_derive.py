"""What derive_axes says of small modules: widths, parts, reasons, errors."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flower_ist.errors import ArgumentError
from flower_ist.modules.call import RULES, op_rule
from flower_ist.modules.derive import derive_axes
from flower_ist.modules.graph import DeriveError
from flower_ist.modules.prove import ProofError
from flower_ist.strategies.submodel import ISTStrategy
from flower_ist.submodels.axes import Axes
from flower_ist.submodels.check import cautions
from tests.fakes.axes import labels_of
from tests.fakes.layered import Net


def mlp(hidden=(16,), inputs=12):
    sizes = [inputs, *hidden, 10]
    layers = []
    for one, other in pairwise(sizes):
        layers += [nn.Linear(one, other), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def vectors():
    return torch.randn(4, 12)


def images(size=8, channels=3):
    return torch.randn(2, channels, size, size)


def conv(inputs, outputs, kernel=1, **more):
    return nn.Conv2d(inputs, outputs, kernel, **more)


# name -> (module, example, what is cut with widths="all")
MODULES = {
    "GLU": (
        Net(lambda s, x: s.b(F.glu(s.a(x))), a=nn.Linear(12, 32), b=nn.Linear(16, 5)),
        vectors(),
        {"a.weight": (("a", "a"), None), "a.bias": (("a", "a"),), "b.weight": (None, "a")},
    ),
    "chunk": (
        Net(
            lambda s, x: s.b(F.silu(s.a(x).chunk(2, -1)[0]) * s.a(x).chunk(2, -1)[1]),
            a=nn.Linear(12, 32), b=nn.Linear(16, 5),
        ),
        vectors(),
        {"a.weight": (("a", "a"), None), "b.weight": (None, "a")},
    ),
    "concatenation": (
        Net(
            lambda s, x: s.o(torch.cat([F.relu(s.a(x)), x, F.relu(s.b(x))], 1)),
            a=nn.Linear(12, 8), b=nn.Linear(12, 16), o=nn.Linear(36, 5),
        ),
        vectors(),
        {"o.weight": (None, ("a", None, "b"))},
    ),
    "residual": (
        Net(
            lambda s, x: s.o(F.relu(s.a(x)) + F.relu(s.m(F.relu(s.a(x))))),
            a=nn.Linear(12, 16), m=nn.Linear(16, 16), o=nn.Linear(16, 5),
        ),
        vectors(),
        {"m.weight": ("a", "a"), "o.weight": (None, "a")},
    ),
    "depthwise and pointwise": (
        Net(
            lambda s, x: s.c(F.relu(s.b(s.a(x)))).mean((2, 3)),
            a=conv(3, 16), b=conv(16, 16, 3, groups=16), c=conv(16, 10),
        ),
        images(),
        {"b.weight": ("a", None, None, None), "c.weight": (None, "a", None, None)},
    ),
    "groups of channels": (
        Net(
            lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))))).mean((2, 3)),
            a=conv(3, 32), b=conv(32, 64, 3, groups=8), c=conv(64, 10),
        ),
        images(),
        {"a.weight": ("a", None, None, None), "b.weight": ("a", None, None, None),
         "c.weight": (None, "a", None, None)},
    ),
    "flatten": (
        Net(lambda s, x: s.f(F.relu(s.c(x)).flatten(1)), c=conv(3, 8), f=nn.Linear(8 * 64, 5)),
        images(),
        {"c.weight": ("c", None, None, None), "f.weight": (None, "c")},
    ),
    "pixel shuffle": (
        Net(lambda s, x: s.b(F.pixel_shuffle(F.relu(s.a(x)), 2)).mean((2, 3)),
            a=conv(3, 32), b=conv(8, 5)),
        images(),
        {"a.weight": ("a", None, None, None), "b.weight": (None, "a", None, None)},
    ),
    "GroupNorm": (
        Net(lambda s, x: s.b(F.relu(s.n(s.a(x)))).mean((2, 3)),
            a=conv(3, 32), n=nn.GroupNorm(8, 32), b=conv(32, 5)),
        images(),
        {"n.weight": ("a",), "b.weight": (None, "a", None, None)},
    ),
    "InstanceNorm and PReLU": (
        Net(lambda s, x: s.b(s.p(s.n(s.a(x)))).mean((2, 3)),
            a=conv(3, 16), n=nn.InstanceNorm2d(16, affine=True), p=nn.PReLU(16), b=conv(16, 5)),
        images(),
        {"n.weight": ("a",), "p.weight": ("a",), "b.weight": (None, "a", None, None)},
    ),
    "weight_norm on the neurons' own weights": (
        Net(lambda s, x: s.b(F.relu(s.a(x))),
            a=nn.utils.parametrizations.weight_norm(nn.Linear(12, 16)), b=nn.Linear(16, 5)),
        vectors(),
        {"a.parametrizations.weight.original0": ("a", None), "b.weight": (None, "a")},
    ),
    "einsum": (
        Net(lambda s, x: s.o(F.relu(torch.einsum("nd,hd->nh", x, s.a.weight))),
            a=nn.Linear(12, 16, bias=False), o=nn.Linear(16, 5)),
        vectors(),
        {"a.weight": ("a", None), "o.weight": (None, "a")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_what_is_cut(name):
    model, example, labels = MODULES[name]
    axes = derive_axes(model, example, widths="all")
    assert {tensor: labels_of(axes)[tensor] for tensor in labels} == labels


# name -> (module, example, tensor and axis that is whole, why)
WHOLE = {
    "LayerNorm": (
        Net(lambda s, x: s.b(F.relu(s.n(s.a(x)))), a=nn.Linear(12, 16), n=nn.LayerNorm(16),
            b=nn.Linear(16, 5)),
        vectors(), "n.weight[0]", "normalized over all of its neurons",
    ),
    "GroupNorm of one group": (
        Net(lambda s, x: s.b(s.n(s.a(x))).mean((2, 3)), a=conv(3, 16), n=nn.GroupNorm(1, 16),
            b=conv(16, 5)),
        images(), "n.weight[0]", "normalized over all of its neurons",
    ),
    "softmax": (
        Net(lambda s, x: s.b(s.a(x).softmax(1)), a=nn.Linear(12, 16), b=nn.Linear(16, 5)),
        vectors(), "a.weight[0]", "softmax",
    ),
    "weight_norm on the next layer": (
        Net(lambda s, x: s.b(F.relu(s.a(x))), a=nn.Linear(12, 16),
            b=nn.utils.parametrizations.weight_norm(nn.Linear(16, 5))),
        vectors(), "b.parametrizations.weight.original1[1]", "weight_norm",
    ),
    "tied weights": (
        Net(lambda s, x: F.linear(F.relu(s.a(x)), s.a.weight.T), a=nn.Linear(12, 16)),
        vectors(), "a.weight[0]", "used both ways",
    ),
    "an operation without a rule": (
        Net(lambda s, x: s.b(s.a(x).sort(1).values), a=nn.Linear(12, 16), b=nn.Linear(16, 5)),
        vectors(), "a.weight[0]", "no rule for sort",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_stays_whole_and_why(name):
    model, example, tensor, why = WHOLE[name]
    outputs = model(example).shape[1]
    layers = nn.Sequential(nn.Linear(outputs, 16), nn.ReLU(), nn.Linear(16, 3))  # to be cut
    axes = derive_axes(nn.Sequential(model, layers), example, widths="all")
    assert "1.0" in axes.widths
    assert "0.a" not in axes.widths
    assert why in axes.whole[f"0.{tensor}"], axes.report()
    assert why in axes.report()


def test_a_tied_embedding_is_whole():
    model = Net(
        lambda s, x: s.o(F.relu(s.m(s.e(x)))),
        e=nn.Embedding(20, 16),
        m=nn.Linear(16, 16),
        o=nn.Linear(16, 20),
    )
    model.o.weight = model.e.weight
    with pytest.raises(DeriveError, match=r"No width of Net is cut: .*used both ways"):
        derive_axes(model, torch.randint(0, 20, (3, 4)))


def test_every_second_width_of_a_deep_net():
    axes = derive_axes(mlp((64, 64, 64, 64)), vectors())
    assert set(axes.widths) == {"2", "6"} or set(axes.widths) == {"0", "4"}
    assert not cautions(axes, 4)
    deep = derive_axes(mlp((64, 64, 64, 64)), vectors(), widths="all")
    assert len(deep.widths) == 4
    assert "in more than 2 layers in a row slices learn badly" in cautions(deep, 4)[0]
    assert "Warning: 4 widths" in deep.report()


def test_widths_by_name():
    axes = derive_axes(mlp((16, 16)), vectors(), widths=["0"])
    assert axes.widths == {"0": 16}
    with pytest.raises(ArgumentError, match="There is no width 'x': choose of 0, 2"):
        derive_axes(mlp((16, 16)), vectors(), widths=["x"])
    with pytest.raises(ArgumentError, match="no 'outer'"):
        derive_axes(mlp((16, 16)), vectors(), widths="outer")


def test_a_width_with_few_neurons_is_cut_by_name_only():
    with pytest.raises(DeriveError, match="fewer than 4 neurons for each of 4 slices"):
        derive_axes(mlp((12,)), vectors())
    axes = derive_axes(mlp((12,)), vectors(), widths=["0"])
    assert "fewer than 8 neurons of '0' (3)" in cautions(axes, 4)[0]
    with pytest.raises(DeriveError, match="3 neurons are too few for 4 slices"):
        derive_axes(mlp((3,)), vectors(), widths="all")


def test_a_module_that_cannot_be_exported():
    model = Net(lambda s, x: s.a(x) if x.sum() > 0 else x, a=nn.Linear(12, 12))
    with pytest.raises(DeriveError, match=r"torch.export cannot read Net: .* Axes.declare"):
        derive_axes(model, vectors())


def test_a_rule_of_ones_own():
    @op_rule("cdist")
    def cdist(call):
        one, other = call.axes("x1"), call.axes("x2")
        call.keep_whole("a distance over all of its entries", one[-1], other[-1])
        return [*one[:-1], other[-2]]

    try:
        model = Net(
            lambda s, x: s.b(torch.cdist(x, s.a.weight)),
            a=nn.Linear(12, 16, bias=False),
            b=nn.Linear(16, 5),
        )
        assert labels_of(derive_axes(model, vectors()))["a.weight"] == ("a", None)
    finally:
        del RULES["cdist"]


def test_a_strategy_proves_what_was_declared():
    model = mlp()
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    labels = {"0.weight": ("h", None), "0.bias": ("h",), "2.weight": (None, "h")}
    ISTStrategy(Axes.declare(shapes, labels), model=model, example_input=vectors())
    del labels["0.bias"]
    with pytest.raises(ProofError, match=r"Width 'h' of '0\.weight', '2\.weight' is not one width"):
        ISTStrategy(Axes.declare(shapes, labels), model=model, example_input=vectors())
