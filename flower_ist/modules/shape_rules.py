"""Rules of the operations without weights: entry by entry, and what moves entries about."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from flower_ist.modules.call import Axes, Axis, Call, NoRule, op_rule, uncut_axes
from flower_ist.modules.layer_rules import broadcast
from flower_ist.modules.views import view
from flower_ist.modules.widths import Runs, length_of, resolve, uncut

_ENTRY_BY_ENTRY = """
abs add alias bitwise_not ceil celu clamp clamp_min clamp_max clone contiguous cos detach div
dropout elu eq erf exp expm1 feature_dropout fill float floor ge gelu gt hardshrink hardsigmoid
hardswish hardtanh le leaky_relu lift_fresh_copy log log1p log_sigmoid logical_and logical_not
logical_or lt masked_fill maximum minimum mish mul ne neg ones_like pow prelu_scalar reciprocal
relu relu6 round rsqrt rsub selu sigmoid sign silu sin softplus softshrink softsign sqrt square
sub tanh threshold to _to_copy true_divide where zeros_like
"""


@op_rule(*_ENTRY_BY_ENTRY.split(), *(f"{name}_" for name in _ENTRY_BY_ENTRY.split()))
def entry_by_entry(call: Call) -> Axes:
    """Handle one result for each entry of tensors that are stretched to one shape."""
    tensors = [call.axes_of(node) for node in call.args.values() if isinstance(node, Node)]
    if not tensors:
        raise NoRule(call.name)
    return broadcast(call, tensors, call.out)


@op_rule("type_as")
def type_as(call: Call) -> Axes:
    """Handle another dtype."""
    return call.axes("self")


@op_rule("prelu")
def prelu(call: Call) -> Axes:
    """Handle a slope for each channel, or for all."""
    x, slope = call.axes("self"), call.axes("weight")[0]
    if length_of(slope.runs) > 1:
        call.unify(x[1], slope)
    return x


@op_rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
@op_rule("squeeze_", "unsqueeze_", "view_as")
def reshape(call: Call) -> Axes:
    """Handle whatever keeps the order of the entries."""
    old = call.axes(next(iter(call.args)))
    by_parts = call.node.name in call.by_parts
    new = view(
        call.widths, [axis.runs for axis in old], call.out, node=call.node.name, by_parts=by_parts
    )
    return [Axis(runs, frozenset().union(*(old[i].origins for i in made))) for runs, made in new]


@op_rule("permute", "transpose", "t", "numpy_T", "mT", "swapaxes", "swapdims", "movedim")
@op_rule("transpose_", "t_")
def permute(call: Call) -> Axes:
    """Handle axes in another order."""
    x = call.axes("self")
    order = list(range(len(x)))
    if call.name == "permute":
        order = [axis % len(x) for axis in call.args["dims"]]
    elif call.name == "numpy_T":
        order.reverse()
    elif call.name == "movedim":
        source, target = call.args["source"], call.args["destination"]
        if not isinstance(source, int):
            raise NoRule(call.name)
        order.insert(target % len(x), order.pop(source % len(x)))
    else:
        axes = [v % len(x) for v in call.args.values() if isinstance(v, int)] or [-2, -1]
        if len(x) > 1:
            order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
    return [x[axis] for axis in order]


@op_rule("expand", "expand_as")
def expand(call: Call) -> Axes:
    """Handle an entry that is repeated."""
    x = call.axes("self")
    new = len(call.out) - len(x)
    pairs = zip(x, call.out[new:], strict=True)
    stretched = [a if length_of(a.runs) == n else Axis(uncut(n)) for a, n in pairs]
    return [*uncut_axes(call.out[:new]), *stretched]


@op_rule("repeat_interleave")
def repeat_interleave(call: Call) -> Axes:
    """Handle each entry several times in a row."""
    x, repeats, dim = call.axes("self"), call.args.get("repeats"), call.args.get("dim")
    if not isinstance(repeats, int) or not isinstance(dim, int):
        raise NoRule(call.name)
    runs: Runs = [(width, block * repeats) for width, block in resolve(x[dim].runs)]
    return call.replaced("self", dim, Axis(runs))


@op_rule("cat", "concat", "concatenate")
def cat(call: Call) -> Axes:
    """Handle tensors side by side along one axis."""
    tensors = [call.axes_of(node) for node in call.args["tensors"]]
    dim = int(call.args["dim"]) % len(call.out)
    axes: Axes = []
    for place, along in enumerate(zip(*tensors, strict=True)):
        if place == dim:
            axes.append(Axis([run for axis in along for run in axis.runs]))
        else:
            call.unify(*along)
            axes.append(along[0])
    return axes


@op_rule("stack")
def stack(call: Call) -> Axes:
    """Handle tensors along a new axis."""
    tensors = [call.axes_of(node) for node in call.args["tensors"]]
    for along in zip(*tensors, strict=True):
        call.unify(*along)
    dim = int(call.args["dim"]) % len(call.out)
    return [*tensors[0][:dim], Axis(uncut(len(tensors))), *tensors[0][dim:]]


@op_rule("split", "split_with_sizes", "chunk", "tensor_split")
def split(call: Call) -> list[Axes]:
    """Handle consecutive pieces; those of one length are cut alike, so that they stay that."""
    dim = int(call.args.get("dim", 0)) % len(call.out[0])
    axis = call.axes("self")[dim]
    lengths = [shape[dim] for shape in call.out]
    if len(set(lengths)) == 1:
        pieces = call.widths.divide_equally(axis.runs, len(lengths))
    else:
        pieces = call.widths.divide(axis.runs, lengths)
    return [call.replaced("self", dim, Axis(piece)) for piece in pieces]


@op_rule("glu")
def glu(call: Call) -> Axes:
    """Handle one half times a function of the other."""
    dim = int(call.args["dim"])
    first, _ = call.widths.divide_equally(call.axes("self")[dim].runs, 2)
    return call.replaced("self", dim, Axis(first))


@op_rule("slice", "narrow")
def narrow(call: Call) -> Axes:
    """Handle consecutive entries of one axis."""
    x, dim = call.axes("self"), int(call.args["dim"]) % len(call.out)
    length, taken = length_of(x[dim].runs), call.out[dim]
    if length == taken:
        return x
    if call.args.get("step", 1) != 1 or not isinstance(call.args["start"] or 0, int):
        call.pick("some of its entries are picked", x[dim])
        return call.replaced("self", dim, Axis(uncut(taken)))
    start = (call.args["start"] or 0) % length
    if length == 2 * taken and start in (0, taken):  # two halves, as chunk makes them
        pieces = call.widths.divide_equally(x[dim].runs, 2)
        return call.replaced("self", dim, Axis(pieces[start // taken]))
    piece = call.widths.divide(x[dim].runs, [start, taken, length - start - taken])[1]
    return call.replaced("self", dim, Axis(piece))


@op_rule("select", "unbind")
def pick(call: Call) -> Any:
    """Handle single entries of one axis."""
    x = call.axes("self")
    dim = int(call.args.get("dim", 0)) % len(x)
    call.pick("its entries are picked one by one", x[dim])
    rest = [*x[:dim], *x[dim + 1 :]]
    return rest if call.name == "select" else [rest for _ in call.out]


@op_rule("index")
def index(call: Call) -> Axes:
    """Handle entries of one axis that are looked up."""
    x, indices = call.axes("self"), call.args["indices"]
    places = [place for place, given in enumerate(indices) if given is not None]
    if len(places) != 1:
        raise NoRule(call.name)
    at = places[0]
    call.pick("its entries are looked up", x[at])
    looked_up = len(call.out) - len(x) + 1
    return [*x[:at], *uncut_axes(call.out[at : at + looked_up]), *x[at + 1 :]]


@op_rule("mean", "sum", "amax", "amin", "var", "std", "any", "all", "linalg_vector_norm")
def reduce(call: Call) -> Axes:
    """Handle one value in the place of all entries of some axes."""
    x = call.axes("self")
    given = call.args.get("dim")
    dims = range(len(x)) if given is None else [given] if isinstance(given, int) else given
    gone = {dim % len(x) for dim in dims} or set(range(len(x)))
    call.pick("averaged over", *(x[dim] for dim in gone))
    kept = call.args.get("keepdim", False)
    axes = [Axis(uncut(1)) if dim in gone else axis for dim, axis in enumerate(x)]
    return axes if kept else [axis for dim, axis in enumerate(axes) if dim not in gone]


@op_rule("softmax", "_softmax", "log_softmax", "cumsum")
def over_one_axis(call: Call) -> Axes:
    """Handle an axis whose entries depend on each other."""
    x = call.axes("self")
    call.pick("its entries depend on each other, as in softmax", x[int(call.args["dim"])])
    return x


@op_rule("roll", "flip")
def roll(call: Call) -> Axes:
    """Handle axes whose entries change their places."""
    x = call.axes("self")
    call.keep_whole("its entries change their places", *(x[dim] for dim in call.args["dims"]))
    return x


@op_rule("pad", "constant_pad_nd", "repeat")
def lengthen(call: Call) -> Axes:
    """Handle axes that become longer."""
    x = call.axes("self")
    new = len(call.out) - len(x)
    axes = uncut_axes(call.out[:new])
    for axis, length in zip(x, call.out[new:], strict=True):
        if length_of(axis.runs) != length:
            call.keep_whole("padded or repeated", axis)
            axis = Axis(uncut(length))
        axes.append(axis)
    return axes


@op_rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d")
@op_rule("max_pool2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d")
@op_rule("upsample_bicubic2d", "adaptive_avg_pool3d", "avg_pool3d", "max_pool3d")
def pool(call: Call) -> Axes:
    """Handle places that change, channel by channel."""
    x = call.axes(next(iter(call.args)))
    places = next(int(letter) for letter in call.name if letter.isdigit())
    call.keep_whole("places", *x[-places:])
    return [*x[:-places], *uncut_axes(call.out[-places:])]


@op_rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Axes:
    """Handle r x r consecutive channels that become places of one, and the other way round."""
    x, factors = call.axes("self"), list(call.args.values())[1] ** 2
    channels = len(x) - 3
    runs = resolve(x[channels].runs)
    if call.name == "pixel_unshuffle":
        new: Runs = [(width, block * factors) for width, block in runs]
    else:
        if len(runs) == 1 and runs[0][0] is not None and runs[0][1] == 1:
            runs = [(call.widths.coarsen(runs[0][0], runs[0][0].count // factors), factors)]
        if any(block % factors for _, block in runs):
            call.keep_whole("a pixel shuffle", x[channels])
            runs = uncut(length_of(runs))
        new = [(width, block // factors) for width, block in runs]
    call.keep_whole("places", *x[channels + 1 :])
    return [*x[:channels], Axis(new), *uncut_axes(call.out[channels + 1 :])]


@op_rule("zeros", "ones", "full", "arange", "empty", "scalar_tensor", "new_zeros", "new_ones")
@op_rule("new_full", "new_empty", "linspace", "eye", "tril", "triu")
def constant(call: Call) -> Axes:
    """Handle a tensor that the model makes: its lengths are written in its code."""
    return uncut_axes(call.out)
