import numpy as np
import pytest
import torch

from data_prep import PrepError
from data_prep.encoders.frozen import (
    NORMALIZATIONS,
    FrozenNetwork,
    normalization_values,
    resolve_normalization,
)
from data_prep.encoders.vit import TokenEncoder
from data_prep.masks.draw import kept_patches


def pixels(batch=8, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)


def test_pixels_are_scaled_by_hand_made_numbers():
    """(255/255 - .5)/.5 = 1, (0 - .5)/.5 = -1, (51/255 - .5)/.5 = -.6."""
    network = FrozenNetwork(torch.nn.Identity(), "half")
    scaled = network.scale(torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1))
    np.testing.assert_allclose(scaled.flatten(), [1, -1, -0.6], atol=1e-6)


def test_the_model_is_frozen_and_no_graph_is_kept(tiny_vit):
    model = tiny_vit().train()
    network = FrozenNetwork(model, "half")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    modes = []
    network.run(lambda x: modes.append(torch.is_inference_mode_enabled()) or x, pixels())
    assert modes == [True]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_round_weights_and_activations_and_barely_turn_the_tokens(tiny_vit, dtype):
    kept = kept_patches("random", (4, 4), 0.5, seed=0, image_ids=np.arange(8))
    exact = TokenEncoder(tiny_vit(), "half").encode(pixels(), kept)
    model = tiny_vit()
    seen = []
    model.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(str(args[0].dtype)))
    rounded = TokenEncoder(model, "half", dtype=dtype).encode(pixels(), kept)
    assert seen == [f"torch.{dtype}"]
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}
    assert rounded.dtype == np.float32
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    cosine = (exact * rounded).sum(axis=1) / norms
    assert cosine.min() > 0.99
    assert np.abs(exact - rounded).max() > 0


def test_an_unknown_dtype_or_device_is_refused(tiny_vit):
    with pytest.raises(PrepError, match="'int4' is unknown: use one of float32, bfloat16, float16"):
        FrozenNetwork(tiny_vit(), "half", dtype="int4")
    with pytest.raises(PrepError, match="The device 'abacus' cannot be used: ") as caught:
        FrozenNetwork(tiny_vit(), "half", "abacus")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_this_machine_lacks_is_refused(tiny_vit, device):
    if getattr(torch, device).is_available():
        pytest.skip(f"this machine has {device}")
    with pytest.raises(PrepError, match=f"The device '{device}' cannot be used: "):
        FrozenNetwork(tiny_vit(), "half", device)


def failing(error):
    def forward(x):
        raise error

    return forward


def test_what_the_device_cannot_run_is_a_sentence(tiny_vit):
    network = FrozenNetwork(tiny_vit(), "half", dtype="float16")
    missing = RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")
    with pytest.raises(PrepError, match=r"cpu cannot run this network in float16 \(.*use float32"):
        network.run(failing(missing), pixels())
    with pytest.raises(PrepError, match=r"8 images at once do not fit .* smaller batch size"):
        network.run(failing(torch.cuda.OutOfMemoryError()), pixels())
    with pytest.raises(RuntimeError, match="a defect"):
        network.run(failing(RuntimeError("a defect")), pixels())


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_a_models_known_numbers_get_their_name(name):
    mean, std = NORMALIZATIONS[name]
    assert resolve_normalization("model", {"mean": mean, "std": list(std)}) == name
    assert normalization_values(name) == (mean, std)


def test_a_models_other_numbers_are_recorded_and_read_again():
    recorded = resolve_normalization(
        "model", {"mean": (0.48145466, 0.25, 0.5), "std": (1, 0.5, 0.25)}
    )
    assert recorded == "0.48145466,0.25,0.5/1.0,0.5,0.25"
    assert resolve_normalization(recorded) == recorded
    assert normalization_values(recorded) == ((0.48145466, 0.25, 0.5), (1.0, 0.5, 0.25))


def test_a_choice_wins_over_the_models_own():
    mean, std = NORMALIZATIONS["imagenet"]
    assert resolve_normalization("half", {"mean": mean, "std": std}) == "half"


@pytest.mark.parametrize("config", [None, {}, {"mean": (0.5,), "std": (0.5,)}])
def test_a_model_without_numbers_for_rgb_needs_a_choice(config):
    with pytest.raises(PrepError, match="names no normalization: choose imagenet or half"):
        resolve_normalization("model", config)


@pytest.mark.parametrize("name", ["other", "1,1/1,1", "1,1,1", "a,b,c/1,1,1", "1,1,1/1,1,1/1,1,1"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(PrepError, match="is unknown: use one of model, imagenet, half or six num"):
        resolve_normalization(name)


@pytest.mark.parametrize("name", ["0,0,0/1,1,0", "0,0,0/-1,1,1", "0,0,0/1,nan,1", "inf,0,0/1,1,1"])
def test_numbers_must_be_finite_and_deviations_above_zero(name):
    with pytest.raises(PrepError, match="needs finite means and deviations above 0"):
        resolve_normalization(name)
