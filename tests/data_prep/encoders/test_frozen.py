import numpy as np
import pytest
import torch

from data_prep import PrepError
from data_prep.encoders.frozen import FrozenNetwork
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
