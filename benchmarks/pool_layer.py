"""What a ViT's pooling and its last block bring: test accuracy of a ridge head on masked tokens.

    python benchmarks/pool_layer.py TRAIN [TEST] --encoder NAME --weights FILE --image-size 112

TRAIN and TEST are sources as prep takes them; without TEST, a share of TRAIN is held out. One pass
through the encoder gives the tokens of all poolings and layers: the final norm is applied to the
output of each block that is asked for, as ``--layer`` does. The ridge's strength is chosen on a
fifth of the training tokens. Of a set, the first images of each class are taken.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.encoders.vit import TokenEncoder
from data_prep.images.image_set import ImageSet
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from data_prep.sources.open import read_source, read_train_and_test

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
Tokens = dict[tuple[int, str], NDArray[np.float32]]


def main(
    train: str,
    test: Annotated[str | None, typer.Argument()] = None,
    encoder: str = "vit_small_patch14_dinov2",
    weights: str = "",
    image_size: int = 112,
    mask_ratio: float = 0.5,
    layers: Annotated[str, typer.Option(help="Blocks to run.")] = "8,10,11,12",
    per_class: Annotated[int, typer.Option(help="Training images of each class.")] = 100,
    test_per_class: int = 50,
    device: str = "cpu",
) -> None:
    """Print one table: a row for each number of blocks, a column for each pooling."""
    if test is None:
        learned, held = read_train_and_test(train, None, 0.3, seed=0, workers=1)
        assert held is not None
    else:
        learned, held = read_source(train, workers=1), read_source(test, "test", workers=1)
    settings = EncoderSettings(
        encoder=encoder, weights=weights, image_size=image_size, device=device
    )
    opened = open_encoder(settings)
    if not isinstance(opened, TokenEncoder):
        raise SystemExit("Only a ViT has layers and poolings.")
    blocks = [int(layer) for layer in layers.split(",")]
    parts = [first_of_each(learned, per_class), first_of_each(held, test_per_class)]
    seen, unseen = (tokens_of(opened, part, blocks, mask_ratio) for part in parts)
    print(f"{learned.source}: {len(parts[0])} training and {len(parts[1])} test images, {encoder}")
    print(f"at {image_size} pixels, mask ratio {mask_ratio:g}; accuracy of a ridge head in %")
    print("| blocks | cls | mean | cls+mean |")
    print("|---|---|---|---|")
    for block in blocks:
        cells = []
        for pool in ("cls", "mean", "cls+mean"):
            right = accuracy(
                pooled(seen, block, pool), parts[0].labels, pooled(unseen, block, pool),
                parts[1].labels, len(learned.class_names),
            )  # fmt: skip
            cells.append(f"{100 * right:.1f}")
        print(f"| {block} | {' | '.join(cells)} |", flush=True)


def first_of_each(data: ImageSet, count: int) -> ImageSet:
    """Return the first images of each class."""
    rows = [np.flatnonzero(data.labels == label)[:count] for label in np.unique(data.labels)]
    return data.take(np.sort(np.concatenate(rows)))


def tokens_of(encoder: TokenEncoder, data: ImageSet, blocks: list[int], ratio: float) -> Tokens:
    """Return (N, D) tokens by block and pooling, ``cls`` or ``mean``."""
    network: Any = encoder._network
    model, outputs = network.model, dict[int, torch.Tensor]()
    hooks = [
        model.blocks[block - 1].register_forward_hook(
            lambda module, given, output, block=block: outputs.__setitem__(block, output)
        )
        for block in blocks
    ]
    mask = make_mask("random", ratio, 0, encoder.grid[0] * encoder.grid[1])
    found: dict[tuple[int, str], list[NDArray[np.float32]]] = {}
    for start in range(0, len(data), 32):
        part = data.take(np.arange(start, min(start + 32, len(data))))
        pixels = part.network_input(encoder.record.image_size)
        encoder.encode(pixels, draw_mask(mask, part.image_ids))
        with torch.inference_mode():
            for block in blocks:
                normed = model.norm(outputs[block])
                means = normed[:, model.num_prefix_tokens :].mean(1)
                for pool, token in (("cls", normed[:, 0]), ("mean", means)):
                    array = model.fc_norm(token).float().cpu().numpy()
                    found.setdefault((block, pool), []).append(array)
    for hook in hooks:
        hook.remove()
    return {key: np.concatenate(arrays) for key, arrays in found.items()}


def pooled(tokens: Tokens, block: int, pool: str) -> NDArray[np.float32]:
    """Return the tokens of a pooling, of which ``cls+mean`` is two side by side."""
    return np.concatenate([tokens[block, name] for name in pool.split("+")], axis=1)


def accuracy(
    seen: NDArray[np.float32],
    labels: NDArray[np.int64],
    unseen: NDArray[np.float32],
    answers: NDArray[np.int64],
    classes: int,
) -> float:
    """Return the test accuracy of a ridge head whose strength a fifth of the training chooses."""
    middle, scale = seen.mean(0), seen.std(0) + 1e-6
    x, y = (seen - middle) / scale, (unseen - middle) / scale
    last = np.random.default_rng(0).permutation(len(x)) < len(x) // 5

    def fit(rows: NDArray[np.bool_], strength: float) -> NDArray[np.float64]:
        chosen = np.c_[x[rows], np.ones(rows.sum())].astype(np.float64)
        gram = chosen.T @ chosen + strength * len(chosen) * np.eye(chosen.shape[1])
        return np.linalg.solve(gram, chosen.T @ np.eye(classes)[labels[rows]])

    def right(head: NDArray[np.float64], tokens: NDArray[Any], truth: NDArray[np.int64]) -> float:
        scores = np.c_[tokens, np.ones(len(tokens))] @ head
        return float((scores.argmax(1) == truth).mean())

    best = max(STRENGTHS, key=lambda s: right(fit(~last, s), x[last], labels[last]))
    return right(fit(np.ones(len(x), bool), best), y, answers)


if __name__ == "__main__":
    typer.run(main)
