"""How a timm ViT runs on the kept patches only: modules that take the places of its own.

timm's ``VisionTransformer`` embeds all patches, adds positions, puts the class token (and any
register tokens) in front, and then calls ``patch_drop``: a module that does nothing outside
training. Putting a gather there gives MAE's masking, exactly: every block then runs on the prefix
tokens and the kept patches only. ``Eva`` also asks its ``patch_drop`` which patches were kept, and
rotates those by their own positions. ``Beit`` gathers in its ``pos_drop``, which does nothing
either, and the bias of relative positions in each of its blocks is gathered alike. ``NaFlexVit``
gathers before its ``norm_pre``. The convolution that embeds patches is replaced as well, by one
that leaves dropped patches at zero: for all patches it would be 6 % of ViT-B/16's work at a mask
ratio of .9.

This is right only where a patch's embedding depends on its own pixels, so a ViT behind a CNN stem
is refused.
"""

from __future__ import annotations

from typing import Any

import torch

from data_prep import PrepError
from data_prep.encoders.timm import (
    ACCEPTED,
    Beit,
    Eva,
    NaFlexVit,
    PatchEmbed,
    VisionTransformer,
    architecture,
)
from data_prep.masks.kinds import Grid

FAMILIES = (VisionTransformer, Eva, Beit, NaFlexVit)
"""timm's classes of networks in which patches can be dropped."""


class KeptPatches(torch.nn.Module):
    """Gathers the kept patches of (B, prefix + L, D); sits in a ViT's ``patch_drop``."""

    def __init__(self, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> Any:
        """Return (B, prefix + kept, D): the prefix tokens and the patches in ``self.kept``."""
        if self.kept is None:
            return x
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        index = self.kept.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return torch.cat([prefix, patches.gather(1, index)], dim=1)


class KeptPatchesWithIndices(KeptPatches):
    """The same for Eva, which takes the indices back to rotate the kept patches."""

    def forward(self, x: torch.Tensor) -> Any:
        """Return the gathered tokens and ``self.kept`` (B, k)."""
        return super().forward(x), self.kept


class KeptProjection(torch.nn.Module):
    """Embeds the kept patches only; sits in the place of a ``patch_embed.proj``."""

    def __init__(self, whole: torch.nn.Conv2d, grid: Grid) -> None:
        super().__init__()
        self.weight, self.bias = whole.weight, whole.bias
        self.grid = grid
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, D, rows, columns) of pixels (B, 3, S, S); dropped patches are 0."""
        (rows, columns), size = self.grid, self.weight.shape[-1]
        if self.kept is None or self.kept.shape[1] == rows * columns:
            return torch.nn.functional.conv2d(x, self.weight, self.bias, stride=size)
        # A view (B, rows, columns, 3, P, P): indexing copies the kept patches and no others.
        patches = x.reshape(-1, 3, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        image = torch.arange(len(x), device=x.device).unsqueeze(1)
        seen = patches[image, self.kept // columns, self.kept % columns].flatten(2)
        embedded = torch.nn.functional.linear(seen, self.weight.flatten(1), self.bias)
        whole = embedded.new_zeros(len(x), rows * columns, len(self.weight))
        whole[image, self.kept] = embedded
        return whole.transpose(1, 2).reshape(len(x), -1, rows, columns)


class KeptBias:
    """The bias of relative positions in a block of Beit's, between the kept patches.

    It takes the place of the attention's own function, as timm offers no module for it.
    """

    def __init__(self, attention: Any) -> None:
        self._whole = attention._get_rel_pos_bias
        self.kept: torch.Tensor | None = None

    def __call__(self) -> torch.Tensor:
        """Return (B, heads, 1 + kept, 1 + kept), of whole images (1, heads, 1 + L, 1 + L)."""
        whole: torch.Tensor = self._whole()
        if self.kept is None:
            return whole
        # The class token is the first row and column.
        places = torch.nn.functional.pad(self.kept + 1, (1, 0))
        return whole[0][:, places[:, :, None], places[:, None, :]].transpose(0, 1)


def check_family(model: Any) -> None:
    """Refuse a network in which patches cannot be dropped.

    Raises:
        PrepError: it is another class of timm's, or mixes patches before its blocks.
    """
    if isinstance(model, NaFlexVit):
        known = model.rope is None and model.embeds.is_linear
    else:
        plain = type(getattr(model, "patch_embed", None)) is PatchEmbed
        known = (
            isinstance(model, FAMILIES) and plain and getattr(model, "rel_pos_bias", None) is None
        )
    if not known:
        raise PrepError(f"Patches cannot be dropped inside {architecture(model)}: {ACCEPTED}.")


def gather_kept(model: Any, grid: Grid) -> list[Any]:
    """Change a network so that it runs on the patches that are set as ``kept`` of all returned.

    Args:
        model: Of one of the ``FAMILIES``; it is changed in place.
        grid: Rows and columns of patches.
    """
    gathers: list[Any] = [KeptPatches(model.num_prefix_tokens)]
    if isinstance(model, NaFlexVit):
        model.norm_pre = torch.nn.Sequential(gathers[0], model.norm_pre)
        return gathers
    if isinstance(model, Eva):
        gathers = [KeptPatchesWithIndices(model.num_prefix_tokens)]
    if isinstance(model, Beit):
        model.pos_drop = gathers[0]
        attentions: list[Any] = [block.attn for block in model.blocks]
        for attention in attentions:
            if attention.relative_position_bias_table is not None:
                attention._get_rel_pos_bias = KeptBias(attention)
                gathers.append(attention._get_rel_pos_bias)
    else:
        model.patch_drop = gathers[0]
    model.patch_embed.proj = KeptProjection(model.patch_embed.proj, grid)
    return [*gathers, model.patch_embed.proj]
