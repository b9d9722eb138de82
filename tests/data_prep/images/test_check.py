import time

import pytest

from data_prep import PrepError
from data_prep.images.check import ReadOptions, check_images


def look(row):
    """Early images take longest, so that threads end in another order than they began."""
    time.sleep(0.002 * (5 - row))
    if row in (1, 3):
        raise PrepError(f"Image {row} is damaged.")
    return row * 10, 0, 0, row * 100


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_facts_come_in_order_and_skipped_images_move_no_others(workers):
    found = check_images(look, 5, "train", ReadOptions("skip", workers=workers), str)
    assert found.rows.tolist() == [0, 2, 4]
    assert found.facts.tolist() == [[0, 0, 0, 0], [20, 0, 0, 200], [40, 0, 0, 400]]
    assert found.skipped == ("Image 1 is damaged.", "Image 3 is damaged.")


def test_the_first_damaged_image_in_order_stops():
    with pytest.raises(PrepError, match=r"^Image 1 is damaged; remove it or use --on-error skip"):
        check_images(look, 5, "train", ReadOptions("stop", workers=4), str)


def test_nothing_readable_an_unknown_choice_and_workers_below_none_are_refused():
    def damaged(row):
        raise PrepError("It is damaged.")

    with pytest.raises(PrepError, match=r"None of 2 test images can be read: It is damaged\.$"):
        check_images(damaged, 2, "test", ReadOptions("skip"), str)
    with pytest.raises(PrepError, match="'ignore' is unknown: use stop or skip"):
        ReadOptions("ignore")
    with pytest.raises(PrepError, match="workers must be at least 0, not -1"):
        check_images(look, 5, "train", ReadOptions("skip", workers=-1), str)
