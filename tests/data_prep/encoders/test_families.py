"""Each family of mask-trained encoders, random weights: whole images, and half of the patches.

The networks are timm's own, cut to two blocks and few channels.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from data_prep import PrepError
from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.encoders.vit import TokenEncoder, build_vit
from data_prep.masks.draw import kept_patches

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
WITH_CLASS = ("cls", "mean", "cls+mean")
FAMILIES = {
    "EVA-02": ("eva02_tiny_patch14_224", 56, WITH_CLASS),
    "DINOv2": ("vit_small_patch14_dinov2", 56, WITH_CLASS),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", 56, WITH_CLASS),
    "SigLIP 2 NaFlex": ("naflexvit_base_patch16_siglip", 64, ("map", "mean")),
    "BEiT v2": ("beitv2_base_patch16_224", 64, WITH_CLASS),
}
CASES = [(family, pool) for family, (*_, pools) in FAMILIES.items() for pool in pools]


def built(family):
    """A network with every parameter away from its initial zero or one, the same each time."""
    name, size, _ = FAMILIES[family]
    model = build_vit(name, size, **SMALL).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model, size


def images(size, count=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), "u1"))


def pooled(model, tokens, pool, kept=slice(None)):
    """The token of whole or kept patches as timm has it, from the tokens of a forward pass."""
    patches = tokens[:, model.num_prefix_tokens :][:, kept]
    if pool == "map":
        return model.fc_norm(model.attn_pool(patches))
    parts = {"cls": tokens[:, 0], "mean": patches.mean(1)}
    return torch.cat([model.fc_norm(parts[name]) for name in pool.split("+")], 1)


@pytest.mark.parametrize(("family", "pool"), CASES)
def test_whole_images_give_timms_own_token(family, pool):
    model, size = built(family)
    encoder = TokenEncoder(built(family)[0], "half", pool=pool, image_size=size)
    pixels = images(size)
    kept = kept_patches("random", encoder.grid, 0.0, seed=0, image_ids=np.arange(3))
    with torch.inference_mode():
        whole = model.forward_features(pixels.float() / 127.5 - 1)
        expected = pooled(model, whole, pool)
        own = {"token": "cls", "avg": "mean", "map": "map"}[model.global_pool]
        if pool == own:
            torch.testing.assert_close(expected, model.forward_head(whole, pre_logits=True))
    found = encoder.encode(pixels, kept)
    assert found.shape == (3, encoder.dim) == (3, 96 if pool == "cls+mean" else 48)
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-4, atol=2e-5)


@contextmanager
def attention_to(seen):
    """Add a row to the scores of every query in torch's attention over as many keys."""
    real = torch.nn.functional.scaled_dot_product_attention

    def masked(q, k, v, attn_mask=None, **options):
        if k.shape[-2] == len(seen):
            attn_mask = seen[None] if attn_mask is None else attn_mask + seen
        return real(q, k, v, attn_mask=attn_mask, **options)

    torch.nn.functional.scaled_dot_product_attention = masked
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = real


@pytest.mark.parametrize(("family", "pool"), CASES)
def test_half_of_the_patches_give_what_attention_that_sees_only_these_gives(family, pool):
    """The whole network, in whose attention the dropped patches have a weight of zero."""
    model, size = built(family)
    encoder = TokenEncoder(built(family)[0], "half", pool=pool, image_size=size)
    pixels = images(size, count=2)
    kept = kept_patches("random", encoder.grid, 0.5, seed=3, image_ids=np.arange(2))
    prefix, patches = model.num_prefix_tokens, encoder.grid[0] ** 2
    assert kept.shape[1] == patches // 2
    found = encoder.encode(pixels, kept)
    for row in range(2):
        seen = torch.full((prefix + patches,), float("-inf"))
        seen[:prefix] = 0
        seen[prefix + torch.from_numpy(kept[row])] = 0
        with torch.inference_mode():
            with attention_to(seen):
                tokens = model.forward_features(pixels[[row]].float() / 127.5 - 1)
            expected = pooled(model, tokens, pool, torch.from_numpy(kept[row]))[0].numpy()
        np.testing.assert_allclose(found[row], expected, rtol=5e-4, atol=5e-5)


@pytest.mark.parametrize(
    ("family", "pool", "message"),
    [
        ("SigLIP 2 NaFlex", "cls", "has no class token: use map, its own pooling, or mean"),
        ("BEiT v2", "map", "has no pooling by attention: use cls or mean"),
        ("BEiT v2", "max", r"'max' is unknown: use cls or mean or cls\+mean or map"),
    ],
)
def test_a_pooling_that_a_family_lacks_is_refused(family, pool, message):
    model, size = built(family)
    with pytest.raises(PrepError, match=message):
        TokenEncoder(model, "half", pool=pool, image_size=size)


def test_a_family_is_opened_by_its_name_and_recorded():
    settings = EncoderSettings(
        encoder="naflexvit_base_patch16_siglip",
        weights="random",
        image_size=32,
        pool="map",
        normalization="half",
        layer=1,
    )
    record = open_encoder(settings).record
    assert (record.image_size, record.patch_size, record.pool, record.layer) == (32, 16, "map", 1)
