"""A comparison: its plan, which is stored as ``plan.json``, and the runs that follow from it.

Everything here is a function of the plan and of what the app says of its settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from flower_ist.compare.usage import OPTIONS_KEY, Usage, Value, usage_of
from flower_ist.errors import FlowerIstError

ENGINES = ("inprocess", "flwr")
CENTRAL = "central"
FEDAVG = "fedavg"
NUM_ROUNDS = "num-rounds"
# Names of the harness: a strategy of the app with settings that make it another rival.
_NO_STATISTICS = {"standardize": False, "replay": False, "lda-skip": False}
PSEUDO: Mapping[str, Mapping[str, Value]] = {
    "fedavg-linear": {"strategy": FEDAVG, "hidden-layers": 0},
    # What is left to those whose bytes do not pay for the clients' statistics.
    "ist-plain": {"strategy": "ist", **_NO_STATISTICS},
    "fedavg-narrow-plain": {"strategy": "fedavg-narrow", **_NO_STATISTICS},
    CENTRAL: {"strategy": FEDAVG},
}
# What has the same bytes, what sends none to train, and what sends everything.
DEFAULT_STRATEGIES = (
    *("ist", "fedavg-narrow", "fedavg-features", FEDAVG),
    *("ridge", "lda", "ist-fixed", CENTRAL),
)

# What the harness itself decides for each run.
_OWN_KEYS = {
    "strategy": "--strategies",
    NUM_ROUNDS: "--rounds",
    "seed": "--seeds",
    "data-dir": "--data",
    "output-dir": "--out",
    "capacities": "--capacity",
}
# What can be searched for instead of a comparison.
QUESTIONS = ("budget", "budget_per_client", "target")
KEY = re.compile(r"[a-z][a-z0-9-]*")
_FORMAT = "flower-ist-comparison"


class PlanError(FlowerIstError):
    """A comparison cannot be planned, or its folder belongs to another one."""


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    app: str  # absolute folder of the Flower app
    data: str  # absolute folder of shards; empty: the embedded demo tokens
    data_sha256: str  # of the tokens' own hashes: results of other tokens are never mixed in
    strategies: tuple[str, ...]  # in the order of the tables
    clients: int  # all connected
    rounds: int  # of each run; closed forms take one
    seeds: int  # runs are seeded 0 to seeds - 1
    engine: str = "inprocess"  # or "flwr"
    settings: Mapping[str, Value] = field(default_factory=dict)  # run config entries of all runs
    sweep: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)  # key -> values to try
    capacity: tuple[float, ...] = ()  # shares of the neurons that clients can hold; empty: equal
    target_accuracy: float | None = None  # 0 to 1; None: FedAvg's best - 0.5 points
    # At most one of QUESTIONS is not 0.
    budget: int = 0  # most bytes of a run
    budget_per_client: int = 0  # most bytes of a client in a run
    target: float = 0.0  # validation accuracy to reach with the fewest bytes, 0 to 1

    @property
    def usage(self) -> Usage:
        """What the app says of its strategies and settings."""
        return usage_of(Path(self.app))

    def to_json(self) -> str:
        """Return the content of ``plan.json``."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Plan:
        """Read the content of ``plan.json``; ``where`` names it in errors.

        Raises:
            PlanError: it is not the plan of a comparison of this release.
        """
        try:
            content = json.loads(text)
            if content.pop("format") != _FORMAT:
                raise ValueError("another format")
            for name in ("strategies", "capacity"):
                content[name] = tuple(content[name])
            content["sweep"] = {key: tuple(values) for key, values in content["sweep"].items()}
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise PlanError(f"{where} is not the plan of a comparison: {err}.") from err

    def check(self) -> None:
        """Refuse what no run can use.

        Raises:
            PlanError: what is wrong.
            AppError: there is no app, or it does not say what its strategies use.
        """
        if find_spec("matplotlib") is None:
            raise PlanError("It ends with pictures: first, pip install 'flower-ist[plot]'.")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            names = ",".join(self.strategies)
            raise PlanError(f"Each strategy is compared once, not {names!r}: name none twice.")
        known = (*self.usage.strategies, *PSEUDO)
        for name in self.strategies:
            if name not in known:
                raise PlanError(f"{name!r} is not a strategy: choose from {', '.join(known)}.")
        if self.engine not in ENGINES:
            raise PlanError(f"There is no engine {self.engine!r}: choose {' or '.join(ENGINES)}.")
        if min(self.clients, self.rounds, self.seeds) < 1:
            raise PlanError("There must be at least one client, one round and one seed.")
        self._check_question()
        for key in (*self.settings, *self.sweep):
            if key in _OWN_KEYS:
                raise PlanError(f"{key!r} is set by {_OWN_KEYS[key]}, not by --set or --sweep.")
        if both := sorted(self.settings.keys() & self.sweep.keys()):
            raise PlanError(f"{both[0]!r} is both set and swept: choose one.")
        for key, values in self.sweep.items():
            if len(set(values)) < len(values):
                raise PlanError(f"--sweep {key} has a value twice: give each value once.")
        steps = self.sweep.get("local-steps", (self.settings.get("local-steps", 0),))
        if ("local-epochs" in self.sweep and any(steps)) or (
            "local-epochs" in self.settings and all(steps)
        ):
            raise PlanError(
                "'local-epochs' has no effect with 'local-steps' above 0: leave one out."
            )
        texts = (*self.sweep.get(OPTIONS_KEY, ()), self.settings.get(OPTIONS_KEY, ""))
        for part in " ".join(map(str, texts)).split():
            if not any(self.usage.own_options(_base(name), part) for name in self.strategies):
                raise PlanError(
                    f"{OPTIONS_KEY!r} has {part!r}, but that is an option of none of: "
                    f"{', '.join(self.strategies)}; leave it out."
                )
        if not all(0 < share <= 1 for share in self.capacity):
            raise PlanError("Each --capacity must be above 0 and at most 1.")

    @property
    def searches(self) -> bool:
        """Whether something is searched for."""
        return any(getattr(self, name) for name in QUESTIONS)

    def _check_question(self) -> None:
        asked = [getattr(self, name) for name in QUESTIONS]
        if sum(map(bool, asked)) > 1:
            raise PlanError(
                "--budget, --budget-per-client and --target each ask another question: give one."
            )
        if not self.searches:
            return
        if CENTRAL in self.strategies:
            raise PlanError("'central' is no federation and sends no bytes: leave it out.")
        if self.target_accuracy is not None:
            raise PlanError(
                "--target-accuracy is a mark in the tables of a comparison: leave it out, or ask "
                "for the fewest bytes to an accuracy with --target."
            )
        if self.settings.get("validation-share") == 0:
            raise PlanError(
                "The best is chosen by validation accuracy: set a 'validation-share' above 0."
            )


