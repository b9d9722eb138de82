"""The options of strategies: defaults, those that are set, and one sentence for what is none."""

from __future__ import annotations

import pytest

from server_app.settings import Settings, SettingsError
from server_app.strategies import OPTIONS, STRATEGIES, parse_options


@pytest.mark.parametrize(
    ("strategy", "text", "expected"),
    [
        ("fedavg", "", {}),
        ("fedprox", "", {"proximal_mu": 0.01}),
        ("fedprox", "proximal-mu=0", {"proximal_mu": 0.0}),
        (
            "fedavgm",
            " server-momentum=0.9  server-learning-rate=1e-1 ",
            {"server_learning_rate": 0.1, "server_momentum": 0.9},
        ),
        ("ist", "quarantine-rounds=5", {"quarantine_after": 3, "quarantine_rounds": 5}),
    ],
)
def test_what_is_not_set_is_as_by_default(strategy, text, expected):
    found = parse_options(strategy, text)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("strategy", "text", "sentence"),
    [
        (
            "fedavg",
            "proximal-mu=1",
            "'strategy-options' is 'proximal-mu=1', but 'fedavg' has no options: leave it empty.",
        ),
        (
            "fedprox",
            "proximal_mu=1",
            "'strategy-options' is 'proximal_mu=1', but 'fedprox' has these options: "
            "proximal-mu=0.01.",
        ),
        ("fedadam", "eta=1,tau=2", "'strategy-options' has 'eta=1,tau=2', but that must be a num"),
        ("fedprox", "proximal-mu", "'strategy-options' has 'proximal-mu', but that must be a numb"),
        (
            "fedprox",
            "proximal-mu=-0.1",
            "'strategy-options' has 'proximal-mu=-0.1', but that must be a number of at least 0.",
        ),
        *[
            ("fedprox", f"proximal-mu={text}", f"'strategy-options' has 'proximal-mu={text}', but")
            for text in ("inf", "nan", "")
        ],
        (
            "fedavgm",
            "server-momentum=1.0",
            "'strategy-options' has 'server-momentum=1.0', but that must be a number of at least 0 "
            "and below 1.",
        ),
        ("fedavgm", "server-learning-rate=-1.0", "'strategy-options' has 'server-learning-rate=-"),
        ("fedtrimmedavg", "beta=0.5", "'strategy-options' has 'beta=0.5', but that must be a num"),
        ("ist", "quarantine-after=-1", "'strategy-options' has 'quarantine-after=-1', but that mu"),
        (
            "heterofl",
            "quarantine-rounds=1.5",
            "'strategy-options' has 'quarantine-rounds=1.5', but that must be a whole number of at "
            "least 0.",
        ),
    ],
)
def test_options_of_no_use_are_refused(default_run_config, strategy, text, sentence):
    config = {**default_run_config, "strategy": strategy, "strategy-options": text}
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config(config)
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(".")


def test_options_are_those_of_strategies():
    assert OPTIONS.keys() <= set(STRATEGIES)
