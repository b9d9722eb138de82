import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.masks.draw import MASK_KINDS, kept_patches
from data_prep.masks.names import describe_kinds, kept_count

RATIOS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_kept_patches_of_196_are_the_papers():
    expected = [196, 176, 156, 137, 117, 98, 78, 58, 39, 19]
    assert [kept_count(196, ratio) for ratio in RATIOS] == expected


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [(100, 0.9, 10), (10, 0.9, 1), (1000, 0.999, 1), (1, 0.0, 1), (100, 1e-05, 99), (49, 0.5, 24)],
)
def test_kept_count_is_exact_where_floating_point_is_not(patches, ratio, kept):
    assert kept_count(patches, ratio) == kept
    assert kept_count(patches, np.float64(ratio)) == kept


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_ratios_outside_the_range_are_refused(ratio):
    with pytest.raises(PrepError, match="at least 0 and below 1"):
        kept_count(196, ratio)


def test_a_ratio_that_keeps_nothing_is_refused():
    with pytest.raises(PrepError, match=r"ratio of 0.9 keeps none of 4 patches: use a smaller"):
        kept_count(4, 0.9)
    with pytest.raises(PrepError, match="at least 1 patch"):
        kept_count(0, 0.5)


def test_masks_never_change():
    """Recorded once: a stored shard's masks must come out the same in every later release."""
    first = kept_patches("random", (4, 4), 0.75, seed=2**64 - 1, image_ids=np.array([0, 2**63 - 1]))
    assert first.tolist() == [[8, 9, 12, 13], [3, 7, 9, 10]]
    later = kept_patches("random", (3, 3), 0.5, seed=1, image_ids=np.array([0, 1]), epoch=3)
    assert later.tolist() == [[0, 3, 5, 8], [0, 2, 5, 8]]


@pytest.mark.parametrize("kind", MASK_KINDS)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ratio=st.integers(0, 9).map(lambda tenths: tenths / 10),
    seed=st.integers(0, 2**64 - 1),
    ids=st.lists(st.integers(0, 2**63 - 1), max_size=5),
    epoch=st.integers(0, 2**64 - 1),
)
def test_every_kind_gives_sorted_unique_indices_that_follow_from_the_arguments(
    kind, grid, ratio, seed, ids, epoch
):
    patches = grid[0] * grid[1]
    # Whole-number floor(patches * (1 - r)) for r in tenths.
    expected = patches * (10 - round(ratio * 10)) // 10
    if expected < 1:
        return
    image_ids = np.array(ids, dtype=np.int64)

    def draw(chosen):
        return kept_patches(kind, grid, ratio, seed=seed, image_ids=chosen, epoch=epoch)

    kept = draw(image_ids)
    assert kept.shape == (len(ids), expected)
    assert kept.dtype == np.int64
    assert (np.diff(kept, axis=1) > 0).all()
    assert ((kept >= 0) & (kept < patches)).all()
    np.testing.assert_array_equal(draw(image_ids), kept)
    # An image's mask does not depend on the batch that it is drawn in.
    np.testing.assert_array_equal(draw(image_ids[::-1]), kept[::-1])


def test_every_kind_is_described_in_a_line():
    lines = describe_kinds()
    assert [line.partition(":")[0] for line in lines] == list(MASK_KINDS)
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    assert 'not the paper\'s "fixed"' in lines[1]


def test_seed_image_and_epoch_each_give_another_mask():
    def draw(seed=0, image_id=0, epoch=0):
        ids = np.array([image_id])
        kept = kept_patches("random", (14, 14), 0.5, seed=seed, image_ids=ids, epoch=epoch)
        return tuple(kept[0])

    assert len({draw(), draw(seed=1), draw(image_id=1), draw(epoch=1)}) == 4


def test_each_patch_is_kept_equally_often():
    """10,000 fair draws of 4 in 16: 2,500 a patch, standard deviation 43; 5 of them are 217."""
    kept = kept_patches("random", (4, 4), 0.75, seed=0, image_ids=np.arange(10_000))
    assert np.abs(np.bincount(kept.ravel(), minlength=16) - 2500).max() < 217


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "spiral"}, "mask kind 'spiral' is unknown: use one of random"),
        ({"seed": -1}, "The seed must be 0 to"),
        ({"epoch": 2**64}, "The epoch must be 0 to"),
        ({"image_ids": np.array([3, -1])}, "Image ids must be 0 and up, not -1"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    options = {"kind": "random", "grid": (2, 2), "ratio": 0.5, "seed": 0, "image_ids": np.arange(2)}
    with pytest.raises(PrepError, match=message):
        kept_patches(**(options | change))
