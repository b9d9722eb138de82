import numpy as np
import pytest
import torch

from data_prep import PrepError
from data_prep.encoders.frozen import NORMALIZATIONS
from data_prep.encoders.kept import KeptProjection
from data_prep.encoders.timm import Eva
from data_prep.encoders.vit import TokenEncoder, build_vit
from data_prep.encoders.weights import state_sha256
from data_prep.masks.draw import kept_patches

ALL = np.tile(np.arange(16), (3, 1))


def pixels(batch=3, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)


def normalized(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALIZATIONS["imagenet"])
    return (images / 255 - mean) / std


def layer_norm(x, norm):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def tokens_by_hand(model, images, kept, depth=2):
    """The masked ViT written out: cut patches, embed, add positions, keep, then plain attention.

    Only the parameters are timm's; none of its code runs. Returns each image's normed tokens.
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
        for block in model.blocks[:depth]:
            heads = block.attn.num_heads
            qkv = layer_norm(x, block.norm1) @ block.attn.qkv.weight.T + block.attn.qkv.bias
            q, k, v = qkv.reshape(len(x), 3, heads, width // heads).permute(1, 2, 0, 3)
            attention = (q @ k.transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
            mixed = (attention @ v).transpose(0, 1).reshape(len(x), width)
            x = x + mixed @ block.attn.proj.weight.T + block.attn.proj.bias
            hidden = layer_norm(x, block.norm2) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
            gelu = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            x = x + gelu @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
        rows.append(layer_norm(x, model.norm))
    return torch.stack(rows).detach().numpy()


ARCHITECTURES = [{}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}]


@pytest.mark.parametrize("options", ARCHITECTURES)
def test_without_a_mask_it_is_timms_own_class_token(tiny_vit, options):
    model = tiny_vit(**options)
    with torch.inference_mode():
        expected = model.forward_features(normalized(pixels()))[:, 0].numpy()
    encoder = TokenEncoder(model, "imagenet")
    assert np.abs(encoder.encode(pixels(), ALL) - expected).max() <= 1e-5


@pytest.mark.parametrize("options", ARCHITECTURES)
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_with_a_mask_it_equals_the_forward_pass_written_by_hand(tiny_vit, options, ratio):
    model = tiny_vit(**options)
    kept = kept_patches("random", (4, 4), ratio, seed=0, image_ids=np.arange(3))
    expected = tokens_by_hand(model, normalized(pixels()), kept)[:, 0]
    tokens = TokenEncoder(model, "imagenet").encode(pixels(), kept)
    assert tokens.shape == (3, 24)
    assert tokens.dtype == np.float32
    assert np.abs(tokens - expected).max() <= 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avg", "fc_norm": True},
        {"global_pool": "avg", "fc_norm": False, "reg_tokens": 2},
        {"global_pool": "avg", "fc_norm": False, "class_token": False},
    ],
)
def test_the_mean_of_all_patches_is_what_timms_own_head_gets(tiny_vit, options):
    model = tiny_vit(**options)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(normalized(pixels()))).numpy()
    tokens = TokenEncoder(model, "imagenet", pool="mean").encode(pixels(), ALL)
    assert np.abs(tokens - expected).max() <= 1e-5


def test_the_mean_is_taken_over_kept_patches_without_prefix(tiny_vit):
    model = tiny_vit(reg_tokens=2)
    kept = np.array([[0, 3, 9], [1, 2, 4], [5, 14, 15]])
    expected = tokens_by_hand(model, normalized(pixels()), kept)[:, 3:].mean(axis=1)
    encoder = TokenEncoder(model, "imagenet", pool="mean")
    assert np.abs(encoder.encode(pixels(), kept) - expected).max() <= 1e-5
    assert encoder.record.pool == "mean"


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_layer_is_the_final_norm_after_that_many_blocks(tiny_vit, layer):
    model = tiny_vit(depth=3)
    ran = []
    for number, block in enumerate(model.blocks, start=1):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    kept = np.array([[0, 3, 9], [1, 2, 4], [5, 14, 15]])
    expected = tokens_by_hand(model, normalized(pixels()), kept, depth=layer)[:, 0]
    encoder = TokenEncoder(model, "imagenet", layer=layer)
    assert np.abs(encoder.encode(pixels(), kept) - expected).max() <= 1e-5
    assert ran == list(range(1, layer + 1))
    assert encoder.record.layer == (0 if layer == 3 else layer)  # 0: all of them


def test_the_last_layer_is_all_of_them(tiny_vit):
    by_name, by_default = (TokenEncoder(tiny_vit(), "half", layer=n) for n in (2, 0))
    np.testing.assert_array_equal(by_name.encode(pixels(), ALL), by_default.encode(pixels(), ALL))
    assert by_name.record == by_default.record  # so that their tokens count as of one space


EVAS = [
    {},
    {"use_rot_pos_emb": True},
    {"use_rot_pos_emb": True, "rope_type": "mixed", "attn_type": "rope"},
    {"use_rot_pos_emb": True, "rope_type": "dinov3", "attn_type": "rope", "num_reg_tokens": 2},
]


@pytest.mark.parametrize("options", EVAS)
def test_eva_equals_a_whole_pass_in_which_dropped_patches_are_never_attended(options):
    """timm's own attention mask: all patches are computed, dropped ones are seen by nobody."""
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = Eva(num_classes=0, global_pool="token", **size, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    prefix = model.num_prefix_tokens
    kept = kept_patches("random", (4, 4), 0.5, seed=0, image_ids=np.arange(3))
    seen = torch.zeros(3, 1, 1, prefix + 16, dtype=torch.bool)
    seen[..., :prefix] = True
    seen[:, 0, 0].scatter_(1, torch.from_numpy(kept) + prefix, True)
    with torch.inference_mode():
        whole = model.forward_features(normalized(pixels()))[:, 0].numpy()
        masked = model.forward_features(normalized(pixels()), attn_mask=seen)[:, 0].numpy()
    encoder = TokenEncoder(model, "imagenet")
    assert np.abs(encoder.encode(pixels(), ALL) - whole).max() <= 1e-5
    assert np.abs(encoder.encode(pixels(), kept) - masked).max() <= 1e-5
    assert np.abs(masked - whole).max() > 1e-3


def test_a_distilled_deit_has_two_tokens_before_its_patches():
    model = build_vit("deit_tiny_distilled_patch16_224", 64, embed_dim=24, depth=2, num_heads=3)
    with torch.inference_mode():
        whole = model.eval().forward_features(normalized(pixels(size=64))).numpy()
    for pool, expected in (("cls", whole[:, 0]), ("mean", whole[:, 2:].mean(axis=1))):
        tokens = TokenEncoder(model, "imagenet", pool=pool).encode(pixels(size=64), ALL)
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


def test_kept_patches_are_embedded_as_by_the_convolution_and_no_others():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, kernel_size=8, stride=8)
    images = torch.randn(2, 3, 16, 24)
    expected = convolution(images)
    projection = KeptProjection(convolution, (2, 3))
    torch.testing.assert_close(projection(images), expected)
    # Image 0 keeps the first row's last and the second row's first patch.
    projection.kept = torch.tensor([[2, 3], [1, 5]])
    keeps = torch.tensor([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]]).unsqueeze(1)
    torch.testing.assert_close(projection(images), expected * keeps)


