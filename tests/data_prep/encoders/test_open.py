import hashlib

import numpy as np
import pytest
import torch

from data_prep import PrepError
from data_prep.encoders import open as encoders
from data_prep.encoders.checkpoints import write_encoder
from data_prep.encoders.frozen import resolve_normalization
from data_prep.encoders.settings import EncoderSettings
from data_prep.encoders.vit import build_vit
from data_prep.encoders.weights import state_sha256

SIZES = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
DESCRIPTION = {
    "timm": "vit_tiny_patch16_224",
    "kwargs": {"img_size": 28, **SIZES},
    "normalisation": "0.25,0.5,0.5/1,1,1",
    "label": "our own",
}
ALL = np.arange(49)[None]


def open_encoder(encoder, weights="", seed=0, **options):
    return encoders.open_encoder(EncoderSettings(encoder=encoder, weights=weights, **options), seed)


def pixels(size=28):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture
def own_file(tmp_path):
    """An encoder of 7 x 7 patches that describes itself, in full precision."""
    file = tmp_path / "own.safetensors"
    write_encoder(
        file, build_vit("vit_tiny_patch16_224", 28, seed=1, **SIZES), DESCRIPTION, "float32"
    )
    return file


def test_a_file_that_describes_itself_needs_no_other_word(own_file):
    encoder = open_encoder(str(own_file))
    model = build_vit("vit_tiny_patch16_224", 28, seed=1, **SIZES).eval()
    mean = torch.tensor([0.25, 0.5, 0.5]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = model.forward_features(pixels() / 255 - mean)[:, 0].numpy()
    assert np.abs(encoder.encode(pixels(), ALL) - expected).max() <= 1e-5
    assert encoder.grid == (7, 7)
    assert encoder.dim == 24
    record = encoder.record
    assert record.name == "our own"
    assert record.weights_sha256 == hashlib.sha256(own_file.read_bytes()).hexdigest()
    assert (record.image_size, record.patch_size) == (28, 4)
    assert record.normalization == "0.25,0.5,0.5/1.0,1.0,1.0"  # one spelling for equal numbers


def test_options_win_over_the_description(own_file):
    encoder = open_encoder(
        str(own_file),
        image_size=32,
        pool="mean",
        layer=1,
        normalization="half",
        compute_dtype="bfloat16",
    )
    record = encoder.record
    assert encoder.grid == (8, 8)
    assert (record.name, record.image_size, record.pool, record.layer) == ("our own", 32, "mean", 1)
    assert (record.normalization, record.dtype) == ("half", "bfloat16")
    assert encoder.encode(pixels(32), np.arange(9)[None]).dtype == np.float32


def test_random_weights_are_a_control_for_any_encoder(own_file):
    control = open_encoder(str(own_file), "random", seed=3)
    expected = build_vit("vit_tiny_patch16_224", 28, seed=3, **SIZES)
    assert control.record.weights_sha256 == state_sha256(expected)
    assert control.record.name == "our own, random weights"
    assert open_encoder("test_resnet", "random").record.name == "test_resnet, random weights"


def test_a_checkpoint_may_fill_a_timm_model_or_replace_a_files_own(tmp_path, own_file):
    other = build_vit("vit_tiny_patch16_224", 28, seed=2, **SIZES)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    replaced = open_encoder(str(own_file), str(tmp_path / "other.pth"))
    drawn = open_encoder(str(own_file), "random", seed=2)
    np.testing.assert_array_equal(replaced.encode(pixels(), ALL), drawn.encode(pixels(), ALL))
    torch.save(build_vit("test_vit", 32, seed=2).state_dict(), tmp_path / "vit.pth")
    filled = open_encoder("test_vit", str(tmp_path / "vit.pth"), image_size=32)
    drawn = open_encoder("test_vit", "random", image_size=32, seed=2)
    kept = np.arange(4)[None]
    np.testing.assert_array_equal(filled.encode(pixels(32), kept), drawn.encode(pixels(32), kept))
    assert len(filled.record.weights_sha256) == 64


def test_sizes_come_from_timms_configuration_where_none_are_given():
    """timm's small test models are configured for 160 pixels."""
    assert open_encoder("test_vit", "random").record.image_size == 160
    assert open_encoder("test_vit", "random").grid == (10, 10)
    assert open_encoder("test_vit", "random", patch_size=8).grid == (20, 20)
    assert open_encoder("test_resnet", "random").grid == (10, 10)
    assert open_encoder("test_resnet", "random", image_size=64, patch_size=8).grid == (8, 8)


def test_timms_published_weights_are_resampled_and_hashed_as_published(monkeypatch):
    published = build_vit("test_vit", 64, seed=4)
    monkeypatch.setattr(encoders, "published", lambda name: published)
    encoder = open_encoder("test_vit", "pretrained", image_size=64)
    drawn = open_encoder("test_vit", "random", image_size=64, seed=4)
    kept = np.arange(5)[None]
    np.testing.assert_array_equal(encoder.encode(pixels(64), kept), drawn.encode(pixels(64), kept))
    smaller = open_encoder("test_vit", "pretrained", image_size=32)
    assert smaller.record.weights_sha256 == encoder.record.weights_sha256
    assert smaller.record.weights_sha256 == state_sha256(published)


def test_published_weights_without_a_network_are_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PrepError, match="weights of test_vit cannot be fetched") as caught:
        open_encoder("test_vit", "pretrained")
    assert "\n" not in str(caught.value)


def test_the_embedded_encoder_is_the_packages_file(monkeypatch, own_file, tmp_path):
    monkeypatch.setattr(encoders, "EMBEDDED", own_file)
    named, embedded = open_encoder(str(own_file)), open_encoder("embedded")
    assert embedded.record == named.record
    monkeypatch.setattr(encoders, "EMBEDDED", tmp_path / "none")
    with pytest.raises(PrepError, match="lacks the embedded encoder: make one with flower-ist pre"):
        open_encoder("embedded")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("no_such_model", "random"), {}, "timm knows no model 'no_such_model'"),
        (("vit_tiny_patch16_224.none", "random"), {}, "timm knows no weights 'vit_tiny_patch16_2"),
        (("test_vit",), {}, "test_vit needs weights: use pretrained .* or random"),
        (("none.safetensors",), {}, "There is no encoder at none.safetensors"),
        (("test_vit", "none.pth"), {}, "There is no .safetensors checkpoint at none.pth"),
        (("test_vit_relpos", "random"), {}, "cannot be dropped for test_vit_relpos: use a timm"),
        (("test_resnet", "random"), {"layer": 1}, "no ViT and always run whole"),
        (("test_vit", "random"), {"image_size": 0}, "0 pixels|timm cannot build"),
        (("test_vit", "random"), {"pool": "max"}, "pooling 'max' is unknown"),
        (("test_resnet", "random"), {"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_opened_is_refused(arguments, options, message):
    with pytest.raises(PrepError, match=message) as caught:
        open_encoder(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_file_has_no_published_weights(own_file):
    with pytest.raises(PrepError, match="comes with its own weights: leave out 'pretrained'"):
        open_encoder(str(own_file), "pretrained")


@pytest.mark.parametrize(
    "name", ["imagenet", "0.4850,.456,0.406/0.229,0.224,0.225", "0.485,0.456,0.406/.229,.224,.2250"]
)
def test_equal_numbers_have_one_name(name):
    assert resolve_normalization(name) == "imagenet"
