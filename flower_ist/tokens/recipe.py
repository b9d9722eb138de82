"""How an image becomes a token: the record of encoder and mask that a model carries with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from flower_ist.tokens.meta import (
    _STORED_NORMALIZATION,
    Encoder,
    Mask,
    Reading,
    ShardMeta,
    _build,
    _check_types,
    _renamed,
    check_reading,
)


@dataclass(frozen=True)
class Recipe:
    """The encoder and the mask of the tokens that a model was evaluated on.

    Attributes:
        encoder: the frozen network.
        mask: how patches are dropped.
        reading: choices for images that are not plain, as in :class:`ShardMeta`.
    """

    encoder: Encoder
    mask: Mask
    reading: Reading = field(default_factory=dict)

    @classmethod
    def of(cls, meta: ShardMeta) -> Recipe:
        """Return the recipe of a shard's tokens."""
        return cls(meta.encoder, meta.mask, meta.reading)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, spelled as in a shard's ``meta.json``."""
        content = {"encoder": self.encoder.to_json(), "mask": asdict(self.mask)}
        return content | ({"reading": dict(self.reading)} if self.reading else {})

    @classmethod
    def from_json(cls, content: object) -> Recipe:
        """Parse and check what :meth:`to_json` returned.

        Raises:
            TypeError: an entry is of the wrong type.
            ValueError: an entry is missing, unknown or impossible.
        """
        if not isinstance(content, dict):
            raise TypeError("the recipe must be an object")
        encoder = _renamed(content.get("encoder"), _STORED_NORMALIZATION, "normalization")
        recipe = cls(
            _build(Encoder, encoder, "encoder"),
            _build(Mask, content.get("mask"), "mask"),
            content.get("reading", {}),
        )
        check_reading(recipe.reading)
        _check_types(recipe.encoder, "encoder.")
        _check_types(recipe.mask, "mask.")
        sizes = (recipe.encoder.image_size, recipe.encoder.patch_size, recipe.mask.kept)
        if min(sizes) < 1 or recipe.mask.kept > recipe.mask.patches:
            raise ValueError("the recipe's sizes are impossible")
        return recipe
