import numpy as np
import pytest
import timm
import torch

from data_prep import PrepError
from data_prep.encoders.cnn import PooledEncoder, blacken
from data_prep.encoders.frozen import NORMALIZATIONS
from data_prep.encoders.timm import create
from data_prep.masks.draw import kept_patches

ALL = np.tile(np.arange(16), (3, 1))


def pixels(batch=3, size=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)


def normalized(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALIZATIONS["imagenet"])
    return (images / 255 - mean) / std


def cnn(name="test_resnet"):
    """A small CNN whose BatchNorm has seen data, so that its two modes differ."""
    model = create(name, 0, global_pool="avg").train()
    with torch.no_grad():
        model(normalized(pixels(8)))
    return model.eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_without_a_mask_it_is_timms_own_features(name):
    model = cnn(name)
    with torch.inference_mode():
        expected = model(normalized(pixels())).numpy()
    encoder = PooledEncoder(model, 64, normalization="imagenet")
    tokens = encoder.encode(pixels(), ALL)
    assert tokens.shape == (3, encoder.dim)
    assert tokens.dtype == np.float32
    assert np.abs(tokens - expected).max() <= 1e-5


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_with_a_mask_it_is_the_mean_of_the_last_map_of_a_blackened_image(ratio):
    model = cnn()
    kept = kept_patches("random", (4, 4), ratio, seed=0, image_ids=np.arange(3))
    images = pixels()
    for image, indices in zip(images, kept, strict=True):
        for dropped in set(range(16)) - set(indices.tolist()):
            row, column = 16 * (dropped // 4), 16 * (dropped % 4)
            image[:, row : row + 16, column : column + 16] = 0
    with torch.inference_mode():
        expected = model.forward_features(normalized(images)).mean(dim=(2, 3)).numpy()
    tokens = PooledEncoder(model, 64, normalization="imagenet").encode(pixels(), kept)
    assert np.abs(tokens - expected).max() <= 1e-5


def test_pixels_outside_kept_patches_become_zero():
    """Of 2 x 2 patches of 2 pixels the first image keeps the right column, the second patch 2."""
    ones = torch.ones(2, 3, 4, 4, dtype=torch.uint8)
    masked = blacken(ones, torch.tensor([[1, 3], [2, 2]]), (2, 2), 2)
    assert masked.dtype == torch.uint8
    right = [[0, 0, 1, 1]] * 4
    lower_left = [[0, 0, 0, 0]] * 2 + [[1, 1, 0, 0]] * 2
    assert masked[0].tolist() == [right] * 3
    assert masked[1].tolist() == [lower_left] * 3
    assert ones.all()


def test_an_image_that_is_black_already_gives_the_same_token():
    """What a gateway gets that holds the kept patches only."""
    encoder = PooledEncoder(cnn(), 64)
    kept = kept_patches("random", (4, 4), 0.5, seed=0, image_ids=np.arange(3))
    stored = blacken(pixels(), torch.from_numpy(kept), (4, 4), 16)
    np.testing.assert_array_equal(encoder.encode(stored, kept), encoder.encode(pixels(), kept))


def test_a_token_depends_on_its_image_alone():
    """Not on the batch, as with BatchNorm in training mode."""
    model = create("test_resnet", 0, global_pool="avg").train()
    encoder = PooledEncoder(model, 64)
    assert not model.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    together = encoder.encode(pixels(), ALL)
    alone = encoder.encode(pixels()[1:2], ALL[:1])
    assert np.abs(together[1:2] - alone).max() <= 1e-5
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_barely_turn_the_tokens(dtype):
    exact = PooledEncoder(cnn(), 64).encode(pixels(), ALL)
    encoder = PooledEncoder(cnn(), 64, dtype=dtype)
    rounded = encoder.encode(pixels(), ALL)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(axis=1) / norms).min() > 0.99
    assert encoder.record.dtype == dtype


def test_the_record_says_mean_and_names_the_grids_patches():
    encoder = PooledEncoder(cnn(), 64, 8, "half", name="own", weights_sha256="ab")
    assert encoder.grid == (8, 8)
    record = encoder.record
    assert (record.name, record.weights_sha256, record.pool) == ("own", "ab", "mean")
    assert (record.image_size, record.patch_size, record.layer) == (64, 8, 0)
    assert (record.normalization, record.dtype, record.device) == ("half", "float32", "cpu")


@pytest.mark.parametrize(("size", "patch"), [(64, 24), (8, 16), (64, 0), (0, 16)])
def test_patches_must_divide_the_image(size, patch):
    with pytest.raises(PrepError, match=f"{size} pixels is no multiple of patches of {patch}"):
        PooledEncoder(cnn(), size, patch)


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout"])
def test_a_network_that_does_not_end_in_a_map_of_channels_first_is_refused(name):
    model = timm.create_model(name, num_classes=0)
    with pytest.raises(PrepError, match=f"cannot be dropped for {name}: use a timm Vision"):
        PooledEncoder(model, 160)


def test_an_image_too_small_for_the_network_is_refused():
    class TooSmall(torch.nn.Module):
        num_features = 4

        def forward_features(self, x):
            raise RuntimeError("Kernel size can't be greater than actual input size\nsecond line")

    with pytest.raises(PrepError, match=r"cannot read images of 16 pixels: Kernel size .* size\.$"):
        PooledEncoder(TooSmall(), 16, normalization="half")
