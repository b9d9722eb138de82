"""What a module remembers of its widths, corrected after its tensors have become narrower.

Most modules compute with whatever shapes their tensors have. Those below also hold a number of
groups, heads or features. Yours is added with one function::

    @adapter(MyAttention)
    def my_attention(module, whole):
        module.heads = module.heads * len(module.proj.weight[0]) // whole["proj.weight"][1]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from flower_ist.modules.narrow_attention import NarrowAttention

# (module, name of each of its tensors, its submodules' too -> shape in the whole model)
Adapter = Callable[[Any, Mapping[str, tuple[int, ...]]], None]
ADAPTERS: dict[type | str, Adapter] = {}


def adapter(*kinds: type | str) -> Callable[[Adapter], Adapter]:
    """Register a function that corrects modules of some kinds.

    Args:
        kinds: classes, or their full names where a package need not be installed. Subclasses are
            meant as well.
    """

    def register(function: Adapter) -> Adapter:
        ADAPTERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def adapter_for(module: nn.Module) -> Adapter | None:
    """Return the adapter of a module's class, or of the nearest class that it inherits from."""
    for kind in type(module).__mro__:
        for key in (kind, f"{kind.__module__}.{kind.__qualname__}"):
            if key in ADAPTERS:
                return ADAPTERS[key]
    return None


@adapter(nn.Linear)
def _linear(module: nn.Linear, whole: Mapping[str, tuple[int, ...]]) -> None:
    module.out_features, module.in_features = module.weight.shape


@adapter(nn.Embedding, nn.EmbeddingBag)
def _embedding(module: nn.Embedding, whole: Mapping[str, tuple[int, ...]]) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


@adapter(nn.modules.conv._ConvNd)  # the base of all convolutions has no other name
def _convolution(module: nn.Conv2d, whole: Mapping[str, tuple[int, ...]]) -> None:
    first, second = module.weight.shape[:2]
    module.groups = max(1, module.groups * first // whole["weight"][0]) if module.groups > 1 else 1
    module.in_channels, module.out_channels = second * module.groups, first
    if module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups


@adapter(nn.modules.batchnorm._NormBase)  # batch and instance normalization
def _norm(module: nn.BatchNorm2d, whole: Mapping[str, tuple[int, ...]]) -> None:
    for tensor in (module.weight, module.running_mean):
        if tensor is not None:
            module.num_features = len(tensor)


@adapter(nn.LayerNorm, nn.RMSNorm)
def _layer_norm(module: nn.LayerNorm, whole: Mapping[str, tuple[int, ...]]) -> None:
    module.normalized_shape = tuple(module.weight.shape)


@adapter(nn.GroupNorm)
def _group_norm(module: nn.GroupNorm, whole: Mapping[str, tuple[int, ...]]) -> None:
    (channels,) = whole["weight"]
    module.num_channels = len(module.weight)
    module.num_groups = max(1, module.num_groups * module.num_channels // channels)


@adapter(nn.RNNBase)
def _recurrent(module: Any, whole: Mapping[str, tuple[int, ...]]) -> None:
    module.hidden_size = module.weight_hh_l0.shape[1]
    module.input_size = module.weight_ih_l0.shape[1]


@adapter(nn.MultiheadAttention)
def _multi_head(module: Any, whole: Mapping[str, tuple[int, ...]]) -> None:
    width, whole_width = module.out_proj.weight.shape[1], whole["out_proj.weight"][1]
    if width != whole_width:
        module.num_heads = module.num_heads * width // whole_width
        module.__class__ = NarrowAttention
        # nn.TransformerEncoderLayer looks at this before it takes a kernel of its own.
        module._qkv_same_embed_dim = False


@adapter(
    "timm.layers.attention.Attention",
    "timm.models.vision_transformer.Attention",
    "timm.models.swin_transformer.WindowAttention",
)
def _timm_attention(module: Any, whole: Mapping[str, tuple[int, ...]]) -> None:
    width, whole_width = module.proj.weight.shape[1], whole["proj.weight"][1]
    module.num_heads = module.num_heads * width // whole_width
    if hasattr(module, "attn_dim"):
        module.attn_dim = width
