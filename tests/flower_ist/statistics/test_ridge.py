"""Ridge for many penalties: the same solutions, and a choice that rounding does not make."""

from __future__ import annotations

import numpy as np
import pytest

from flower_ist.statistics.ridge import RidgePath, ridge_system
from flower_ist.statistics.sums import Statistics


def summed(tokens: np.ndarray, labels: np.ndarray, num_classes: int) -> Statistics:
    total = Statistics.empty(num_classes, tokens.shape[1], gram=True)
    total.add_tokens(tokens, labels)
    return total


def path_of(tokens: np.ndarray, labels: np.ndarray, num_classes: int = 2) -> RidgePath:
    return RidgePath.of(summed(tokens, labels, num_classes))


def flat(square: float, eigenvalue: float = 0.0, count: int = 1) -> RidgePath:
    """Return a path whose residual at penalty p is N - 2 square / p, for an eigenvalue of 0."""
    rotated = np.zeros((count, 1))
    rotated[0] = square**0.5
    return RidgePath(np.full(count, eigenvalue), np.eye(count), rotated)


def test_the_path_solves_for_each_penalty():
    generator = np.random.default_rng(1)
    sums = summed(generator.normal(size=(30, 8)), generator.integers(0, 4, 30), 4)
    (a, b), path = ridge_system(sums), RidgePath.of(sums)
    for penalty in (1e-3, 1.0, 1e4):
        np.testing.assert_allclose((a + penalty * np.eye(9)) @ path.solve(penalty), b, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.inf, np.nan])
def test_a_penalty_of_no_use_is_refused(penalty):
    with pytest.raises(ValueError, match=f"must be above 0, but is {penalty}"):
        flat(1.0).solve(penalty)


def test_cross_validation_by_hand():
    """x = 1 of class 0 and x = 3 of class 1, penalty 1: W = [[-1, 5], [7, -1]] / 17.

    Predicted are (6, 4) / 17 and (4, 14) / 17, off by (11, 4) / 17 and (4, 3) / 17: 162 / 289 in
    squares. df = tr([[10, 4], [4, 2]] [[3, -4], [-4, 11]] / 17) = 20 / 17, and 1 - df / 2 = 7 / 17.
    So the error is 162 / 289 / 2 / (49 / 289) = 81 / 49.
    """
    found = path_of(np.array([[1.0], [3.0]]), np.array([0, 1])).cross_validation_error(1.0, 2)
    assert found == pytest.approx(81 / 49, rel=1e-12)


@pytest.mark.parametrize("count", [12, 40, 400])
def test_cross_validation_from_sums_is_that_from_tokens(count):
    """Golub, Heath & Wahba's definition, with the matrix H that makes predictions of labels."""
    generator = np.random.default_rng(count)
    labels = np.arange(count) % 3
    tokens = generator.standard_normal((count, 9)) + np.eye(3, 9)[labels]
    path = path_of(tokens, labels, 3)
    x, y = np.c_[tokens, np.ones(count)], np.eye(3)[labels]
    for penalty in (0.01, 1.0, 30.0, 1e4):
        left = np.eye(count) - x @ np.linalg.solve(x.T @ x + penalty * np.eye(10), x.T)
        expected = count * ((left @ y) ** 2).sum() / np.trace(left) ** 2
        assert path.cross_validation_error(penalty, count) == pytest.approx(expected, rel=1e-6)


def test_few_noisy_tokens_get_a_large_penalty():
    """With 60 tokens of 40 noisy coordinates a small penalty learns them by heart."""
    generator = np.random.default_rng(0)
    penalties = [1e-3, 1.0, 30.0, 1000.0]

    def chosen(count: int) -> float:
        labels = np.arange(count) % 2
        tokens = generator.standard_normal((count, 40)) + 0.3 * labels[:, None]
        return penalties[path_of(tokens, labels).best_penalty(penalties, count)]

    assert chosen(60) >= 30.0
    assert chosen(60_000) < chosen(60)


@pytest.mark.parametrize(
    ("square", "errors", "best"),
    [
        (3.0, [0.4, 0.8, 0.7], 0),  # 10 - 6, 10 - 2 and 10 - 3, of 10
        (6.0, [np.inf, 0.6, 0.4], 2),  # 10 - 12 is below 0: rounding
        (4.9975, [np.inf, 0.66683, 0.50025], 2),  # 0.005 is left, half a thousandth of 10
        (4.99, [0.002, 0.66733, 0.501], 0),  # 0.02 is left, two thousandths
        (100.0, [np.inf, np.inf, np.inf], 1),  # the largest penalty
    ],
)
def test_what_rounding_leaves_of_a_residual_wins_nothing(square, errors, best):
    """An eigenvalue of 0 with something in B, as no tokens give it: the residual is N - 2 s / p."""
    path, penalties = flat(square), [1.0, 3.0, 2.0]
    found = [path.cross_validation_error(penalty, 10) for penalty in penalties]
    assert found == pytest.approx(errors, abs=1e-5)
    assert path.best_penalty(penalties, 10) == best


def test_more_degrees_of_freedom_than_tokens_win_nothing():
    """Two eigenvalues of 99 give df = 1.98 at penalty 1, and 99 / 59.4 = 1.67 at penalty 19.8.

    At penalty 99 df is 1: still no less than N = 1.
    """
    path = flat(0.0, eigenvalue=99.0, count=2)
    assert [path.cross_validation_error(p, 1) for p in (1.0, 19.8, 99.0)] == [np.inf] * 3
    assert path.cross_validation_error(297.0, 1) == pytest.approx(4)  # df = 2 / 4, 1 / (1 / 2)^2


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize(("dim", "count", "spread"), [(256, 80, 30.0), (256, 179, 100.0)])
def test_fewer_tokens_than_dimensions_choose_as_exact_sums_do(dtype, dim, count, spread):
    """In int16 the residual is below 0 at small penalties, and next to nothing at middling ones."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, count)
    scales = np.arange(1, dim + 1) ** -0.5
    tokens = generator.normal(size=(count, dim)) + 0.3 * generator.normal(size=(10, dim))[labels]
    exact = summed(spread * (tokens * scales + 0.5), labels, 10)
    rounded = Statistics.from_tensors(exact.to_tensors(dtype))
    penalties = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
    chosen = [
        penalties[RidgePath.of(sums).best_penalty(penalties, count)] for sums in (exact, rounded)
    ]
    assert chosen == [1000.0, 1000.0]