@dataclass(frozen=True)
class Run:
    """One run of a comparison."""

    strategy: str  # a name in the plan
    choice: Mapping[str, Value]  # swept key -> value, or how many rounds a search gives it
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.strategy}-{slug(self.choice)}-seed{self.seed}"

    def clients(self, plan: Plan) -> int:
        """Return how many clients it has."""
        return 1 if self.strategy == CENTRAL else plan.clients

    def config(self, plan: Plan) -> dict[str, Any]:
        """Return the run config entries that differ from the app's own, without the folders."""
        clients = self.clients(plan)
        config: dict[str, Any] = {
            "strategy": self.strategy,
            "min-train-nodes": min(2, clients),
            "min-available-nodes": clients,
            **_slices(plan, self.strategy),
            **plan.settings,
            **self.choice,
            **PSEUDO.get(self.strategy, {}),
            NUM_ROUNDS: self.choice.get(NUM_ROUNDS, plan.rounds),
            "seed": self.seed,
        }
        if not uses(plan, self.strategy, NUM_ROUNDS):
            config[NUM_ROUNDS] = 1
        if self.strategy == CENTRAL:
            config |= {"min-train-nodes": 1, "min-available-nodes": 1}
            own = {**plan.usage.config, **config}
            if own.get("local-steps") == 0:
                # It has all examples: divided by the clients, its epochs are the mean client's.
                config["local-epochs"] = own["local-epochs"] / plan.clients
        if OPTIONS_KEY in config:
            config[OPTIONS_KEY] = plan.usage.own_options(_base(self.strategy), config[OPTIONS_KEY])
        capacity = plan.capacity
        if uses(plan, self.strategy, "capacities") and not _divides(plan, self.strategy):
            # Equal to IST's slices, so that the schemes are compared at the same bytes.
            capacity = capacity or (1 / clients,)
        if capacity and uses(plan, self.strategy, "capacities"):
            config["capacities"] = ",".join(f"{share:.12g}" for share in capacity)
        return config


def grid(plan: Plan, strategy: str) -> list[dict[str, Value]]:
    """Return the choices that are tried for a strategy: the same for all that can tell them apart.

    What a strategy does not use is not varied for it (:mod:`flower_ist.compare.usage`).
    """
    varied = {key: values for key, values in plan.sweep.items() if uses(plan, strategy, key)}
    texts = varied.pop(OPTIONS_KEY, ())
    own = (plan.usage.own_options(_base(strategy), text) for text in texts)
    if own_texts := tuple(dict.fromkeys(filter(None, own))):
        varied[OPTIONS_KEY] = own_texts
    return [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]


def uses(plan: Plan, strategy: str, key: str) -> bool:
    """Return whether a setting makes a difference to a strategy, or to a rival of the harness."""
    fixed = PSEUDO.get(strategy, {})
    if key in fixed or (fixed.get("hidden-layers") == 0 and key == "hidden-width"):
        return False
    given = {**{key: (value,) for key, value in plan.settings.items()}, **plan.sweep}
    return plan.usage.uses(_base(strategy), key, given)


def _divides(plan: Plan, strategy: str) -> bool:
    """Return whether a strategy divides the neurons, by number of slices or by capacities."""
    base = _base(strategy)
    return all(plan.usage.uses(base, key, {}) for key in ("num-slices", "capacities"))


def _slices(plan: Plan, strategy: str) -> dict[str, Value]:
    """Return K, as many slices as clients, for those whose net or slices follow from it.

    So the net of ``fedavg-narrow`` is as wide as a slice. Nothing where the app itself sets K, or
    where capacities decide.
    """
    if plan.usage.config.get("num-slices") != 0 or not uses(plan, strategy, "num-slices"):
        return {}
    if plan.capacity and _divides(plan, strategy):
        return {}
    return {"num-slices": plan.clients}


def _base(strategy: str) -> str:
    """Return the app's strategy of a name in a plan."""
    return str(PSEUDO.get(strategy, {}).get("strategy", strategy))


def slug(choice: Mapping[str, Value]) -> str:
    """Return a choice as a part of a folder's name: ``local-steps=20+learning-rate=0.001``."""
    text = "+".join(f"{key}={value_text(value)}" for key, value in sorted(choice.items()))
    return re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text) or "default"


def value_text(value: Value) -> str:
    """Return a value as :func:`flower_ist.compare.options.parse_value` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
