import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_prep import PrepError
from data_prep.encoders import (
    NORMALISATIONS,
    TokenEncoder,
    build_vit,
    load_weights,
    state_sha256,
)
from data_prep.masking import kept_patches


def pixels(batch=3, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def normalised(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALISATIONS["imagenet"])
    return (images - mean) / std


def layer_norm(x, norm):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def by_hand(model, images, kept):
    """The masked ViT written out: cut patches, embed, add positions, keep, then plain attention.

    Only the parameters are timm's; none of its code runs.
    """
    batch, grid, width = len(images), 4, model.embed_dim
    patches = images.reshape(batch, 3, grid, 8, grid, 8).permute(0, 2, 4, 1, 3, 5)
    weight = model.patch_embed.proj.weight.reshape(width, -1)
    x = patches.reshape(batch, grid * grid, -1) @ weight.T + model.patch_embed.proj.bias
    positions, prefix = model.pos_embed[0], model.cls_token[0]
    if model.reg_token is not None:
        prefix = torch.cat([prefix, model.reg_token[0]])
    if model.no_embed_class:
        x = x + positions
    else:
        x, prefix = x + positions[len(prefix) :], prefix + positions[: len(prefix)]
    rows = []
    for image, indices in zip(x, kept, strict=True):
        x = torch.cat([prefix, image[torch.from_numpy(indices)]])
        for block in model.blocks:
            heads = block.attn.num_heads
            qkv = layer_norm(x, block.norm1) @ block.attn.qkv.weight.T + block.attn.qkv.bias
            q, k, v = qkv.reshape(len(x), 3, heads, width // heads).permute(1, 2, 0, 3)
            attention = (q @ k.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
            mixed = (attention @ v).transpose(0, 1).reshape(len(x), width)
            x = x + mixed @ block.attn.proj.weight.T + block.attn.proj.bias
            hidden = layer_norm(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
            gelu = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            x = x + gelu @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
        rows.append(layer_norm(x, model.norm)[0])
    return torch.stack(rows).detach().numpy()


ARCHITECTURES = [{}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}]


@pytest.mark.parametrize("options", ARCHITECTURES)
def test_without_a_mask_it_is_timms_own_class_token(tiny_vit, options):
    model = tiny_vit(**options)
    with torch.inference_mode():
        expected = model.forward_features(normalised(pixels()))[:, 0].numpy()
    encoder = TokenEncoder(model, "imagenet")
    kept = np.tile(np.arange(16), (3, 1))
    assert np.abs(encoder.encode(pixels(), kept) - expected).max() <= 1e-5


@pytest.mark.parametrize("options", ARCHITECTURES)
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_with_a_mask_it_equals_the_forward_pass_written_by_hand(tiny_vit, options, ratio):
    model = tiny_vit(**options)
    kept = kept_patches("random", (4, 4), ratio, seed=0, image_ids=np.arange(3))
    expected = by_hand(model, normalised(pixels()), kept)
    tokens = TokenEncoder(model, "imagenet").encode(pixels(), kept)
    assert tokens.shape == (3, 24)
    assert tokens.dtype == np.float32
    assert np.abs(tokens - expected).max() <= 1e-5


def test_dropped_patches_do_not_reach_the_token(tiny_vit):
    encoder = TokenEncoder(tiny_vit(), "half")
    kept = np.array([[0, 5, 15]])
    images = pixels(1)
    changed = images.clone()
    # Patch 1 of 4 x 4 lies in rows 0 to 7, columns 8 to 15; patch 5 right below it.
    changed[:, :, 0:8, 8:16] = 0
    np.testing.assert_array_equal(encoder.encode(images, kept), encoder.encode(changed, kept))
    changed[:, :, 8:16, 8:16] = 0
    assert np.abs(encoder.encode(images, kept) - encoder.encode(changed, kept)).max() > 1e-3


def test_blocks_see_only_prefix_and_kept_patches(tiny_vit):
    model = tiny_vit(reg_tokens=2)
    lengths = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    TokenEncoder(model, "half").encode(pixels(1), np.array([[1, 2]]))
    assert lengths == [1 + 2 + 2]


def test_the_model_is_frozen_and_no_graph_is_kept(tiny_vit):
    model = tiny_vit().train()
    TokenEncoder(model, "half")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_normalisation_comes_from_the_models_configuration(tiny_vit):
    model = tiny_vit()
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    assert TokenEncoder(model).normalisation == "half"
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}
    with pytest.raises(PrepError, match="names no known normalisation"):
        TokenEncoder(model)
    with pytest.raises(PrepError, match="'other' is unknown: use one of model, imagenet, half"):
        TokenEncoder(model, "other")


def test_a_vit_without_class_token_is_refused(tiny_vit):
    with pytest.raises(PrepError, match="no class token"):
        TokenEncoder(tiny_vit(class_token=False, global_pool="avg"), "half")


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_vit("vit_tiny_patch16_224", 32, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert state_sha256(first) == state_sha256(again) != state_sha256(other)


def test_a_checkpoint_of_another_image_size_is_resampled_and_hashed(tmp_path):
    import hashlib

    trained = build_vit("vit_tiny_patch16_224", 48, seed=1)
    state = {name: tensor.half() for name, tensor in trained.state_dict().items()}
    file = tmp_path / "vit.safetensors"
    save_file(state | {"head.weight": torch.zeros(10, 192)}, file)
    model = build_vit("vit_tiny_patch16_224", 32)
    assert load_weights(model, file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.pos_embed.shape == (1, 1 + 4, 192)
    assert model.pos_embed.dtype == torch.float32
    loaded = model.blocks[0].attn.qkv.weight
    assert torch.equal(loaded, trained.blocks[0].attn.qkv.weight.half().float())


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    model = build_vit("vit_tiny_patch16_224", 32)
    with pytest.raises(PrepError, match=r"no .safetensors checkpoint at"):
        load_weights(model, tmp_path / "none.safetensors")
    (tmp_path / "pickle.pth").write_bytes(b"")
    with pytest.raises(PrepError, match=r"no .safetensors checkpoint at"):
        load_weights(model, tmp_path / "pickle.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(PrepError, match="does not fit the encoder"):
        load_weights(model, tmp_path / "bad.safetensors")
    save_file({"cls_token": torch.zeros(1, 1, 192)}, tmp_path / "part.safetensors")
    with pytest.raises(PrepError, match="does not fit the encoder") as caught:
        load_weights(model, tmp_path / "part.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("no_such_model", 32, "timm knows no model 'no_such_model'"),
        ("resnet18", 32, "cannot be built|is not a plain timm VisionTransformer"),
        ("vit_tiny_patch16_224", 40, "40 pixels is no multiple of .* patches of 16"),
        ("vit_tiny_patch16_224", 8, "8 pixels is no multiple|cannot be built"),
    ],
)
def test_encoders_that_cannot_be_built_are_refused(name, size, message):
    with pytest.raises(PrepError, match=message):
        build_vit(name, size)
