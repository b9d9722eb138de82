import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.masks.draw import MASK_KINDS, kept_patches

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def draw(kind, grid, kept, *, seed=0, ids=(0,), epoch=0):
    """Draw masks by the number kept; the public entrance takes a ratio."""
    return MASK_KINDS[kind](grid, kept, seed, np.array(ids), epoch)


def picture(grid, kept):
    flat = np.zeros(grid[0] * grid[1], dtype=int)
    flat[kept] = 1
    return ["".join(".#"[patch] for patch in row) for row in flat.reshape(grid)]


@st.composite
def grids_and_counts(draw_from):
    grid = draw_from(GRIDS)
    return grid, draw_from(st.integers(1, grid[0] * grid[1]))


@pytest.mark.parametrize("kind", MASK_KINDS)
@given(case=grids_and_counts(), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1))
def test_every_count_is_exact_and_every_batch_agrees(kind, case, seed, epoch):
    grid, kept = case
    ids = [5, 0, 2**63 - 1, 5]
    masks = draw(kind, grid, kept, seed=seed, ids=ids, epoch=epoch)
    assert masks.shape == (4, kept)
    assert masks.dtype == np.int64
    assert (np.diff(masks, axis=1) > 0).all()
    assert masks.min() >= 0
    assert masks.max() < grid[0] * grid[1]
    for row, image_id in enumerate(ids):
        alone = draw(kind, grid, kept, seed=seed, ids=[image_id], epoch=epoch)
        np.testing.assert_array_equal(alone[0], masks[row])


def test_masks_drawn_from_the_seed_never_change():
    """Recorded once: a stored shard's masks must come out the same in every later release."""
    ids = np.array([0, 2**63 - 1])
    fixed = kept_patches("fixed", (4, 4), 0.75, seed=2**64 - 1, image_ids=ids)
    assert fixed.tolist() == [[4, 10, 12, 14]] * 2
    block = kept_patches("block", (4, 4), 0.75, seed=2**64 - 1, image_ids=ids, epoch=3)
    assert block.tolist() == [[2, 3, 6, 7], [5, 6, 9, 10]]


def test_what_a_mask_depends_on():
    """Masks of 98 in 14 x 14 patches after a change of the seed, the image or the epoch."""
    changes = ({"seed": 1}, {"ids": (1,)}, {"epoch": 1})
    changed = {
        kind: [
            not np.array_equal(draw(kind, (14, 14), 98), draw(kind, (14, 14), 98, **change))
            for change in changes
        ]
        for kind in MASK_KINDS
    }
    assert changed == {
        "random": [True, True, True],
        "fixed": [True, False, False],
        "grid": [False, False, False],
        "block": [True, True, True],
        "center": [False, False, False],
    }


def test_the_fixed_mask_is_no_images_random_mask():
    fixed, random = (draw(kind, (14, 14), 98, ids=range(50)) for kind in ("fixed", "random"))
    assert not (fixed == random).all(axis=1).any()


def test_grid_patterns_by_hand():
    """Half is a checkerboard, 9 of 36 every second patch of every second row, 27 the others."""
    assert picture((4, 4), draw("grid", (4, 4), 8)[0]) == ["#.#.", ".#.#", "#.#.", ".#.#"]
    quarter = ["......", "#.#.#.", "......", ".#.#.#", "......", "#.#.#."]
    assert picture((6, 6), draw("grid", (6, 6), 9)[0]) == quarter
    inverse = [row.translate(str.maketrans(".#", "#.")) for row in quarter]
    assert picture((6, 6), draw("grid", (6, 6), 27)[0]) == inverse
    assert picture((1, 9), draw("grid", (1, 9), 3)[0]) == [".#..#..#."]
    assert picture((3, 3), draw("grid", (3, 3), 1)[0]) == ["...", ".#.", "..."]


@given(case=grids_and_counts())
def test_no_gap_in_a_grid_is_twice_as_large_as_it_must_be(case):
    """A kept patch reaches (2g + 1)^2 patches within g: fewer than all of them leave a gap above g.

    Rows and columns count alike (Chebyshev distance).
    """
    grid, kept = case
    kept_rows, kept_columns = np.divmod(draw("grid", grid, kept)[0], grid[1])
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    down, across = (np.abs(a[:, None] - b) for a, b in ((rows, kept_rows), (columns, kept_columns)))
    gap = np.maximum(down, across).min(axis=1).max()
    needed = next(
        g
        for g in range(10)
        if kept * min(2 * g + 1, grid[0]) * min(2 * g + 1, grid[1]) >= grid[0] * grid[1]
    )
    assert needed <= gap <= 2 * needed


@given(case=grids_and_counts(), seed=st.integers(0, 2**64 - 1), image_id=st.integers(0, 2**63 - 1))
def test_a_block_is_one_region_in_a_nearly_full_rectangle(case, seed, image_id):
    grid, kept = case
    region = {
        tuple(divmod(p, grid[1])) for p in draw("block", grid, kept, seed=seed, ids=[image_id])[0]
    }
    reached, border = set(), [min(region)]
    while border:
        r, c = border.pop()
        if (r, c) in region - reached:
            reached.add((r, c))
            border += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
    assert reached == region
    height, width = (max(axis) - min(axis) + 1 for axis in zip(*region, strict=True))
    assert height * width - kept < width


@pytest.mark.parametrize(
    ("kept", "box"), [(4, (2, 2)), (6, (2, 3)), (7, (3, 3)), (9, (3, 3)), (12, (3, 4)), (1, (1, 1))]
)
def test_a_block_is_as_square_as_its_number_allows(kept, box):
    rows, columns = np.divmod(draw("block", (6, 6), kept)[0], 6)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == box


def test_a_block_appears_in_every_place_equally_often():
    """2 x 2 in 4 x 4 has 9 places; of 9,000 draws each gets 1,000, standard deviation 30."""
    corners = draw("block", (4, 4), 4, ids=range(9000))[:, 0]
    places, counts = np.unique(corners, return_counts=True)
    assert places.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert np.abs(counts - 1000).max() < 150


def test_center_by_hand():
    """Twice the squared distances in 3 x 3 are 0 in the middle, 4 beside it, 8 in the corners."""
    assert picture((3, 3), draw("center", (3, 3), 5)[0]) == [".#.", "###", ".#."]
    assert picture((3, 3), draw("center", (3, 3), 3)[0]) == [".#.", "##.", "..."]
    assert picture((4, 4), draw("center", (4, 4), 4)[0]) == ["....", ".##.", ".##.", "...."]


@given(case=grids_and_counts())
def test_center_holds_the_center_and_leaves_nothing_nearer_out(case):
    grid, kept = case
    chosen = draw("center", grid, kept)[0]
    assert (grid[0] - 1) // 2 * grid[1] + (grid[1] - 1) // 2 in chosen
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    distance = (rows - (grid[0] - 1) / 2) ** 2 + (columns - (grid[1] - 1) / 2) ** 2
    assert distance[chosen].max() <= np.delete(distance, chosen).min(initial=np.inf)
