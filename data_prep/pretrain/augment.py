"""Random crops and mirror images of a whole batch at once."""

from __future__ import annotations

import torch


def crop_and_flip(
    pixels: torch.Tensor, least_area: float, generator: torch.Generator
) -> torch.Tensor:
    """Crop each image to a random part, scale it back, and mirror every second one or so.

    Args:
        pixels: (B, C, S, S).
        least_area: Least share of the area that a crop keeps, in (0, 1]; a crop's sides have a
            ratio of 3/4 to 4/3, as usual for random resized crops.
        generator: Where chance comes from; on the CPU.

    Returns:
        (B, C, S, S).
    """
    batch = len(pixels)
    area, ratio, x, y, flip = torch.rand(5, batch, generator=generator)
    area = least_area + (1 - least_area) * area
    ratio = torch.exp((2 * ratio - 1) * torch.log(torch.tensor(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    # In grid_sample's coordinates an image spans -1 to 1: the crop's center keeps it inside.
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = torch.where(flip < 0.5, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * x - 1) * (1 - width)
    theta[:, 1, 2] = (2 * y - 1) * (1 - height)
    grid = torch.nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    sampled: torch.Tensor = torch.nn.functional.grid_sample(
        pixels, grid.to(pixels.device), padding_mode="border", align_corners=False
    )
    return sampled
