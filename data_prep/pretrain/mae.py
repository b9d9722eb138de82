"""A masked autoencoder: a ViT that sees few patches and a light decoder that draws the others.

After He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022,
https://arxiv.org/abs/2111.06377, section 3): most patches are dropped, the encoder runs on the rest
only, the decoder gets its output with one learned token in place of each dropped patch, and the
loss is the squared error of the dropped patches' pixels, each patch normalized by its own mean and
standard deviation. The encoder is one of timm's; both networks' positions start as sines and
cosines and, unlike there, are trained.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_prep.encoders.kept import KeptPatches
from data_prep.encoders.timm import Block, VisionTransformer, build_sincos2d_pos_embed
from data_prep.masks.kinds import Grid

_VARIANCE_FLOOR = 1e-6


class MaskedAutoencoder(nn.Module):
    """An encoder, its ``patch_drop`` replaced by a gather, and a decoder of timm's blocks.

    Args:
        encoder: A timm ViT; its ``norm`` is applied before the decoder.
        decoder_dim: Width of the decoder, a multiple of 4 (for the positions).
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of each.
    """

    def __init__(
        self, encoder: VisionTransformer, decoder_dim: int, decoder_depth: int, decoder_heads: int
    ) -> None:
        super().__init__()
        self.grid: Grid = encoder.patch_embed.grid_size
        self.patch_size: int = encoder.patch_embed.patch_size[0]
        self.gather = KeptPatches(encoder.num_prefix_tokens)
        encoder.patch_drop = self.gather  # type: ignore[assignment]
        self.encoder = encoder
        self.prefix: int = encoder.num_prefix_tokens
        self.embed = nn.Linear(encoder.embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.positions = nn.Parameter(_sincos(self.grid, decoder_dim, self.prefix))
        self.blocks = nn.Sequential(
            *[Block(decoder_dim, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)]
        )
        self.norm = nn.LayerNorm(decoder_dim)
        self.draw = nn.Linear(decoder_dim, 3 * self.patch_size**2)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        if encoder.pos_embed is not None:
            prefixed = encoder.pos_embed.shape[1] - self.grid[0] * self.grid[1]
            with torch.no_grad():
                encoder.pos_embed.copy_(_sincos(self.grid, encoder.embed_dim, prefixed))

    def forward(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> torch.Tensor:
        """Return the loss, a 0-d tensor; ``pixels`` (B, 3, S, S) are normalized, kept is (B, k)."""
        drawn = self.reconstruct(pixels, kept)
        target = normalize_patches(patchify(pixels, self.patch_size))
        dropped = torch.ones(target.shape[:2], device=pixels.device)
        dropped.scatter_(1, torch.from_numpy(kept).to(pixels.device), 0)
        return ((drawn.float() - target).square().mean(-1) * dropped).sum() / dropped.sum()

    def reconstruct(self, pixels: torch.Tensor, kept: NDArray[np.int64]) -> torch.Tensor:
        """Return every patch as the decoder draws it, normalized, (B, L, 3 * P * P)."""
        index = torch.from_numpy(kept).to(pixels.device)
        self.gather.kept = index
        seen = self.embed(self.encoder.forward_features(pixels))
        batch, _, width = seen.shape
        patches = self.mask_token.to(seen.dtype).repeat(batch, self.grid[0] * self.grid[1], 1)
        patches = patches.scatter(
            1, index.unsqueeze(-1).expand(-1, -1, width), seen[:, self.prefix :]
        )
        hidden = torch.cat([seen[:, : self.prefix], patches], dim=1) + self.positions
        drawn: torch.Tensor = self.draw(self.norm(self.blocks(hidden)))
        return drawn[:, self.prefix :]


def patchify(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Cut images (B, C, S, S) into patches in row order, (B, L, C * size * size)."""
    batch, channels, height, width = pixels.shape
    cut = pixels.reshape(batch, channels, height // size, size, width // size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size * size)


def unpatchify(patches: torch.Tensor, grid: Grid, size: int) -> torch.Tensor:
    """Put patches (B, L, C * size * size) together again: the inverse of :func:`patchify`."""
    batch, rows, columns = len(patches), *grid
    cut = patches.reshape(batch, rows, columns, -1, size, size)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * size, columns * size)


def normalize_patches(patches: torch.Tensor) -> torch.Tensor:
    """Subtract each patch's mean and divide by its standard deviation, (B, L, N) -> (B, L, N)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _VARIANCE_FLOOR).sqrt()


def _sincos(grid: Grid, dim: int, prefixed: int) -> torch.Tensor:
    """Return (1, prefixed + L, dim): zeros for prefix tokens, then sines and cosines."""
    positions = build_sincos2d_pos_embed(list(grid), dim=dim, interleave_sin_cos=False)
    return torch.cat([torch.zeros(prefixed, dim), positions]).unsqueeze(0)
