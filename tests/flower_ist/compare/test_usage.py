"""What a sweep varies for whom, and that it is what the app itself makes of the settings."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from flower_ist.compare.plan import Plan, Run, uses
from flower_ist.compare.planning import PLAIN_SETTINGS
from flower_ist.compare.usage import usage_of
from flower_ist.grids.clients import ClientRegistry
from flower_ist.runs.app_import import AppError
from flower_ist.submodels.schemes import SCHEMES
from server_app.build import build_strategy
from server_app.network import network_of
from server_app.settings import Settings, SettingsError
from server_app.strategies import STRATEGIES, TRAINED
from tests.fakes import ROOT

APP = ROOT
PLAN = Plan(str(APP), "", "", STRATEGIES, clients=4, rounds=2, seeds=1)
USAGE = usage_of(APP)
SLICED = {"ist", "ist-fixed"}


def config_of(strategy: str, **changes: Any) -> dict[str, Any]:
    """The run config that a comparison gives a strategy."""
    with (APP / "pyproject.toml").open("rb") as file:
        base = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    changes = {key.replace("_", "-"): value for key, value in changes.items()}
    return {**base, **PLAIN_SETTINGS, **Run(strategy, {}, 0).config(PLAN), **changes}


def test_the_app_tells_its_strategies():
    assert USAGE.strategies == STRATEGIES


def test_an_app_that_does_not_tell_is_named(tmp_path):
    with pytest.raises(AppError, match="There is no Flower app in"):
        usage_of(tmp_path)
    components = '[tool.flwr.app.components]\nserverapp = "other_app.app:app"\n'
    (tmp_path / "pyproject.toml").write_text(components)
    with pytest.raises(AppError, match=r"does not say .* other_app/usage\.py is missing\.$"):
        usage_of(tmp_path)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("num-slices", {"num_slices": 4}),
        ("close-early", {"close_early": True, "num_slices": 4}),
        ("merge-rule", {"merge_rule": "median"}),
        ("norm-bound", {"norm_bound": 2.0}),
        ("privacy-clip", {"privacy_clip": 1.0}),
    ],
)
def test_what_the_app_refuses_is_not_varied(strategy: str, key: str, others: dict[str, Any]):
    try:
        settings = Settings.from_run_config(config_of(strategy, **others))
        build_strategy(settings, network_of(settings, 8, 2), ClientRegistry())
    except SettingsError:
        assert not USAGE.uses(strategy, key, {})


@pytest.mark.parametrize(
    ("key", "users"),
    [
        ("batch-size", TRAINED),
        ("standardize", TRAINED),
        ("replay", TRAINED),
        ("lda-skip", TRAINED),
        ("fraction-train", TRAINED),
        ("validation-share", STRATEGIES),
        ("num-slices", {*SLICED, "fedavg-narrow"}),
        ("merge-rule", SCHEMES),
        ("num-rounds", TRAINED),
        ("capacities", SCHEMES),
        ("close-early", SLICED),
        ("ridge-penalties", {"ridge", "ridge-features", "lda"}),
    ],
)
def test_who_uses_a_setting(key, users):
    assert {name for name in STRATEGIES if USAGE.uses(name, key, {})} == set(users)


@pytest.mark.parametrize(
    ("key", "beside", "more"),
    [
        ("ridge-penalties", {"lda-skip": (False, True)}, TRAINED),
        ("ridge-penalties", {"lda-skip": (False,)}, ()),
        ("num-slices", {"slice-bytes": (0, 9000)}, TRAINED),
        ("num-slices", {"slice-bytes": (0,)}, ()),
    ],
)
def test_what_is_used_only_beside_another_setting(key, beside, more):
    alone = {name for name in STRATEGIES if USAGE.uses(name, key, {})}
    assert {name for name in STRATEGIES if USAGE.uses(name, key, beside)} == alone | set(more)


def test_the_harness_own_rivals_use_what_fedavg_does():
    for key in ("local-steps", "num-slices", "replay", "merge-rule"):
        rivals = [uses(PLAN, name, key) for name in ("central", "fedavg", "fedavg-linear")]
        assert len(set(rivals)) == 1
    assert uses(PLAN, "central", "hidden-width")
    for key in ("hidden-width", "hidden-layers"):
        assert not uses(PLAN, "fedavg-linear", key)
