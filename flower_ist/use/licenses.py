"""The licenses of encoders' weights, as timm's configurations have them (a test compares)."""

from __future__ import annotations

from flower_ist.tokens.meta import Encoder

EMBEDDED_SHA256 = "7ab02d4f29449429d4262692d72ecca322a187d86082847bd061df9ca4227df8"
LICENSES = {
    "dino": "apache-2.0",
    "lvd142m": "apache-2.0",
    "mim_in22k": "mit",
    "m30m_ft_in22k_in1k": "mit",
    "augreg_in21k": "apache-2.0",
    "augreg_in21k_ft_in1k": "apache-2.0",
    "mae": "cc-by-nc-4.0",
    "lvd1689m": "dinov3-license",
    "in1k_ijepa": "cc-by-nc-4.0",
    "in22k_ijepa": "cc-by-nc-4.0",
}
"""timm's tag, the part of a name after the dot, -> license; tags of more than one are left out."""


def license_of(encoder: Encoder) -> str:
    """Return a sentence on the license of an encoder's weights."""
    if encoder.weights_sha256 == EMBEDDED_SHA256:
        return "apache-2.0, trained on Fashion-MNIST (MIT)"
    tag = encoder.name.partition(".")[2]
    return LICENSES.get(tag, "not recorded: ask whoever published the weights")
