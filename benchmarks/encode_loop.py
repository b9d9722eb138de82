"""Batched encoding in inference mode, against the paper's loop: one image at a time, autograd on.

Both read the same kept patches with the same network, so only the batching and the graph differ. On
a CPU, a large ViT does the same arithmetic in a loop, and only a small network gains much. A GPU is
idle most of the time in such a loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from timing import in_turns, speed_up

from data_prep.encoders.frozen import FrozenNetwork
from data_prep.encoders.kept import KeptPatches
from data_prep.encoders.vit import TokenEncoder, build_vit
from data_prep.masks.draw import kept_patches

RATIO = 0.5
SMALL = {"patch_size": 4, "embed_dim": 128, "depth": 4, "num_heads": 4}
CASES: tuple[tuple[str, str, int, dict[str, Any], int], ...] = (
    ("ViT-B/16, 224 px", "vit_base_patch16_224", 224, {}, 8),
    ("ViT-S/16, 224 px", "vit_small_patch16_224", 224, {}, 16),
    ("ViT-Ti/16, 96 px", "vit_tiny_patch16_224", 96, {}, 64),
    ("as the embedded one, 28 px", "vit_tiny_patch16_224", 28, SMALL, 256),
)
"""What the table says, timm's name, image size, options, images."""


def main(device: str = "cpu", repeats: int = 3, images: int = 0, busy: bool = False) -> None:
    """Print one table: images a second in both ways, and the speed-up.

    Args:
        device: Where torch runs the encoders.
        repeats: Turns after one to warm up.
        images: Images of every encoder, and of one batch; 0 for a number that suits its size.
        busy: Measure processor time of one thread, for a machine that others use too.
    """
    threads = 1 if busy else torch.get_num_threads()
    print(f"mask ratio {RATIO}, {device}, {threads} threads, median of {repeats}")
    print("| encoder | batch | images/s, loop | images/s, batched | times |")
    print("|---|---|---|---|---|")
    for title, name, size, options, default in CASES:
        count = images or default
        pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        encoder = TokenEncoder(build_vit(name, size, **options), "half", device)
        ids = np.arange(count)
        kept = kept_patches("random", encoder.grid, RATIO, seed=0, image_ids=ids)
        loop = Loop(build_vit(name, size, **options), device)
        if not np.allclose(
            loop.encode(pixels[:4], kept[:4]), encoder.encode(pixels[:4], kept[:4]), atol=1e-2
        ):
            raise SystemExit("The two ways must give the same tokens.")
        ways = {
            "loop": partial(loop.encode, pixels, kept),
            "batched": partial(encoder.encode, pixels, kept),
        }
        in_turns(ways, 1, busy=busy)
        seconds = in_turns(ways, repeats, busy=busy)
        rates = {way: count / float(np.median(seconds[way])) for way in ways}
        gain = speed_up(seconds, "batched", "loop")
        print(
            f"| {title} | {count} | {rates['loop']:.1f} | {rates['batched']:.1f} | {gain:.1f} |",
            flush=True,
        )


class Loop:
    """The paper's way: weights that want gradients, and a pass for every image."""

    def __init__(self, model: Any, device: str) -> None:
        self._gather = KeptPatches(model.num_prefix_tokens)
        model.patch_drop = self._gather
        self._network = FrozenNetwork(model, "half", device)
        model.requires_grad_(True)

    def encode(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the class tokens (B, D) float32 of pixels (B, 3, S, S) uint8."""
        tokens = []
        for image, indices in zip(pixels, kept, strict=True):
            self._gather.kept = torch.from_numpy(indices[None]).to(self._network.device)
            token = self._network.model.forward_features(self._network.scale(image[None]))[:, 0]
            tokens.append(token.detach().cpu().numpy())
        return np.concatenate(tokens)


if __name__ == "__main__":
    typer.run(main)
