"""A linear probe: how well a linear model tells the classes apart from frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.images.pixels import masked_pixels
from data_prep.masks.draw import draw_mask, square_grid
from data_prep.splits.rows import hold_out
from flower_ist.tokens.shard import TokenShard

L2_CHOICES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT_SHARE = 0.2
Features = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured. Accuracies are shares of 1."""

    test_accuracy: float
    held_out_accuracy: float
    l2: float
    train_examples: int
    test_examples: int
    dim: int


def linear_probe(train: Features, test: Features, classes: int) -> ProbeResult:
    """Fit multinomial logistic regression and return its accuracy on ``test``.

    Features are standardized by the training set. The L2 weight is the one of ``L2_CHOICES`` that
    does best on a held-out fifth of the training set; the test set takes no part in any choice.
    The fit is convex, starts at zero and runs in float64, so it needs no seed.

    Args:
        train: Features (N, D) and labels (N,).
        test: Features (M, D) and labels (M,).
        classes: Number of classes C.

    Raises:
        PrepError: the two sets differ in width or are too small.
    """
    if train[0].shape[1] != test[0].shape[1]:
        raise PrepError(
            f"Training features are {train[0].shape[1]} wide, test features {test[0].shape[1]}."
        )
    fit_rows, held_rows = hold_out(len(train[1]), HELD_OUT_SHARE, seed=0)
    fit, held = ((train[0][rows], train[1][rows]) for rows in (fit_rows, held_rows))
    scores = {l2: _fit_and_score(fit, held, classes, l2) for l2 in L2_CHOICES}
    # Of equal scores the stronger penalty wins: max keeps the first it meets.
    best = max(reversed(L2_CHOICES), key=scores.__getitem__)
    return ProbeResult(
        test_accuracy=_fit_and_score(train, test, classes, best),
        held_out_accuracy=scores[best],
        l2=best,
        train_examples=len(train[1]),
        test_examples=len(test[1]),
        dim=train[0].shape[1],
    )


def token_features(shards: Sequence[TokenShard]) -> Features:
    """Return all tokens (N, D) float32 and labels (N,) of some shards, one after the other."""
    parts = [shard.batch(slice(None)) for shard in shards]
    widths = {tokens.shape[1] for tokens, _ in parts}
    if len(widths) != 1:
        raise PrepError(f"The shards' tokens differ in width: {sorted(widths)}.")
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def pixel_features(shards: Sequence[TokenShard], data: ImageSet) -> Features:
    """Return the shards' images as masked native pixels (N, H*W*C) float32 in [0, 1].

    The masks are drawn again from each shard's seed and image ids, for each view its own; dropped
    patches are zero. Labels are the shards'.

    Raises:
        PrepError: the source lacks an image of a shard, its class differs, or the images are not
            of one size.
    """
    pixels = []
    for shard in shards:
        mask, grid = shard.meta.mask, square_grid(shard.meta.mask)
        rows = data.find(shard.image_ids, np.array(shard.meta.class_names)[shard.labels])
        # A copy of the images' pixels, also where they are in memory.
        shown = data.take(rows).native_pixels()
        for epoch in range(mask.views):
            view = slice(epoch, None, mask.views)
            kept = draw_mask(mask, shard.image_ids[view], epoch)
            shown[view] = masked_pixels(shown[view], grid, kept)
        pixels.append(shown.reshape(len(rows), -1).astype(np.float32) / 255)
    labels = np.concatenate([shard.labels for shard in shards])
    return np.concatenate(pixels), labels.astype(np.int64)


def _fit_and_score(train: Features, test: Features, classes: int, l2: float) -> float:
    x, y = torch.from_numpy(train[0]).double(), torch.from_numpy(train[1])
    mean, std = x.mean(0), x.std(0, correction=0)
    # A feature that never changes carries nothing: it stays zero instead of dividing by zero.
    scale = torch.where(std > 0, 1 / std, torch.zeros_like(std))
    x = (x - mean) * scale
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y)
        loss = loss + l2 / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        logits = (torch.from_numpy(test[0]).double() - mean) * scale @ weight + bias
        return float((logits.argmax(1) == torch.from_numpy(test[1])).double().mean())
