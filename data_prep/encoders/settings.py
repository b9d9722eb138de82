"""Which encoder makes the tokens, and how it is run."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from data_prep.options import option

_PANEL = "Encoder"


@dataclass(frozen=True)
class EncoderSettings:
    """A network, its weights, and what of it becomes a token."""

    _: KW_ONLY
    encoder: str = option(
        "embedded, the name of a timm ViT or CNN, or a file that pretrain wrote.",
        "embedded",
        panel=_PANEL,
    )
    weights: str = option(
        "A checkpoint file; pretrained: timm's, from the network; random: as a control. Default: "
        "those that the encoder's file holds.",
        "",
        panel=_PANEL,
    )
    image_size: int | None = option(
        "Images are resized to this height and width; default: the encoder's own.",
        None,
        panel=_PANEL,
    )
    patch_size: int | None = option(
        "Height and width of a patch in pixels; default: the encoder's own, 16 for a CNN.",
        None,
        panel=_PANEL,
    )
    pool: str = option(
        "cls: the class token; mean: of the kept patches; cls+mean: both, twice as wide; map: the "
        "encoder's own attention, as SigLIP's have it.",
        "cls",
        panel=_PANEL,
    )
    layer: int = option("Blocks of a ViT to run; 0 for all.", 0, panel=_PANEL)
    normalization: str = option(
        "model (its own), imagenet, half (0.5/0.5, the paper's), or six numbers, mean/deviation.",
        "model",
        panel=_PANEL,
    )
    device: str = option("cpu, cuda or mps.", "cpu", panel=_PANEL)
    compute_dtype: str = option("float32, bfloat16 or float16.", "float32", panel=_PANEL)
