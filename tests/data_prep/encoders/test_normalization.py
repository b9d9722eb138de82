import pytest

from data_prep import PrepError
from data_prep.encoders.normalization import NORMALIZATIONS, resolve, values


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_a_models_known_numbers_get_their_name(name):
    mean, std = NORMALIZATIONS[name]
    assert resolve("model", {"mean": mean, "std": list(std)}) == name
    assert values(name) == (mean, std)


def test_a_models_other_numbers_are_recorded_and_read_again():
    recorded = resolve("model", {"mean": (0.48145466, 0.25, 0.5), "std": (1, 0.5, 0.25)})
    assert recorded == "0.48145466,0.25,0.5/1.0,0.5,0.25"
    assert resolve(recorded) == recorded
    assert values(recorded) == ((0.48145466, 0.25, 0.5), (1.0, 0.5, 0.25))


def test_a_choice_wins_over_the_models_own():
    mean, std = NORMALIZATIONS["imagenet"]
    assert resolve("half", {"mean": mean, "std": std}) == "half"


@pytest.mark.parametrize("config", [None, {}, {"mean": (0.5,), "std": (0.5,)}])
def test_a_model_without_numbers_for_rgb_needs_a_choice(config):
    with pytest.raises(PrepError, match="names no normalization: choose imagenet or half"):
        resolve("model", config)


@pytest.mark.parametrize("name", ["other", "1,1/1,1", "1,1,1", "a,b,c/1,1,1", "1,1,1/1,1,1/1,1,1"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(PrepError, match="is unknown: use one of model, imagenet, half or six num"):
        resolve(name)


@pytest.mark.parametrize("name", ["0,0,0/1,1,0", "0,0,0/-1,1,1", "0,0,0/1,nan,1", "inf,0,0/1,1,1"])
def test_numbers_must_be_finite_and_deviations_above_zero(name):
    with pytest.raises(PrepError, match="needs finite means and deviations above 0"):
        resolve(name)
