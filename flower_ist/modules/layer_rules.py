"""Rules of the operations that have weights: layers, normalizations, attention, recurrence."""

from __future__ import annotations

import string

from flower_ist.modules.call import Axes, Axis, Call, NoRule, op_rule, uncut_axes
from flower_ist.modules.widths import fresh, length_of, resolve


@op_rule("linear")
def linear(call: Call) -> Axes:
    """Handle (..., in) x (out, in) -> (..., out)."""
    x, weight = call.axes("input"), call.axes("weight")
    call.contract(x[-1], weight[1])
    if call.has("bias"):
        call.unify(call.axes("bias")[0], weight[0])
    return [*x[:-1], weight[0]]


@op_rule("matmul", "mm", "bmm")
def matmul(call: Call) -> Axes:
    """Handle (..., i, j) x (..., j, k) -> (..., i, k)."""
    one, other = (call.axes(name) for name in call.args)
    if min(len(one), len(other)) < 2:
        raise NoRule(call.name)
    call.contract(one[-1], other[-2])
    return [*broadcast(call, [one[:-2], other[:-2]], call.out[:-2]), one[-2], other[-1]]


@op_rule("addmm", "baddbmm")
def addmm(call: Call) -> Axes:
    """Handle a sum with a product of two matrices."""
    bias, one, other = (call.axes(name) for name in list(call.args)[:3])
    call.contract(one[-1], other[-2])
    product = [*one[:-2], one[-2], other[-1]]
    return broadcast(call, [bias, product], call.out)


@op_rule("einsum")
def einsum(call: Call) -> Axes:
    """Handle two tensors and an equation without an ellipsis."""
    equation = str(call.args["equation"]).replace(" ", "")
    tensors = [call.axes_of(node) for node in call.args["tensors"]]
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if len(tensors) != 2 or set(equation) - set(string.ascii_letters + ",->") or not output:
        raise NoRule(call.name)
    axes = [dict(zip(*pair, strict=True)) for pair in zip(terms, tensors, strict=True)]
    for letter in {**axes[0], **axes[1]}:
        both = [term[letter] for term in axes if letter in term]
        if letter in output:
            call.unify(*both)
        elif len(both) == 2:
            call.contract(*both)
        else:
            call.pick("summed", *both)
    return [(axes[0] | axes[1])[letter] for letter in output]


@op_rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(call: Call) -> Axes:
    """Handle (N, in, ...) x (out, in / groups, ...), or (in, out / groups, ...) if transposed."""
    x, weight = call.axes("input"), call.axes("weight")
    groups, kernel = int(call.args["groups"]), weight[2:]
    places = "places of a convolution"
    call.keep_whole(places, *kernel, *x[2:])
    in_axis, out_axis = (0, 1) if "transpose" in call.name else (1, 0)
    out = weight[out_axis]
    if groups == 1:
        call.contract(x[1], weight[in_axis])
    elif "transpose" in call.name:
        call.keep_whole("a transposed convolution of groups", x[1], weight[0], weight[1])
        out = uncut_axes([call.out[1]])[0]
    elif call.shape("weight")[0] == groups:  # depthwise: a channel in, a channel out
        call.unify(x[1], weight[0])
    else:
        _by_groups(call, x[1], weight[0], groups)
        call.keep_whole("the channels of a group", weight[1])
    if call.has("bias"):
        call.unify(call.axes("bias")[0], out)
    return [x[0], out, *uncut_axes(call.out[2:])]


def _by_groups(call: Call, one: Axis, other: Axis, groups: int) -> None:
    """Make each group of channels one neuron, on both sides."""
    coarse = Axis(fresh(groups))
    for axis in (one, other):
        block = length_of(axis.runs) // groups
        call.widths.unify(axis.runs, [(width, n * block) for width, n in coarse.runs])


@op_rule("batch_norm", "instance_norm")
def batch_norm(call: Call) -> Axes:
    """Handle a normalization of each channel by itself."""
    x = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.has(name):
            call.unify(call.axes(name)[0], x[1])
    if any(axis.origins for axis in x):  # of a weight: its mean is over what a slice lacks
        call.keep_whole("a weight that is standardized", *x[:1], *x[2:])
    return x


