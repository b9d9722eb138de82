"""Images per second of masked encoding, against the same ViT-B/16 on whole images.

Work that grows with the tokens would give 197 / (kept + 1) times the speed; the target is 0.9 of
that. Attention grows faster than the tokens, so a larger gain is possible; work that does not
shrink (scaling all pixels, adding all positions) reduces it. The weights are random: speed does not
depend on them.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np
import torch
import typer
from timing import in_turns, speed_up

from data_prep.encoders.frozen import FrozenNetwork
from data_prep.encoders.vit import TokenEncoder, build_vit
from data_prep.masks.draw import kept_patches

RATIOS = (0.0, 0.25, 0.5, 0.75, 0.9)
SIZE = 224
WHOLE = "whole"


def main(
    vit: str = "vit_base_patch16_224", batch: int = 8, repeats: int = 3, busy: bool = False
) -> None:
    """Print one table: images a second and speed-up at each mask ratio.

    Args:
        vit: Name of a timm ViT of 224 pixels.
        batch: Images at once.
        repeats: Turns after one to warm up.
        busy: Measure processor time of one thread, for a machine that others use too.
    """
    encoder = TokenEncoder(build_vit(vit, SIZE), "half")
    whole = FrozenNetwork(build_vit(vit, SIZE), "half")
    pixels = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8)
    ids = np.arange(batch)
    kept = {r: kept_patches("random", encoder.grid, r, seed=0, image_ids=ids) for r in RATIOS}
    ways = {str(r): partial(encoder.encode, pixels, kept[r]) for r in RATIOS}
    ways[WHOLE] = partial(whole.run, lambda x: whole.model.forward_features(x)[:, 0], pixels)
    in_turns(ways, 1, busy=busy)
    seconds = in_turns(ways, repeats, busy=busy)

    threads = torch.get_num_threads()
    print(f"{vit} at {SIZE} pixels, batches of {batch}, {threads} threads, median of {repeats}")
    print("| mask ratio | kept | images/s | against whole images | 0.9 x the tokens' ratio |")
    print("|---|---|---|---|---|")
    print(f"| none (timm's own pass) | all | {batch / median(seconds[WHOLE]):.2f} | 1.00 | |")
    tokens = encoder.grid[0] * encoder.grid[1] + 1
    for r in RATIOS:
        left = kept[r].shape[1]
        rate = batch / median(seconds[str(r)])
        gain, asked = speed_up(seconds, str(r), WHOLE), 0.9 * tokens / (left + 1)
        print(f"| {r} | {left} | {rate:.2f} | {gain:.2f} | {asked:.2f} |")


if __name__ == "__main__":
    typer.run(main)
