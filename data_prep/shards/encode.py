"""Images -> masked tokens: one frozen encoder, one way to drop patches, any number of views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.images.pixels import check_interpolation, masked_bytes
from data_prep.images.reading import USUAL_READING, Reading, unusual_choices
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import make_mask
from flower_ist.tokens.meta import TOKEN_DTYPES, ShardMeta

if TYPE_CHECKING:
    from data_prep.encoders.open import ImageEncoder


@dataclass(frozen=True)
class Batch:
    """Images that are decoded, resized and have their masks: all that an encoder needs.

    Attributes:
        pixels: (B, 3, S, S) uint8.
        kept: (V, B, k) kept patches of each view.
    """

    pixels: torch.Tensor
    kept: NDArray[np.int64]


class Encoding:
    """An encoder with its mask: makes tokens, and the meta data of the shards that hold them.

    Attributes:
        encoder: Returns one token (D,) for an image's kept patches.
        mask: How patches are dropped; one view.
        interpolation: How images are resized, ``bicubic`` or ``bilinear``.
        reading: How unusual images were read.
        token_dtype: What a shard stores, ``float16``, ``float32`` or ``int8``.

    Raises:
        PrepError: the mask, the seed, the interpolation or the token type cannot be used.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        *,
        mask_kind: str = "random",
        mask_ratio: float = 0.5,
        seed: int = 0,
        interpolation: str = "bicubic",
        reading: Reading = USUAL_READING,
        token_dtype: str = "float16",
    ) -> None:
        if token_dtype not in TOKEN_DTYPES:
            raise PrepError(
                f"The token type {token_dtype!r} is unknown: use one of {', '.join(TOKEN_DTYPES)}."
            )
        check_interpolation(interpolation)
        self.encoder = encoder
        self.mask = make_mask(mask_kind, mask_ratio, seed, encoder.grid[0] * encoder.grid[1])
        self.interpolation = interpolation
        self.reading = reading
        self.token_dtype = token_dtype

    def prepare(self, data: ImageSet, views: int = 1) -> Batch:
        """Decode and resize all images of ``data`` once and draw ``views`` masks for each.

        View ``v`` of an image is its mask of epoch ``v``.

        Raises:
            PrepError: an image cannot be read.
        """
        masks = [draw_mask(self.mask, data.image_ids, epoch) for epoch in range(views)]
        size = self.encoder.record.image_size
        pixels = data.network_input(size, self.interpolation)
        return Batch(pixels, np.stack(masks))

    def tokens(self, batch: Batch) -> NDArray[np.float32]:
        """Return the tokens (B * V, D): all views of the first image, then those of the second."""
        views = [self.encoder.encode(batch.pixels, kept) for kept in batch.kept]
        return np.stack(views, axis=1).reshape(-1, self.encoder.dim)

    def batches(self, data: ImageSet, batch_size: int = 64) -> Iterator[NDArray[np.float32]]:
        """Yield the tokens (B, D) of all images in their order, one view each."""
        for start in range(0, len(data), batch_size):
            rows = np.arange(start, min(start + batch_size, len(data)))
            yield self.tokens(self.prepare(data.take(rows)))

    def meta(
        self,
        data: ImageSet,
        client: str,
        *,
        rows: NDArray[np.intp] | None = None,
        views: int = 1,
        source: str = "",
    ) -> ShardMeta:
        """Return the meta data of a shard of some images, of all where ``rows`` is None.

        The byte totals count every example, so an image of V views counts V times. Kept patches
        count what they take in a set that stores them alone, else their share of the native bytes.
        """
        rows = np.arange(len(data)) if rows is None else rows
        native = int(data.native_bytes_of_each[rows].sum())
        stored = native if data.file_bytes is None else int(data.file_bytes[rows].sum())
        masked = masked_bytes(native, self.mask.patches, self.mask.kept)
        if data.masked_bytes is not None:
            masked = int(data.masked_bytes[rows].sum())
        return ShardMeta(
            num_examples=len(rows) * views,
            dim=self.encoder.dim,
            class_names=data.class_names,
            encoder=replace(self.encoder.record, interpolation=self.interpolation),
            mask=replace(self.mask, views=views),
            image_bytes=native * views,
            image_file_bytes=stored * views,
            masked_image_bytes=masked * views,
            token_dtype=self.token_dtype,
            client=client,
            split=data.split,
            source=source or data.source,
            reading=unusual_choices(self.reading),
        )