def test_blocks_see_only_prefix_and_kept_patches(tiny_vit):
    model = tiny_vit(reg_tokens=2)
    lengths = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    TokenEncoder(model, "half").encode(pixels(1), np.array([[1, 2]]))
    assert lengths == [1 + 2 + 2]


def test_the_record_repeats_every_choice(tiny_vit):
    record = TokenEncoder(
        tiny_vit(), "half", pool="mean", layer=1, dtype="bfloat16", name="own", weights_sha256="ab"
    ).record
    assert (record.name, record.weights_sha256) == ("own", "ab")
    assert (record.image_size, record.patch_size) == (32, 8)
    assert (record.pool, record.layer, record.normalization) == ("mean", 1, "half")
    assert (record.dtype, record.device) == ("bfloat16", "cpu")


@pytest.mark.parametrize(
    ("options", "choices", "message"),
    [
        ({"class_token": False, "global_pool": "avg"}, {}, "no class token: use mean pooling"),
        ({}, {"pool": "max"}, "pooling 'max' is unknown: use cls or mean"),
        ({}, {"layer": 3}, r"has 2 blocks: the layer must be 0 \(all\) to 2, not 3"),
        ({}, {"layer": -1}, r"has 2 blocks: the layer must be 0 \(all\) to 2, not -1"),
        ({"img_size": (32, 64)}, {}, "square images in square patches"),
    ],
)
def test_choices_that_the_model_does_not_allow_are_refused(tiny_vit, options, choices, message):
    with pytest.raises(PrepError, match=message):
        TokenEncoder(tiny_vit(**options), "half", **choices)


@pytest.mark.parametrize("name", ["test_vit_relpos", "test_resnet"])
def test_models_in_which_patches_cannot_be_dropped_are_refused(name):
    import timm

    with pytest.raises(PrepError, match=r"cannot be dropped inside .*: use a timm Vision"):
        TokenEncoder(timm.create_model(name), "half")


def test_a_stem_that_mixes_patches_is_refused(tiny_vit):
    """A dropped patch's pixels would reach its neighbors before it is dropped."""
    model = tiny_vit()

    class Convolutions(type(model.patch_embed)):
        pass

    model.patch_embed.__class__ = Convolutions
    with pytest.raises(PrepError, match="cuts patches by one linear map"):
        TokenEncoder(model, "half")


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_vit("test_vit", 32, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert state_sha256(first) == state_sha256(again) != state_sha256(other)


def test_timms_own_options_shape_the_model():
    model = build_vit("vit_tiny_patch16_224", 28, patch_size=4, embed_dim=32, depth=3, num_heads=2)
    assert model.patch_embed.grid_size == (7, 7)
    assert len(model.blocks) == 3
    assert model.pos_embed.shape == (1, 1 + 49, 32)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("no_such_model", 32, {}, "timm knows no model 'no_such_model'"),
        ("resnet18", 32, {}, "timm cannot build resnet18 with img_size=32: .*'img_size'"),
        ("vit_tiny_patch16_224.none", 32, {}, "timm cannot build .*Invalid pretrained tag"),
        ("test_vit_relpos", 32, {}, "not a plain timm VisionTransformer: use a timm"),
        ("test_vit", 40, {}, "40 pixels is no multiple of test_vit's patches of 16"),
        ("test_vit", 8, {}, "8 pixels is no multiple"),
        ("test_vit", 32, {"patch_size": 0}, "timm cannot build test_vit"),
        ("test_vit", 32, {"color": 1}, "timm cannot build test_vit .*'color'"),
    ],
)
def test_encoders_that_cannot_be_built_are_refused(name, size, options, message):
    with pytest.raises(PrepError, match=message) as caught:
        build_vit(name, size, **options)
    assert "\n" not in str(caught.value)
