"""Open the encoder that a record names: the embedded one is found, another one must be given."""

from __future__ import annotations

from dataclasses import replace

from data_prep import PrepError
from data_prep.encoders.open import EMBEDDED, ImageEncoder, open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.encoders.weights import file_sha256
from flower_ist.differences import differences
from flower_ist.tokens.meta import Encoder, encoder_space


def reopen_encoder(
    record: Encoder,
    encoder: str = "",
    weights: str = "",
    *,
    seed: int = 0,
    device: str = "cpu",
    compute_dtype: str = "float32",
) -> ImageEncoder:
    """Open an encoder with the sizes, pooling, layer and normalization of a record.

    Args:
        record: What a model or a shard says about its encoder.
        encoder: As prep's; empty for the record's name, or for the embedded one if it is that.
        weights: As prep's.
        seed: Of random weights.
        device: Where torch runs it.
        compute_dtype: Of weights and activations.

    Raises:
        PrepError: it is not given, cannot be opened, or is not the one of the record.
    """
    if not encoder and not weights:
        if not EMBEDDED.is_file() or record.weights_sha256 != file_sha256(EMBEDDED):
            raise PrepError(
                f"The model needs the encoder {record.name!r} (weights "
                f"{record.weights_sha256[:12]}...), which does not come with this package: name "
                "it by --encoder and --weights, as prep was given them."
            )
        encoder = "embedded"
    settings = EncoderSettings(
        encoder=encoder or record.name,
        weights=weights,
        image_size=record.image_size,
        patch_size=record.patch_size,
        pool=record.pool,
        layer=record.layer,
        normalization=record.normalization,
        device=device,
        compute_dtype=compute_dtype,
    )
    opened = open_encoder(settings, seed)
    found = replace(opened.record, interpolation=record.interpolation)  # is not the encoder's
    if differ := differences(encoder_space(record), encoder_space(found)):
        raise PrepError(
            f"The encoder {opened.record.name!r} is not the one of the model's tokens ({differ}): "
            "give the encoder and the weights that prep was given."
        )
    return opened
