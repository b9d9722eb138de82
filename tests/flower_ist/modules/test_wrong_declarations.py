"""Declarations that are wrong, and train without a complaint: each is refused by the proof."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.zoo import TextClassifier
from flower_ist.modules.adapters import adapter
from flower_ist.modules.prove import ProofError, prove
from flower_ist.submodels.axes import Axes, mlp_axes
from tests.fakes.layered import Net


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def images(channels=3, size=8):
    return torch.randn(2, channels, size, size)


def conv_net(norm, channels=16):
    return Net(
        lambda s, x: s.c2(F.relu(s.n(s.c1(x)))).mean((2, 3)),
        c1=nn.Conv2d(3, channels, 3, padding=1),
        n=norm,
        c2=nn.Conv2d(channels, 10, 1),
    )


CONV = {
    "c1.weight": ("c", None, None, None),
    "c1.bias": ("c",),
    "c2.weight": (None, "c", None, None),
}
NORM = {"n.weight": ("c",), "n.bias": ("c",)}
STATISTICS = {"n.running_mean": ("c",), "n.running_var": ("c",)}
MLP = {"a.weight": ("h", None), "a.bias": ("h",), "b.weight": (None, "h")}


def mlp(forward, hidden=16, **layers):
    return Net(forward, **{"a": nn.Linear(12, hidden), "b": nn.Linear(hidden, 10), **layers})


class OwnAttention(nn.Module):
    """Attention with a fused projection, as a user might write it."""

    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, 5)
        self.heads = heads

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(self.proj(x)).mean(1)


@adapter(OwnAttention)
def fit_own_attention(module, whole):
    module.heads = module.heads * module.proj.in_features // whole["proj.weight"][1]


def recurrent(kind):
    model = TextClassifier(kind, dim=16, hidden=16)
    labels = {f"rnn.{n}_{k}_l0": ("h",) for n in ("bias",) for k in ("ih", "hh")}
    labels |= {"rnn.weight_ih_l0": ("h", None), "rnn.weight_hh_l0": ("h", "h")}
    return model, torch.randint(0, 40, (3, 7)), {**labels, "fc.weight": (None, "h")}


class OwnRank(nn.Module):
    """A low-rank layer whose scale is alpha / the rank that it finds."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(8, 12))
        self.b = nn.Parameter(torch.randn(10, 8))

    def forward(self, x):
        return x @ self.a.T @ self.b.T * (16.0 / len(self.a))


class Up(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)

    def forward(self, x):
        return self.up(F.relu(self.c1(x))).mean((2, 3))


def vectors():
    return torch.randn(4, 12)


def residual(s, x):
    hidden = F.relu(s.a(x))
    return s.b(hidden + F.relu(s.m(hidden)))


