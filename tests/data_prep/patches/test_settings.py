from dataclasses import replace

import pytest

from data_prep import PrepError
from tests.fakes.masked import SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "16 pixels is no multiple of patches of 5"),
        ({"patch_size": 0}, "no multiple of patches of 0"),
        ({"image_size": 0}, "0 pixels is no multiple"),
        ({"ratio": 1.0}, r"must be at least 0 and below 1, not 1\.0"),
        ({"ratio": 0.99}, "keeps none of 16 patches"),
        ({"kind": "stripes"}, "mask kind 'stripes' is unknown"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"interpolation": "nearest"}, "'nearest' is unknown: use bicubic or bilinear"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(PrepError, match=message):
        replace(SETTINGS, **changes)
