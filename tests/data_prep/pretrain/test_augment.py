import torch

from data_prep.pretrain.augment import crop_and_flip


def ramp(count, size=8):
    return torch.linspace(0, 1, size).expand(count, 1, size, size)


def test_without_crops_an_image_is_itself_or_its_mirror_image():
    pixels = torch.rand(64, 3, 8, 8)
    out = crop_and_flip(pixels, 1.0, torch.Generator().manual_seed(0))
    # Sides have a ratio of up to 4/3, so the longer one is kept whole and the other is scaled.
    assert out.shape == pixels.shape
    rising = crop_and_flip(ramp(200), 1.0, torch.Generator().manual_seed(1))
    mirrored = rising[:, 0, 0, 0] > rising[:, 0, 0, -1]
    assert 60 < int(mirrored.sum()) < 140


def test_a_crop_stays_inside_and_keeps_at_least_its_share():
    """On a ramp from 0 to 1 across, the range of a row is the share of the width that is kept."""
    out = crop_and_flip(ramp(500, 64), 0.5, torch.Generator().manual_seed(2))
    assert out.min() >= 0
    assert out.max() <= 1
    kept = (out[:, 0, 0, 0] - out[:, 0, 0, -1]).abs()
    # An area of 1/2 with a ratio of 3/4 is sqrt(3/8) = 0.61 wide.
    assert 0.58 < float(kept.min()) < 0.75
    assert float(kept.max()) > 0.95


def test_the_generator_decides():
    pixels = torch.rand(4, 3, 8, 8)
    one, two = (crop_and_flip(pixels, 0.3, torch.Generator().manual_seed(5)) for _ in range(2))
    other = crop_and_flip(pixels, 0.3, torch.Generator().manual_seed(6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
