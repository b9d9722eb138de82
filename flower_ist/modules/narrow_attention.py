"""nn.MultiheadAttention with fewer heads than its embedding has room for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowAttention(nn.MultiheadAttention):
    """Some of the heads of an ``nn.MultiheadAttention``, each of the dimension that it had.

    torch's own derives a head's dimension from embedding and number of heads; here it follows from
    the tensors. A module is made one by giving it this class (:mod:`flower_ist.modules.adapters`).
    ``add_bias_kv`` and ``add_zero_attn`` are not supported.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what torch's does: (batch, tokens, embedding) and, if needed, the weights.

        Shapes and masks are as in torch: tokens come first unless ``batch_first``, and masks are
        true, or minus infinity, where nothing may be attended to.
        """
        batched = query.dim() == 3
        inputs = [query, key, value]
        if not batched:
            inputs = [x[None] for x in inputs]
        elif not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        q, k, v = self._project(inputs)
        mask = _bias(attn_mask, q)
        if mask is not None and mask.dim() == 3:  # (batch x heads, targets, sources)
            mask = mask.reshape(len(q), self.num_heads, *mask.shape[1:])
        padding = _bias(key_padding_mask, q)
        if padding is not None:
            padding = padding.reshape(len(q), 1, 1, -1)
            mask = padding if mask is None else mask + padding
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = functional.dropout(weights, self.dropout, self.training)
        out: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        if not batched:
            out = out[0]
        elif not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        weights = weights.mean(1) if average_attn_weights else weights
        return out, weights if batched else weights[0]

    def _project(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return q, k and v (batch, heads, tokens, dim)."""
        if self.in_proj_weight is not None:
            weights = list(self.in_proj_weight.chunk(3))
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        biases = [None] * 3 if self.in_proj_bias is None else list(self.in_proj_bias.chunk(3))
        projected = [functional.linear(*each) for each in zip(inputs, weights, biases, strict=True)]
        return [x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in projected]


def _bias(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a mask as what is added to scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
