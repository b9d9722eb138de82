"""Linear discriminant analysis from sums: against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from flower_ist.statistics.lda import lda_head, oas_shrinkage, within_class_covariance
from flower_ist.statistics.sums import Statistics


def tokens(count: int = 400, dim: int = 6, classes: int = 3, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    mix = generator.normal(size=(dim, dim))
    centers = 2 * generator.normal(size=(classes, dim))
    return centers[labels] + generator.normal(size=(count, dim)) @ mix + 3.0, labels


def sums(x: np.ndarray, labels: np.ndarray, classes: int = 3) -> Statistics:
    statistics = Statistics.empty(classes, x.shape[1], gram=True)
    statistics.add_tokens(x, labels)
    return statistics


def test_two_classes_on_a_line_by_hand():
    """Tokens -2, 0 and 2, 4: means -1 and 3, S = 1, equal shares: weights -1 and 3, biases
    -1/2 and -9/2 less log 2. At 1, halfway, both give -3/2 - log 2."""
    head = lda_head(
        sums(np.array([[-2.0], [0.0], [2.0], [4.0]]), np.array([0, 0, 1, 1]), 2),
        score=lambda head: float(head["fc1.weight"][0, 0] == -1.0),
        shrinkages=[0.0],
    )
    np.testing.assert_allclose(head["fc1.weight"], [[-1.0], [3.0]], rtol=1e-6)
    np.testing.assert_allclose(head["fc1.bias"], [-0.5 - np.log(2), -4.5 - np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5])
def test_the_head_is_scikit_learns(shrinkage):
    """Its covariance is the mean over the classes' own by their shares, which is ours."""
    x, labels = tokens()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=None, store_covariance=True)
    theirs.fit(x, labels)
    covariance = within_class_covariance(sums(x, labels))
    np.testing.assert_allclose(covariance, theirs.covariance_, rtol=1e-9)
    head = lda_head(sums(x, labels), score=lambda _: 1.0, shrinkages=[])
    logits = x @ head["fc1.weight"].T + head["fc1.bias"]
    assert (logits.argmax(axis=1) == theirs.predict(x)).mean() > 0.98


def test_the_shrinkage_by_hand():
    """S = diag(9, 1), D = 2, N = 20: tr(S^2) = 82, tr(S)^2 = 100, so 100 / (20 (82 - 50))."""
    assert oas_shrinkage(np.diag([9.0, 1.0]), 20) == pytest.approx(100 / 640)
    assert oas_shrinkage(np.eye(3), 20) == 1.0  # a sphere already


def test_sums_of_parts_give_the_head_of_all():
    x, labels = tokens()
    whole = lda_head(sums(x, labels))
    parts = Statistics.total([sums(x[:100], labels[:100]), sums(x[100:], labels[100:])])
    np.testing.assert_allclose(lda_head(parts)["fc1.weight"], whole["fc1.weight"], rtol=1e-5)


def test_a_class_that_nobody_has_never_wins_and_tokens_alike_divide_by_nothing():
    head = lda_head(sums(np.ones((5, 2)), np.array([0, 0, 1, 1, 1])))
    assert np.isfinite(head["fc1.weight"]).all()
    logits = np.ones((1, 2)) @ head["fc1.weight"].T + head["fc1.bias"]
    assert logits.argmax() != 2


def test_validation_chooses_the_shrinkage():
    x, labels = tokens(count=20)
    seen = []
    lda_head(sums(x, labels), score=lambda head: seen.append(head) or 0.0)
    assert len(seen) == 6  # five shrinkages and the one that follows from the sums
