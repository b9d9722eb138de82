"""Epsilon: against the closed form of the Gaussian mechanism, and from a run log."""

from __future__ import annotations

import math

import pytest
from typer.testing import CliRunner

from flower_ist.cli import app
from flower_ist.runs import privacy_budget
from flower_ist.runs.privacy_budget import BudgetError, epsilon, replies_of
from tests.fakes.runs import write_run


def closed_form(mu: float, delta: float) -> float:
    """Return the epsilon of a Gaussian mechanism whose sensitivity is mu standard deviations.

    delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu): Balle and Wang, ICML 2018,
    https://arxiv.org/abs/1805.06530, theorem 8. It falls in eps.
    """

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    low, high = 0.0, 500.0
    while high - low > 1e-9:
        eps = (low + high) / 2
        excess = phi(mu / 2 - eps / mu) - math.exp(eps) * phi(-mu / 2 - eps / mu)
        low, high = (eps, high) if excess > delta else (low, eps)
    return high


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0, 100.0])
def test_one_reply_is_the_gaussian_mechanism_in_closed_form(noise, delta):
    """Updates are at most 2 C apart and the deviation is z C, so mu = 2 / z."""
    pytest.importorskip("dp_accounting")
    exact = closed_form(2 / noise, delta)
    assert epsilon(noise, 1, delta) == pytest.approx(exact, rel=1e-6, abs=1e-7)


def test_replies_compose_as_the_accountants_own_composition_says():
    """Moments accounting (Renyi divergences), general and a little loose, from above."""
    pytest.importorskip("dp_accounting")
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    for replies in (1, 4, 25):
        composed = RdpAccountant().compose(SelfComposedDpEvent(GaussianDpEvent(10), replies))
        bound = composed.get_epsilon(1e-5)
        assert 0.85 * bound < epsilon(20, replies, 1e-5) <= bound
    assert epsilon(100, 25, 1e-5) == pytest.approx(epsilon(20, 1, 1e-5), rel=1e-9)


def test_no_reply_costs_nothing_and_no_noise_hides_nothing():
    assert epsilon(5, 0, 1e-5) == 0.0
    assert epsilon(0, 3, 1e-5) == math.inf


@pytest.mark.parametrize(
    ("noise", "replies", "delta"),
    [(-1, 1, 1e-5), (math.nan, 1, 1e-5), (1, -1, 1e-5), (1, 1, 0), (1, 1, 1)],
)
def test_arguments_of_no_use_are_refused(noise, replies, delta):
    with pytest.raises(BudgetError, match="make no budget"):
        epsilon(noise, replies, delta)


def line(server_round: int, *clients: str) -> dict[str, object]:
    return {
        "round": server_round,
        "clients": {client: {} for client in clients},
        "clients_selected": len(clients) if server_round else 0,
        "settings": {"privacy-noise": 20.0},
    }


ROUNDS = [line(0, "a", "b"), line(1, "a", "b"), line(2, "a"), line(3, "c", "b"), line(4, "a")]


def test_a_clients_replies_are_counted_round_by_round():
    """The query of round 0 tells nothing of the examples; c comes in round 3."""
    assert replies_of(ROUNDS) == {"a": [1, 2, 2, 3], "b": [1, 1, 2, 2], "c": [0, 0, 1, 1]}


def test_the_command_reads_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(privacy_budget, "epsilon", lambda noise, count, _: noise * count)
    write_run(tmp_path, ROUNDS)
    result = CliRunner().invoke(app, ["epsilon", str(tmp_path)])
    assert result.exit_code == 0, result.output
    cells = [[c.strip() for c in row.split("│")[1:-1]] for row in result.output.splitlines()]
    assert [row for row in cells if row] == [
        ["1", "1", "20"],
        ["2", "2", "40"],
        ["3", "2", "40"],
        ["4", "3", "60"],
    ]


def test_the_command_plans(monkeypatch):
    monkeypatch.setattr(privacy_budget, "epsilon", lambda noise, count, _: noise * count)
    result = CliRunner().invoke(app, ["epsilon", "--noise", "2", "--replies", "21"])
    assert result.exit_code == 0, result.output
    assert "42" in result.output


def test_a_run_that_is_not_there_is_a_sentence(tmp_path):
    result = CliRunner().invoke(app, ["epsilon", str(tmp_path)])
    assert result.exit_code == 1
    assert "There is no readable run log at" in result.output