def wrong():
    """(name, model, example, labels and more for Axes.declare, or None for mlp_axes)."""
    tokens = torch.randn(2, 5, 32)
    fused = {"qkv.weight": ("n", None), "qkv.bias": ("n",), "proj.weight": (None, "n")}
    parts = {
        "qkv.weight": (("n",) * 3, None),
        "qkv.bias": (("n",) * 3,),
        "proj.weight": (None, "n"),
    }
    yield "fused qkv as one part", OwnAttention(), tokens, (fused, None, {"n": 4})
    yield "half heads as neurons", OwnAttention(), tokens, (parts, None, {"n": 8})
    yield (
        "only q and k of three",
        OwnAttention(),
        tokens,
        ({**parts, "qkv.weight": ((("n", 8), ("n", 8), (None, 32)), None)}, None, {"n": 4}),
    )
    for kind in ("LSTM", "GRU"):
        model, x, labels = recurrent(kind)
        yield f"{kind} gates as blocks", model, x, (labels,)
    model, x, labels = recurrent("RNN")
    del labels["rnn.bias_hh_l0"]
    yield "a bias of an RNN forgotten", model, x, (labels,)
    words = torch.randint(0, 16, (3, 7))
    looked_up = {"embedding.weight": (None, "e"), "fc.weight": (None, "e")}
    yield "an embedding that is summed", TextClassifier(words=16), words, (looked_up,)
    yield (
        "rows of an embedding",
        TextClassifier(words=16, dim=16),
        words,
        ({"embedding.weight": ("e", None), "fc.weight": (None, "e")},),
    )
    ups = {
        "c1.weight": ("a", None, None, None),
        "c1.bias": ("a",),
        "up.weight": ("a",) + 3 * (None,),
    }
    yield "a transposed convolution out first", Up(), images(), (ups,)
    yield (
        "alpha / r with the slice's r",
        OwnRank(),
        vectors(),
        ({"a": ("r", None), "b": (None, "r")},),
    )
    yield (
        "glu halves as blocks",
        mlp(lambda s, x: s.b(F.glu(s.a(x))), a=nn.Linear(12, 32)),
        vectors(),
        (MLP,),
    )
    yield (
        "a concatenation as blocks",
        Net(
            lambda s, x: s.o(torch.cat([F.relu(s.a(x)), F.relu(s.b(x))], 1)),
            a=nn.Linear(12, 8),
            b=nn.Linear(12, 8),
            o=nn.Linear(16, 5),
        ),
        vectors(),
        (
            {
                "a.weight": ("h", None),
                "a.bias": ("h",),
                "b.weight": ("h", None),
                "b.bias": ("h",),
                "o.weight": (None, "h"),
            },
        ),
    )
    yield (
        "channels of a grouped convolution",
        Net(
            lambda s, x: s.c3(F.relu(s.c2(F.relu(s.c1(x))))).mean((2, 3)),
            c1=nn.Conv2d(3, 16, 1),
            c2=nn.Conv2d(16, 24, 3, groups=4),
            c3=nn.Conv2d(24, 10, 1),
        ),
        images(),
        (
            {
                "c1.weight": ("i",) + 3 * (None,),
                "c1.bias": ("i",),
                "c2.weight": (None, ("i",), None, None),
            },
        ),
    )
    yield "channels of a GroupNorm", conv_net(nn.GroupNorm(4, 16)), images(), ({**CONV, **NORM},)
    yield "GroupNorm of one group", conv_net(nn.GroupNorm(1, 16)), images(), ({**CONV, **NORM},)
    yield (
        "statistics of a BatchNorm forgotten",
        conv_net(nn.BatchNorm2d(16)),
        images(),
        ({**CONV, **NORM},),
    )
    yield (
        "scale of a BatchNorm forgotten",
        conv_net(nn.BatchNorm2d(16)),
        images(),
        ({**CONV, **STATISTICS},),
    )
    yield (
        "LayerNorm",
        mlp(lambda s, x: s.b(F.relu(s.n(s.a(x)))), n=nn.LayerNorm(16)),
        vectors(),
        ({**MLP, "n.weight": ("h",), "n.bias": ("h",)},),
    )
    yield (
        "softmax over the hidden layer",
        mlp(lambda s, x: s.b(s.a(x).softmax(1))),
        vectors(),
        (MLP,),
    )
    yield (
        "mean over the hidden layer",
        mlp(lambda s, x: s.b(F.relu(s.a(x) - s.a(x).mean(1, keepdim=True)))),
        vectors(),
        (MLP,),
    )
    yield (
        "a bias forgotten",
        mlp(lambda s, x: s.b(F.relu(s.a(x)))),
        vectors(),
        ({"a.weight": ("h", None), "b.weight": (None, "h")},),
    )
    yield (
        "weight_norm on a cut input",
        mlp(
            lambda s, x: s.b(F.relu(s.a(x))),
            b=nn.utils.parametrizations.weight_norm(nn.Linear(16, 10)),
        ),
        vectors(),
        (
            {
                "a.weight": ("h", None),
                "a.bias": ("h",),
                "b.parametrizations.weight.original1": (None, "h"),
            },
        ),
    )
    yield (
        "two names on a residual stream",
        mlp(residual, m=nn.Linear(16, 16)),
        vectors(),
        (
            {
                "a.weight": ("h1", None),
                "a.bias": ("h1",),
                "m.weight": ("h2", "h1"),
                "m.bias": ("h2",),
                "b.weight": (None, "h2"),
            },
        ),
    )
    yield (
        "channels last before a linear layer",
        Net(
            lambda s, x: s.f(F.relu(s.c(x)).permute(0, 2, 3, 1).flatten(1)),
            c=nn.Conv2d(3, 8, 1),
            f=nn.Linear(8 * 64, 10),
        ),
        images(),
        ({"c.weight": ("c",) + 3 * (None,), "c.bias": ("c",), "f.weight": (None, "c")},),
    )
    yield (
        "a tied autoencoder",
        Net(lambda s, x: F.linear(F.relu(s.a(x)), s.a.weight.T), a=nn.Linear(12, 16)),
        vectors(),
        ({"a.weight": ("h", None), "a.bias": ("h",)},),
    )
    # What mlp_axes takes for a chain of layers.
    yield (
        "an RNN as an MLP",
        Net(
            lambda s, x: s.fc(s.rnn(x)[0][:, -1]),
            rnn=nn.RNN(16, 16, batch_first=True),
            fc=nn.Linear(16, 5),
        ),
        torch.randn(3, 7, 16),
        None,
    )
    yield (
        "a residual net as an MLP",
        Net(residual, a=nn.Linear(12, 16), m=nn.Linear(16, 16), b=nn.Linear(16, 5)),
        vectors(),
        None,
    )
    yield (
        "branches as an MLP",
        Net(
            lambda s, x: s.o(F.relu(s.p(x))) + s.a(x)[:, :5],
            a=nn.Linear(12, 12),
            p=nn.Linear(12, 16),
            o=nn.Linear(16, 5),
        ),
        vectors(),
        None,
    )
    yield (
        "attention as an MLP",
        Net(
            lambda s, x: s.o(F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x))).mean(1),
            q=nn.Linear(16, 16),
            k=nn.Linear(16, 16),
            v=nn.Linear(16, 16),
            o=nn.Linear(16, 5),
        ),
        torch.randn(3, 7, 16),
        None,
    )


