"""From the options of the command line to a checked plan, and what stands where none is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flower_ist.compare.folder import read_plan
from flower_ist.compare.options import parse_capacity, parse_settings, parse_size, parse_sweep
from flower_ist.compare.plan import DEFAULT_STRATEGIES, FEDAVG, Plan, PlanError
from flower_ist.compare.shards import fingerprint
from flower_ist.compare.usage import Value
from flower_ist.runs.app_import import find_app

# Every strategy gets the app's recipe: what a user of `flwr run` sees is what is compared.
DEFAULT_SETTINGS: Mapping[str, Any] = {"validation-share": 0.2}
# With --plain each strategy is as it was published, without what the app adds to all of them.
PLAIN_SETTINGS: Mapping[str, Any] = {
    **DEFAULT_SETTINGS,
    "local-steps": 80,
    "standardize": False,
    "replay": False,
    "lda-skip": False,
    "wire-dtype": "float32",
}
# A search for the best within some bytes: half of the test shard chooses, the other half tests.
SEARCH_STRATEGIES = (
    *("ist", "fedavg-narrow", "fedavg-features", FEDAVG),
    *("ist-plain", "fedavg-narrow-plain", "ridge", "lda", "fedncm"),
)
SEARCH_SETTINGS: Mapping[str, Any] = {"validation-share": 0.5}
SEARCH_SWEEP: Mapping[str, tuple[Value, ...]] = {
    "hidden-width": (256, 1024),
    "wire-dtype": ("int8", "int4", "compact"),
}


def make_plan(
    app: Path | None = None,
    data: Path | None = None,
    strategies: str = "",
    clients: int = 4,
    rounds: int = 10,
    seeds: int = 3,
    engine: str = "inprocess",
    settings: Sequence[str] = (),
    sweep: Sequence[str] = (),
    capacity: str = "",
    target_accuracy: float | None = None,
    plain: bool = False,
    budget: str | None = None,
    budget_per_client: str | None = None,
    target: float | None = None,
) -> Plan:
    """Return a checked plan from the options of the command line; the default app is our own.

    Raises:
        PlanError: it cannot be used.
        ShardError: a shard is missing or damaged.
    """
    swept, given = parse_sweep(sweep), parse_settings(settings)
    searches = any(asked is not None for asked in (budget, budget_per_client, target))
    defaults = PLAIN_SETTINGS if plain else SEARCH_SETTINGS if searches else DEFAULT_SETTINGS
    names = SEARCH_STRATEGIES if searches else DEFAULT_STRATEGIES
    if searches:
        if target is not None and not 0 < target <= 1:
            raise PlanError(
                f"--target is {target:g}, but must be an accuracy above 0 and at most 1: 0.7."
            )
        if plain:
            raise PlanError(
                "--plain fixes what is searched for: leave it out, or name strategies such as "
                "ist-plain with --strategies."
            )
        own_sweep = {key: values for key, values in SEARCH_SWEEP.items() if key not in given}
        swept = {**own_sweep, **swept}
    own = {key: value for key, value in defaults.items() if key not in swept}
    if plain and "local-epochs" in {**swept, **given} and "local-steps" not in swept:
        own["local-steps"] = 0  # epochs decide
    plan = Plan(
        app=str((app or find_app()).absolute()),
        data="" if data is None else str(data.absolute()),
        data_sha256="",
        strategies=tuple(strategies.split(",")) if strategies else names,
        clients=clients,
        rounds=rounds,
        seeds=seeds,
        engine=engine,
        settings={**own, **given},
        sweep=swept,
        capacity=parse_capacity(capacity),
        target_accuracy=target_accuracy,
        budget=0 if budget is None else parse_size("--budget", budget),
        budget_per_client=(
            0 if budget_per_client is None else parse_size("--budget-per-client", budget_per_client)
        ),
        target=0.0 if target is None else target,
    )
    plan.check()
    return replace(plan, data_sha256=fingerprint(plan.data, plan.clients))


def repeated_plan(source: Path) -> Plan:
    """Return the plan of a comparison that is to be repeated.

    Raises:
        PlanError: there is none, or its tokens have changed.
        ShardError: a shard is missing or damaged.
    """
    plan = read_plan(source)
    if fingerprint(plan.data, plan.clients) != plan.data_sha256:
        raise PlanError(
            f"The tokens have changed since {source} was made: start a new comparison with the "
            "command in its report."
        )
    return plan