@op_rule("layer_norm", "rms_norm")
def layer_norm(call: Call) -> Axes:
    """Handle a normalization over the last axes: a slice would have other statistics."""
    x = call.axes("input")
    last = x[len(x) - len(call.args["normalized_shape"]) :]
    for name in ("weight", "bias"):
        if call.has(name):
            for axis, own in zip(last, call.axes(name), strict=True):
                call.unify(axis, own)
    call.keep_whole("normalized over all of its neurons", *last)
    return x


@op_rule("group_norm")
def group_norm(call: Call) -> Axes:
    """Handle a normalization over groups of channels: a group is a neuron."""
    x, groups = call.axes("input"), int(call.args["num_groups"])
    for name in ("weight", "bias"):
        if call.has(name):
            call.unify(call.axes(name)[0], x[1])
    if groups == 1:
        call.keep_whole("normalized over all of its neurons", x[1])
    elif groups < length_of(x[1].runs):
        _by_groups(call, x[1], x[1], groups)
    return x


@op_rule("_weight_norm")
def weight_norm(call: Call) -> Axes:
    """Handle a weight g v / |v|: the length of v is over all axes but one."""
    v, g, dim = call.axes("v"), call.axes("g"), int(call.args["dim"]) % len(call.axes("v"))
    call.unify(v[dim], g[dim])
    call.keep_whole("inside the norm of a weight, as weight_norm takes it", *v[:dim], *v[dim + 1 :])
    return v


@op_rule("embedding")
def embedding(call: Call) -> Axes:
    """Handle rows that are looked up, not summed."""
    weight = call.axes("weight")
    call.keep_whole("rows that are looked up", weight[0])
    return [*uncut_axes(call.shape("indices")), weight[1]]


_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@op_rule(*_GATES)
def recurrent(call: Call) -> list[Axes]:
    """Handle layers of an LSTM, GRU or RNN; each tensor holds its gates one after the other."""
    x, gates = call.axes("input"), _GATES[call.name]
    if call.args["bidirectional"]:
        raise NoRule(f"bidirectional {call.name}")
    params = [call.axes_of(node) for node in call.args["params"]]
    layers = int(call.args["num_layers"])
    each = len(params) // layers
    if each != (4 if call.args["has_biases"] else 2):
        raise NoRule(f"{call.name} with projections")
    last, layer_widths = x[-1], []
    for first in range(0, len(params), each):
        weight_ih, weight_hh, *biases = params[first : first + each]
        hidden = Axis(fresh(length_of(weight_hh[1].runs)))
        call.contract(last, weight_ih[1])
        call.contract(hidden, weight_hh[1])
        for tensor in (weight_ih, weight_hh, *biases):
            call.unify(tensor[0], Axis(hidden.runs * gates))
        last = hidden
        layer_widths.append(hidden)
    if layers > 1 and any(user.args[1] != 0 and user.users for user in call.node.users):
        call.keep_whole("the states of several layers are read", *layer_widths)
    states = [uncut_axes(shape[:-1]) for shape in call.out[1:]]
    return [[*uncut_axes(call.out[0][:-1]), last], *([*state, last] for state in states)]


@op_rule("scaled_dot_product_attention")
def attention(call: Call) -> Axes:
    """Handle (..., heads, tokens, dim) three times: each head is a neuron, its dim is whole."""
    query, key, value = (call.axes(name) for name in ("query", "key", "value"))
    for q, k, v in zip(query[:-2], key[:-2], value[:-2], strict=True):
        call.unify(k, v)
        repeats = length_of(q.runs) // max(1, length_of(k.runs))
        call.widths.unify(q.runs, [(width, block * repeats) for width, block in resolve(k.runs)])
    call.keep_whole("the dimension of a head", query[-1], key[-1], value[-1])
    call.keep_whole("tokens that attend", query[-2], key[-2], value[-2])
    return [*query[:-1], value[-1]]


def broadcast(call: Call, tensors: list[Axes], shape: list[int]) -> Axes:
    """Return the axes of tensors that are stretched to one shape."""
    found: Axes = []
    for back in range(1, len(shape) + 1):
        length = shape[-back]
        full = [t[-back] for t in tensors if len(t) >= back and length_of(t[-back].runs) == length]
        call.unify(*full)
        origins = frozenset().union(*(axis.origins for axis in full))
        found.insert(0, Axis(full[0].runs, origins))
    return found