WRONG = {name: rest for name, *rest in wrong()}


def test_there_are_more_than_twenty():
    assert len(WRONG) == 29  # as docs/your-own-model.md says


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_is_refused(name):
    model, example, declared = WRONG[name]
    shapes = shapes_of(model)
    axes = mlp_axes(shapes) if declared is None else Axes.declare(shapes, *declared)
    with pytest.raises(ProofError) as refusal:
        prove(model, axes, example)
    text = str(refusal.value)
    assert re.search(r"[Ww]idth '\w+'|Widths '\w+'", text), text
    assert any(repr(tensor) in text for tensor in shapes) or "Widths" in text, text


RIGHT = {
    "qkv": (OwnAttention(), torch.randn(2, 5, 32), (
        {"qkv.weight": (("n",) * 3, None), "qkv.bias": (("n",) * 3,), "proj.weight": (None, "n")},
        None, {"n": 4},
    )),
    "embedding": (TextClassifier(words=16), torch.randint(0, 16, (3, 7)), (
        {"embedding.weight": (None, "e"), "fc.weight": (None, "e")}, {"embedding.weight": ()},
    )),
    "transposed convolution": (Up(), images(), (
        {"c1.weight": ("a",) + 3 * (None,), "c1.bias": ("a",), "up.weight": ("a",) + 3 * (None,)},
        {"up.weight": (0,)},
    )),
    "GroupNorm by groups": (conv_net(nn.GroupNorm(4, 16)), images(), (
        {**CONV, **NORM}, None, {"c": 4},
    )),
    "BatchNorm": (conv_net(nn.BatchNorm2d(16)), images(), ({**CONV, **NORM, **STATISTICS},)),
    "glu": (mlp(lambda s, x: s.b(F.glu(s.a(x))), a=nn.Linear(12, 32)), vectors(), (
        {**MLP, "a.weight": (("h", "h"), None), "a.bias": (("h", "h"),)},
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_declaration_is_not(name):
    model, example, declared = RIGHT[name]
    training = model.training
    before = {n: t.clone() for n, t in model.state_dict().items()}
    prove(model, Axes.declare(shapes_of(model), *declared), example)
    assert model.training == training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_gates_of_a_recurrent_net_are_parts(kind):
    model, example, labels = recurrent(kind)
    gates = (("h",) * {"LSTM": 4, "GRU": 3}[kind],)
    labels = {n: gates + label[1:] if n.startswith("rnn") else label for n, label in labels.items()}
    prove(model, Axes.declare(shapes_of(model), labels), example)


def test_without_a_scale_the_scale_is_not_proven():
    labels = {"embedding.weight": (None, "e"), "fc.weight": (None, "e")}
    model = TextClassifier(words=16)
    # But the embedding is no outgoing weight either: a slice is not what it should be.
    axes = Axes.declare(shapes_of(model), labels, {"embedding.weight": ()})
    prove(model, axes, torch.randint(0, 16, (3, 7)), scaled=False)


def test_axes_of_another_model():
    axes = mlp_axes({"a.weight": (4, 3), "b.weight": (2, 4)})
    with pytest.raises(ProofError, match=r"not of this module: 'a.weight' is \(4, 3\) there"):
        prove(mlp(lambda s, x: x), axes, vectors())
