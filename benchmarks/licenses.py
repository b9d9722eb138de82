"""The free encoders that docs/preparing.md names, with the licenses in timm."""

from __future__ import annotations

from typing import Any

from data_prep.encoders.torchvision_guard import guard_torchvision

guard_torchvision()

import timm  # noqa: E402  (after the guard)

NAMES = (
    "eva02_*_patch14_224.mim_in22k",
    "vit_*_patch14_dinov2.lvd142m",
    "vit_*_patch14_reg4_dinov2.lvd142m",
    "naflexvit_*_patch16_siglip.v2_webli",
    "beitv2_*_patch16_224.in1k_ft_in1k",
    # Not free, or not a plain vision transformer.
    "vit_*_patch16_224.mae",
    "*ijepa*",
    "hiera_tiny_224.mae*",
    "vit_small_patch16_dinov3.*",
)


def main() -> None:
    """Print one table."""
    print("| timm's name | license | pixels |")
    print("|---|---|---|")
    for pattern in NAMES:
        for name in timm.list_pretrained(pattern):
            config: Any = timm.get_pretrained_cfg(name)
            print(f"| {name} | {config.license} | {config.input_size[-1]} |")


if __name__ == "__main__":
    main()
