import numpy as np
import pytest
import torch

from data_prep.encoders.vit import build_vit
from data_prep.masks.draw import kept_patches
from data_prep.pretrain.mae import MaskedAutoencoder, normalize_patches, patchify, unpatchify


def tiny(seed=0):
    encoder = build_vit(
        "vit_tiny_patch16_224", 8, seed=seed, patch_size=2, embed_dim=16, depth=2, num_heads=2
    )
    torch.manual_seed(seed)
    return MaskedAutoencoder(encoder, 12, 1, 1)


def kept_of(count, grid=(4, 4), ratio=0.75):
    return kept_patches("random", grid, ratio, seed=3, image_ids=np.arange(count))


def test_patches_are_cut_in_row_order_and_put_together_again():
    pixels = torch.arange(2 * 3 * 16).reshape(2, 3, 4, 4).float()
    patches = patchify(pixels, 2)
    assert patches.shape == (2, 4, 12)
    # Rows 0 to 1 and columns 2 to 3 of the first channel of the first image.
    assert patches[0, 1, :4].tolist() == [2.0, 3.0, 6.0, 7.0]
    assert patches[0, 2, :4].tolist() == [8.0, 9.0, 12.0, 13.0]
    assert torch.equal(unpatchify(patches, (2, 2), 2), pixels)


def test_a_patch_is_normalized_by_its_own_mean_and_deviation():
    """Mean 3; squared deviations 4, 0, 4 divided by 3 - 1 give variance 4: -1, 0, 1."""
    patches = torch.tensor([[[1.0, 3.0, 5.0], [7.0, 7.0, 7.0]]])
    wanted = torch.tensor([[[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(normalize_patches(patches), wanted, atol=1e-6, rtol=1e-6)


def test_the_loss_counts_dropped_patches_only():
    model, pixels, kept = tiny(), torch.rand(3, 3, 8, 8), kept_of(3)
    with torch.inference_mode():
        drawn = model.reconstruct(pixels, kept)
        target = normalize_patches(patchify(pixels, 2))
        errors = [
            (drawn[image, patch] - target[image, patch]).square().mean()
            for image in range(3)
            for patch in range(16)
            if patch not in kept[image]
        ]
        assert len(errors) == 3 * 12
        torch.testing.assert_close(model(pixels, kept), torch.stack(errors).mean())


def test_pixels_of_dropped_patches_reach_no_drawn_patch():
    model, pixels, kept = tiny(), torch.rand(2, 3, 8, 8), kept_of(2)
    shown = torch.zeros(2, 16, 1)
    shown.scatter_(1, torch.from_numpy(kept).unsqueeze(-1), 1)
    hidden = unpatchify(patchify(pixels, 2) * shown, (4, 4), 2)
    with torch.inference_mode():
        assert not torch.equal(pixels, hidden)
        assert torch.equal(model.reconstruct(pixels, kept), model.reconstruct(hidden, kept))


def test_each_kept_patch_stands_at_its_own_place_before_the_decoder():
    """With no block between, a drawn patch depends on the token at its place alone."""
    model, pixels = tiny(), torch.rand(1, 3, 8, 8)
    model.blocks = torch.nn.Sequential()
    kept = np.array([[1, 6, 11, 12]])
    with torch.inference_mode():
        seen = model.embed(_encoded(model, pixels, kept))
        drawn = model.reconstruct(pixels, kept)
        for slot, patch in enumerate(kept[0]):
            at_place = seen[:, 1 + slot] + model.positions[:, 1 + patch]
            torch.testing.assert_close(drawn[:, patch], model.draw(model.norm(at_place)))
        unseen = model.mask_token[:, 0] + model.positions[:, 1 + 5]
        torch.testing.assert_close(drawn[:, 5], model.draw(model.norm(unseen)))


def _encoded(model, pixels, kept):
    model.gather.kept = torch.from_numpy(kept)
    return model.encoder.forward_features(pixels)


def test_the_encoder_runs_on_kept_patches_only():
    model = tiny()
    lengths = []
    hook = lambda module, inputs, output: lengths.append(inputs[0].shape[1])  # noqa: E731
    for block in model.encoder.blocks:
        block.register_forward_hook(hook)
    model(torch.rand(2, 3, 8, 8), kept_of(2))
    assert lengths == [1 + 4, 1 + 4]


def test_positions_start_as_sines_and_cosines_with_zeros_for_the_class_token():
    model = tiny()
    positions = model.encoder.pos_embed.detach()
    assert positions.shape == (1, 17, 16)
    assert not positions[:, 0].any()
    # Row 0, column 0: the sine half is 0 and the cosine half is 1.
    assert sorted(positions[0, 1].tolist()) == [0.0] * 8 + [1.0] * 8


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_it_learns_to_draw_what_it_cannot_see(ratio):
    """Each image is one ramp in a random direction: kept patches tell all others."""
    torch.manual_seed(0)
    slope = torch.randn(64, 2, 1, 1)
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij"
    )
    pixels = (slope[:, :1] * rows + slope[:, 1:] * columns).repeat(1, 3, 1, 1)
    model, kept = tiny(), kept_of(64, ratio=ratio)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = model(pixels, kept).item()
    for _ in range(120):
        optimizer.zero_grad()
        loss = model(pixels, kept)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first
