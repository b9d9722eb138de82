"""What a sweep varies for whom, and that it is what the app itself makes of the settings."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from flower_ist.compare.command import DEFAULT_SETTINGS
from flower_ist.compare.plan import Plan, Run
from flower_ist.compare.usage import CLOSED_FORM, STRATEGIES, uses
from flower_ist.grids.clients import ClientRegistry
from flower_ist.submodels.schemes import SCHEMES
from server_app.build import BUILDERS, check_strategy
from server_app.settings import Settings, SettingsError
from tests.fakes import ROOT

APP = ROOT
PLAN = Plan(str(APP), "", "", tuple(BUILDERS), clients=4, rounds=2, seeds=1)
FLOWERS = sorted(BUILDERS.keys() - SCHEMES.keys() - set(CLOSED_FORM))
TRAINED = sorted(BUILDERS.keys() - set(CLOSED_FORM))
SLICED = {"ist", "ist-fixed"}


def config_of(strategy: str, **changes: Any) -> dict[str, Any]:
    """The run config that a comparison gives a strategy."""
    with (APP / "pyproject.toml").open("rb") as file:
        base = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    changes = {key.replace("_", "-"): value for key, value in changes.items()}
    return {**base, **DEFAULT_SETTINGS, **Run(strategy, {}, 0).config(PLAN, base), **changes}


def test_the_names_are_those_of_the_app():
    assert set(STRATEGIES) == BUILDERS.keys()
    assert len(STRATEGIES) == len(BUILDERS)


@pytest.mark.parametrize("strategy", BUILDERS)
@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("num-slices", {"num_slices": 4}),
        ("shares", {"shares": "2,1", "num_slices": 2}),
        ("close-early", {"close_early": True, "num_slices": 4}),
        ("merge-rule", {"merge_rule": "median"}),
        ("norm-bound", {"norm_bound": 2.0}),
        ("privacy-clip", {"privacy_clip": 1.0}),
    ],
)
def test_what_the_app_refuses_is_not_varied(strategy: str, key: str, others: dict[str, Any]):
    settings = config_of(strategy, **others)
    try:
        check_strategy(Settings.from_run_config(settings))
    except SettingsError:
        assert not uses(strategy, key, {})


class _Recording:
    """Settings that remember which of them were asked for, under their kebab-case keys."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name.replace("_", "-"))
        return getattr(self.settings, name)


@pytest.mark.parametrize("strategy", FLOWERS)
def test_flowers_strategies_use_what_they_are_built_with(strategy: str):
    settings = _Recording(Settings.from_run_config(config_of(strategy)))
    BUILDERS[strategy](settings, [8, 8, 2], ClientRegistry(), None)  # type: ignore[arg-type]
    for key in (
        "close-early",
        "merge-rule",
        "norm-bound",
        "num-slices",
        "packed",
        "proximal-mu",
        "quarantine-after",
        "quarantine-rounds",
        "server-learning-rate",
        "server-momentum",
        "shares",
        "trimmed-share",
    ):
        assert uses(strategy, key, {}) == (key in settings.asked), key


@pytest.mark.parametrize(
    ("key", "users"),
    [
        ("batch-size", TRAINED),
        ("standardize", TRAINED),
        ("replay", TRAINED),
        ("ridge-blend", TRAINED),
        ("fraction-train", TRAINED),
        ("validation-share", BUILDERS),
        ("max-examples", BUILDERS),
        ("num-slices", SLICED),
        ("shares", SLICED),
        ("merge-rule", SCHEMES),
        ("server-momentum", {"fedavgm"}),
        ("server-learning-rate", {"fedavgm", "fedadam", "fedyogi"}),
        ("trimmed-share", {"fedtrimmedavg"}),
        ("ridge-penalties", {"ridge"}),
    ],
)
def test_who_uses_a_setting(key, users):
    assert {name for name in BUILDERS if uses(name, key, {})} == set(users)


@pytest.mark.parametrize(
    ("key", "beside", "more"),
    [
        ("trimmed-share", {"merge-rule": ("mean", "trimmed-mean")}, SCHEMES),
        ("trimmed-share", {"merge-rule": ("median",)}, ()),
        ("ridge-penalties", {"ridge-blend": (0.0, 2.0)}, TRAINED),
        ("ridge-penalties", {"ridge-blend": (0.0,)}, ()),
    ],
)
def test_what_is_used_only_beside_another_setting(key, beside, more):
    alone = {name for name in BUILDERS if uses(name, key, {})}
    assert {name for name in BUILDERS if uses(name, key, beside)} == alone | set(more)


def test_the_harness_own_rivals_use_what_fedavg_does():
    for key in ("local-steps", "num-slices", "replay", "merge-rule"):
        assert uses("central", key, {}) == uses("fedavg", key, {}) == uses("fedavg-linear", key, {})
    assert uses("central", "hidden-width", {})
    assert not uses("fedavg-linear", "hidden-width", {})
