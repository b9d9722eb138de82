"""Images -> masked CLS tokens -> token shards: one folder per client and one for the test set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from data_prep import PrepError
from data_prep.encoders import TokenEncoder, build_vit, load_weights, state_sha256
from data_prep.images import ImageSet, masked_bytes
from data_prep.masking import kept_count, kept_patches
from data_prep.noise import check_seed
from data_prep.split import iid_split
from flower_ist.token_meta import TOKEN_DTYPES, Encoder, Mask, ShardError, ShardMeta
from flower_ist.token_writer import ShardWriter
from flower_ist.tokens import client_folder, test_folder

Batch = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class EncodeSettings:
    """How images become tokens; everything that a shard's meta data repeat.

    Attributes:
        encoder: Name of a timm ViT.
        weights: A local safetensors checkpoint; None for random weights drawn from ``seed``.
        label: What the meta data call the encoder; empty for its timm name.
        image_size: Height and width in pixels that images are resized to.
        mask_kind: A name in ``masking.MASK_KINDS``.
        mask_ratio: Share of patches dropped, in [0, 1).
        seed: Of the masks, of the split and of random weights.
        normalisation: ``model``, ``imagenet`` or ``half``.
        interpolation: ``bicubic`` or ``bilinear``.
        token_dtype: ``float16``, ``float32`` or ``int8``.
        batch_size: Images encoded at once.
        device: Where torch runs the encoder.
    """

    encoder: str
    weights: Path | None
    image_size: int
    label: str = ""
    mask_kind: str = "random"
    mask_ratio: float = 0.5
    seed: int = 0
    normalisation: str = "model"
    interpolation: str = "bicubic"
    token_dtype: str = "float16"
    batch_size: int = 50
    device: str = "cpu"


class Encoding:
    """A loaded encoder with its settings: makes batches of tokens and the meta data of shards.

    Raises:
        PrepError: the settings name an encoder, checkpoint or mask that cannot be used.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        if settings.token_dtype not in TOKEN_DTYPES:
            raise PrepError(
                f"The token type {settings.token_dtype!r} is unknown: use one of "
                f"{', '.join(TOKEN_DTYPES)}."
            )
        if settings.batch_size < 1:
            raise PrepError(f"The batch size must be at least 1, not {settings.batch_size}.")
        check_seed(settings.seed)
        self.settings = settings
        model = build_vit(settings.encoder, settings.image_size, seed=settings.seed)
        name = settings.label or settings.encoder
        if settings.weights is None:
            name, weights_sha256 = f"{name}, random weights", state_sha256(model)
        else:
            weights_sha256 = load_weights(model, settings.weights)
        self.vit = TokenEncoder(model, settings.normalisation, settings.device)
        patches = self.vit.grid[0] * self.vit.grid[1]
        self.mask = Mask(
            kind=settings.mask_kind,
            ratio=settings.mask_ratio,
            seed=settings.seed,
            patches=patches,
            kept=kept_count(patches, settings.mask_ratio),
        )
        self.record = Encoder(
            name=name,
            weights_sha256=weights_sha256,
            image_size=self.vit.image_size,
            patch_size=self.vit.patch_size,
            normalisation=self.vit.normalisation,
        )

    def batches(self, data: ImageSet) -> Iterator[Batch]:
        """Yield ``(tokens (B, D), labels (B,), image ids (B,))`` in the order of the images."""
        for start in range(0, len(data), self.settings.batch_size):
            rows = slice(start, start + self.settings.batch_size)
            kept = kept_patches(
                self.mask.kind,
                self.vit.grid,
                self.mask.ratio,
                seed=self.mask.seed,
                image_ids=data.image_ids[rows],
            )
            pixels = data.network_input(rows, self.vit.image_size, self.settings.interpolation)
            yield self.vit.encode(pixels, kept), data.labels[rows], data.image_ids[rows]

    def meta(self, data: ImageSet, client: str, source: str = "") -> ShardMeta:
        """Return the meta data of a shard that holds all of ``data``; sizes are in bytes."""
        native = data.native_bytes
        return ShardMeta(
            num_examples=len(data),
            dim=self.vit.dim,
            class_names=data.class_names,
            encoder=self.record,
            mask=self.mask,
            image_bytes=native,
            image_file_bytes=native if data.file_bytes is None else int(data.file_bytes.sum()),
            masked_image_bytes=masked_bytes(native, self.mask.patches, self.mask.kept),
            token_dtype=self.settings.token_dtype,
            client=client,
            split=data.split,
            source=source or data.source,
        )


def encode_shards(
    encoding: Encoding, train: ImageSet, test: ImageSet, clients: int, out: Path
) -> list[Path]:
    """Write ``out/client-0`` ... and ``out/test``; the training images are dealt IID by the seed.

    Returns:
        The folders written, the test shard last.

    Raises:
        PrepError: there are more clients than images, or the sets' classes differ.
        ShardError: a shard exists already or cannot be written.
    """
    if train.class_names != test.class_names:
        one_sided = sorted(set(train.class_names) ^ set(test.class_names))
        reason = f"{one_sided[0]!r} is in one set only" if one_sided else "their order differs"
        raise PrepError(f"The training and the test images have different classes: {reason}.")
    parts = iid_split(len(train), clients, encoding.settings.seed)
    images = {client_folder(out, k): train.take(rows) for k, rows in enumerate(parts)}
    images[test_folder(out)] = test
    for folder in images:
        # Found out now, not after an hour of encoding.
        if folder.exists():
            raise ShardError(f"{folder} exists already: choose another folder or remove it.")
    with Progress() as progress:
        task = progress.add_task("Encoding images", total=len(train) + len(test))
        for folder, data in images.items():
            with ShardWriter(folder, encoding.meta(data, folder.name)) as writer:
                for batch in encoding.batches(data):
                    writer.append(*batch)
                    progress.advance(task, len(batch[1]))
    return list(images)
