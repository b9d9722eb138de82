"""What a view does to the widths of a tensor: axes that are merged, and axes that are split.

A merged axis that ends in uncut entries has larger blocks: (channels, 5, 5) -> 25 entries a
channel. One that begins with uncut entries repeats its widths: (2, channels) -> channels twice.

An axis that is split in two is ambiguous. Of 3 x 4 x 16 entries, ``(heads, dim)`` means that each
run of 16 is one neuron, and ``(3, heads x dim)`` that there are three parts whose neurons belong
together, as in a fused q, k and v. Blocks are the first guess. When a later operation picks single
entries of such an axis, or sums over it, the guess was wrong, and the network is read again with
that view in ``by_parts``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from flower_ist.modules.widths import Runs, Widths, is_uncut, length_of, resolve, uncut

# A merged axis is not repeated more often: so many images or tokens are no sensible example.
_MOST_REPEATS = 64


def view(
    widths: Widths,
    axes: Sequence[Runs],
    shape: Sequence[int],
    *,
    node: object = None,
    by_parts: bool = False,
) -> list[tuple[Runs, list[int]]]:
    """Return the axes of a tensor after a view, each with the old axes that it is made of.

    Args:
        widths: what is learned of the widths.
        axes: the runs of each axis before.
        shape: the lengths after.
        node: the view, which a wrong guess is traced to.
        by_parts: an ambiguous axis is split in parts, not in blocks.
    """
    lengths = [length_of(runs) for runs in axes]
    found: list[tuple[Runs, list[int]]] = []
    i = j = 0
    while i < len(axes) or j < len(shape):
        first, new = i, j
        left = lengths[i] if i < len(axes) else 1
        right = shape[j] if j < len(shape) else 1
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= lengths[i]
                i += 1
            else:
                right *= shape[j]
                j += 1
        old = list(range(first, min(i, len(axes))))
        merged = _merge(widths, [axes[axis] for axis in old])
        found += [(runs, old) for runs in _split(widths, merged, shape[new:j], node, by_parts)]
    return found


def _merge(widths: Widths, axes: Sequence[Runs]) -> Runs:
    """Return one axis in the place of several."""
    if not axes:
        return uncut(1)
    *outer_axes, inner = axes
    for outer in reversed(outer_axes):
        repeats = length_of(outer)
        if not is_uncut(inner) and is_uncut(outer) and repeats <= _MOST_REPEATS:
            inner = resolve(inner) * repeats
            continue
        if not is_uncut(inner):
            inner = widths.keep_whole(inner, "merged with another axis")
        length = length_of(inner)
        inner = [(width, block * length) for width, block in resolve(outer)]
    return inner


def _split(
    widths: Widths, runs: Runs, lengths: Sequence[int], node: object, by_parts: bool
) -> list[Runs]:
    """Return several axes in the place of one."""
    if len(lengths) < 2:
        return [runs][: len(lengths)]
    first, rest = lengths[0], math.prod(lengths[1:])
    runs = resolve(runs)
    if is_uncut(runs):
        return [uncut(length) for length in lengths]
    if first == 1:
        return [uncut(1), *_split(widths, runs, lengths[1:], node, by_parts)]
    if not by_parts:
        runs = _in_blocks(widths, runs, rest, node)
    if all(block % rest == 0 for _, block in runs):
        outer: Runs = [(width, block // rest) for width, block in runs]
        return [outer, *(uncut(length) for length in lengths[1:])]
    part = widths.divide_equally(runs, first)[0]
    return [uncut(first), *_split(widths, part, lengths[1:], node, by_parts=False)]


def _in_blocks(widths: Widths, runs: Runs, rest: int, node: object) -> Runs:
    """Make each run of ``rest`` entries one neuron, where more than one of them is left."""
    for width, block in runs:
        if width is None or width.into is not None or block % rest == 0:
            continue
        count, left_over = divmod(width.count * block, rest)
        if count > 1 and not left_over and width.count % count == 0:
            widths.coarsen(width, count).view = node
    return resolve(runs)
