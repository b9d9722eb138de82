"""What runs follow from a plan, and what is refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from flower_ist.command_group import one_value_each
from flower_ist.compare.options import (
    command_of,
    extended,
    parse_capacity,
    parse_settings,
    parse_sweep,
)
from flower_ist.compare.plan import Plan, PlanError, Run, grid, slug
from tests.fakes import ROOT

PLAN = Plan(
    app=str(ROOT),
    data="/data",
    data_sha256="0" * 64,
    strategies=("ist", "ridge", "fedavg"),
    clients=4,
    rounds=20,
    seeds=3,
    settings={"batch-size": 32},
)


def test_a_plan_is_read_back():
    plan = replace(PLAN, sweep={"local-steps": (20, 80)}, capacity=(0.5, 0.25), target_accuracy=0.8)
    assert Plan.from_json(plan.to_json(), "plan.json") == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "flower-ist-comparison"}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError, match=r"plan\.json is not the plan of a comparison"):
        Plan.from_json(text, "plan.json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strategies": ("ist", "ist")}, "compared once"),
        ({"strategies": ("",)}, "is not a strategy"),
        ({"strategies": ("../ist",)}, "is not a strategy"),
        ({"clients": 0}, "at least one client"),
        ({"engine": "ray"}, "no engine 'ray'"),
        ({"settings": {"seed": 1}}, "'seed' is set by --seeds"),
        ({"sweep": {"num-rounds": (1, 2)}}, "'num-rounds' is set by --rounds"),
        ({"sweep": {"batch-size": (1, 2)}}, "both set and swept"),
        ({"sweep": {"local-steps": (1, 1)}}, "a value twice"),
        (
            {"sweep": {"local-epochs": (3, 6)}, "settings": {"local-steps": 80}},
            "'local-epochs' has no effect with 'local-steps' above 0: leave one out",
        ),
        ({"sweep": {"local-epochs": (3, 6), "local-steps": (0, 80)}}, "leave one out"),
        ({"settings": {"local-epochs": 6, "local-steps": 80}}, "leave one out"),
        (
            {"settings": {"local-epochs": 6}, "sweep": {"local-steps": (20, 80)}},
            "leave one out",
        ),
        ({"capacity": (0.5, 0.0)}, "above 0 and at most 1"),
        (
            {"settings": {"strategy-options": "proximal-mu=1"}},
            "'strategy-options' has 'proximal-mu=1', but that is an option of none of: ist, ridge,",
        ),
        (
            {"sweep": {"strategy-options": ("quarantine-after=1", "proximal-nu=1")}},
            "'strategy-options' has 'proximal-nu=1', but that is an option of none",
        ),
    ],
)
def test_plans_that_are_refused(changes: dict[str, Any], sentence: str):
    PLAN.check()
    with pytest.raises(PlanError, match=sentence):
        replace(PLAN, **changes).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": {"local-epochs": (3, 6)}, "settings": {"local-steps": 0}},
        {"settings": {"local-epochs": 6}, "sweep": {"local-steps": (0, 80)}},  # 6 epochs or 80
        {"settings": {"local-epochs": 6, "local-steps": 0}},
    ],
)
def test_epochs_without_steps_are_no_contradiction(changes: dict[str, Any]):
    replace(PLAN, **changes).check()


def test_a_comparison_is_extended_by_strategies_and_seeds():
    more = replace(PLAN, strategies=("fedavg", "central"), seeds=2, target_accuracy=0.7)
    both = extended(PLAN, more)
    assert both.strategies == ("ist", "ridge", "fedavg", "central")
    assert (both.seeds, both.target_accuracy) == (3, 0.7)


@pytest.mark.parametrize(
    "changes", [{"rounds": 5}, {"data_sha256": "1"}, {"settings": {}}, {"engine": "flwr"}]
)
def test_a_comparison_of_something_else_is_no_extension(changes: dict[str, Any]):
    with pytest.raises(PlanError, match="choose another output folder"):
        extended(PLAN, replace(PLAN, **changes))


def test_a_refusal_names_what_differs_and_nothing_else():
    stored = replace(PLAN, settings={"batch-size": 32, "learning-rate": 0.1, "seedling": 1})
    given = replace(
        PLAN, rounds=3, settings={"batch-size": 32, "learning-rate": 0.2, "replay": True}
    )
    with pytest.raises(PlanError) as refusal:
        extended(stored, given)
    assert str(refusal.value) == (
        "The folder holds a comparison with other options (--rounds was 20 and is 3; --set "
        "learning-rate was 0.1 and is 0.2; --set replay was not given and is true; --set seedling "
        "was 1 and is not given): choose another output folder."
    )


def test_the_config_of_a_run():
    config = Run("ist", {"local-steps": 20}, 2).config(PLAN)
    assert config == {
        "strategy": "ist",
        "min-train-nodes": 2,
        "min-available-nodes": 4,
        "num-slices": 4,
        "batch-size": 32,
        "local-steps": 20,
        "num-rounds": 20,
        "seed": 2,
    }


def test_the_config_of_the_harness_own_rivals():
    central = Run("central", {}, 0)
    assert central.clients(PLAN) == 1
    assert central.config(PLAN)["strategy"] == "fedavg"
    assert central.config(PLAN)["min-available-nodes"] == 1
    linear = Run("fedavg-linear", {"hidden-layers": 2}, 0).config(PLAN)
    assert (linear["strategy"], linear["hidden-layers"]) == ("fedavg", 0)
    assert Run("ridge", {}, 0).config(PLAN)["num-rounds"] == 1


@pytest.mark.parametrize(
    ("strategy", "capacity", "expected"),
    [
        ("heterofl", (), "0.25"),
        ("fedrolex", (0.5, 0.25), "0.5,0.25"),
        ("ist", (0.5, 0.25), "0.5,0.25"),
        ("ist", (), None),
        ("ist-fixed", (0.5, 0.25), "0.5,0.25"),
        ("fedavg", (0.5, 0.25), None),
    ],
)
def test_capacities_go_to_those_who_allow_them(strategy, capacity, expected):
    plan = replace(PLAN, capacity=capacity)
    assert Run(strategy, {}, 0).config(plan).get("capacities") == expected


@pytest.mark.parametrize(
    ("strategy", "changes", "expected"),
    [
        ("ist", {}, 4),
        ("fedavg-narrow", {}, 4),
        ("fedavg-narrow", {"capacity": (0.5, 0.25)}, 4),
        ("fedavg-narrow", {"settings": {"num-slices": 8}}, 8),
        # Capacities decide, and slices beside them are refused.
        ("ist", {"capacity": (0.5, 0.25)}, None),
        ("heterofl", {}, None),
        ("fedavg", {}, None),
        ("ridge", {}, None),
        # Where bytes are given, every net's widths follow from K; the pooled one's as the others'.
        ("fedavg", {"settings": {"slice-bytes": 9000}}, 4),
        ("heterofl", {"settings": {"slice-bytes": 9000}}, 4),
        ("central", {"settings": {"slice-bytes": 9000}}, 4),
        ("ridge", {"settings": {"slice-bytes": 9000}}, None),
    ],
)
def test_there_are_as_many_slices_as_clients(strategy, changes, expected):
    config = Run(strategy, {}, 0).config(replace(PLAN, **changes))
    assert config.get("num-slices") == expected
    assert ("capacities" in config) == (
        strategy == "heterofl" or ("capacity" in changes and strategy == "ist")
    )


def test_slices_that_are_swept_are_the_choice_s():
    assert Run("ist", {"num-slices": 2}, 0).config(PLAN)["num-slices"] == 2


def test_every_strategy_has_the_same_grid_as_far_as_it_can_tell():
    sweep = {"local-steps": (20, 80), "learning-rate": (0.1, 0.2), "ridge-penalties": (1, 10)}
    plan = replace(PLAN, sweep=sweep)
    assert grid(plan, "ist") == grid(plan, "fedavg") == grid(plan, "central")
    assert grid(plan, "ist") == [
        {"local-steps": 20, "learning-rate": 0.1},
        {"local-steps": 20, "learning-rate": 0.2},
        {"local-steps": 80, "learning-rate": 0.1},
        {"local-steps": 80, "learning-rate": 0.2},
    ]
    assert grid(plan, "ridge") == [{"ridge-penalties": 1}, {"ridge-penalties": 10}]
    assert grid(PLAN, "ist") == [{}]


def test_what_a_strategy_does_not_use_is_not_varied_for_it():
    sweep = {"num-slices": (2, 4), "merge-rule": ("mean", "median"), "replay": (False, True)}
    plan = replace(PLAN, sweep=sweep)
    assert len(grid(plan, "ist")) == 8
    assert grid(plan, "fedavg") == [{"replay": False}, {"replay": True}]
    assert grid(plan, "ridge") == [{}]


def test_each_strategy_gets_its_own_options():
    options = "quarantine-after=5 proximal-mu=0.1 quarantine-rounds=2"
    strategies = ("ist", "fedprox", "central")
    plan = replace(PLAN, strategies=strategies, settings={"strategy-options": options})
    plan.check()
    found = [Run(name, {}, 0).config(plan)["strategy-options"] for name in strategies]
    assert found == ["quarantine-after=5 quarantine-rounds=2", "proximal-mu=0.1", ""]


def test_options_are_varied_for_those_who_have_them():
    sweep = {"strategy-options": ("proximal-mu=0.1", "proximal-mu=1 beta=0.1", "beta=0.2")}
    plan = replace(PLAN, strategies=("fedprox", "fedtrimmedavg", "ist"), sweep=sweep)
    plan.check()
    assert [choice["strategy-options"] for choice in grid(plan, "fedprox")] == [
        "proximal-mu=0.1",
        "proximal-mu=1",
    ]
    assert [choice["strategy-options"] for choice in grid(plan, "fedtrimmedavg")] == [
        "beta=0.1",
        "beta=0.2",
    ]
    assert grid(plan, "ist") == [{}]


def test_the_names_of_runs():
    assert slug({}) == "default"
    assert slug({"replay": True, "learning-rate": 0.001}) == "learning-rate=0.001+replay=true"
    assert slug({"capacities": "0.5,0.5/.."}) == "capacities=0.5,0.5_.."
    assert Run("ist", {"local-steps": 20}, 1).name == "ist-local-steps=20-seed1"


def test_options_are_typed_as_in_toml():
    text = ["a=1", "b=0.5", "c=true", "d=1,10", "e="]
    assert parse_settings(text) == {"a": 1, "b": 0.5, "c": True, "d": "1,10", "e": ""}
    assert parse_sweep(["a=1,2.5", "b=x"]) == {"a": (1, 2.5), "b": ("x",)}
    assert parse_capacity("0.5,0.25") == (0.5, 0.25)
    assert parse_capacity("") == ()


@pytest.mark.parametrize("pairs", [["a"], ["=1"], ["A=1"], ["a=1", "a=2"]])
def test_options_that_are_refused(pairs):
    with pytest.raises(PlanError, match="write key=value"):
        parse_settings(pairs)


def test_a_capacity_that_is_no_number():
    with pytest.raises(PlanError, match=r"not '0\.5,x'"):
        parse_capacity("0.5,x")


def test_several_values_after_one_option():
    written = one_value_each(["--sweep", "a=1", "b=2", "--out", "x", "y"], ("--sweep",))
    assert written == ["--sweep", "a=1", "--sweep", "b=2", "--out", "x", "y"]
    assert one_value_each(["--set=a=1", "b"], ("--set",)) == ["--set=a=1", "b"]


def test_the_command_that_repeats_a_comparison():
    plan = replace(PLAN, sweep={"local-steps": (20, 80)}, data="/a b", capacity=(0.5,))
    words = shlex.split(command_of(plan))
    assert words[words.index("--data") + 1] == "/a b"
    assert words[words.index("--set") + 1] == "batch-size=32"
    assert parse_sweep([words[words.index("--sweep") + 1]]) == plan.sweep
    assert words[words.index("--capacity") + 1] == "0.5"
    assert words[-2:] == ["--out", "NEW"]
