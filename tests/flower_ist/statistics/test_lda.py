"""Linear discriminant analysis from sums: against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from flower_ist.statistics.lda import lda_heads
from flower_ist.statistics.sums import Head, Statistics, within_class_covariance


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


def logits(head: Head, x: np.ndarray) -> np.ndarray:
    return x @ head["fc1.weight"].T + head["fc1.bias"]


def test_two_classes_on_a_line_by_hand():
    """Tokens -2, 0 and 2, 4: means -1 and 3, variance 1, equal shares.

    A penalty of 4 on 4 tokens adds 1 to the variance: weights -1/2 and 3/2, biases -1/4 and -9/4
    less log 2. At 1, halfway, both give -3/4 - log 2.
    """
    of_four = sums(np.array([[-2.0], [0.0], [2.0], [4.0]]), np.array([0, 0, 1, 1]), 2)
    (head,) = lda_heads(of_four, [4.0])
    np.testing.assert_allclose(head["fc1.weight"], [[-0.5], [1.5]], rtol=1e-6)
    np.testing.assert_allclose(head["fc1.bias"], [-0.25 - np.log(2), -2.25 - np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(logits(head, np.ones((1, 1))), [[-0.75 - np.log(2)] * 2], rtol=1e-6)


@pytest.mark.parametrize("penalty", [1e-9, 40.0, 4000.0])
def test_the_probabilities_are_scikit_learns(penalty: float):
    """It takes any estimate of the covariance; ours has the penalty over N on its diagonal."""
    x, labels = tokens()

    class Penalized:
        def fit(self, of_class: np.ndarray) -> Penalized:
            self.covariance_ = np.cov(of_class.T, bias=True) + penalty / len(x) * np.eye(x.shape[1])
            return self

    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Penalized())
    theirs.fit(x, labels)
    found = logits(lda_heads(sums(x, labels), [penalty])[0], x)
    found -= np.logaddexp.reduce(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, theirs.predict_log_proba(x), rtol=1e-3, atol=1e-4)


def test_the_covariance_is_scikit_learns():
    x, labels = tokens()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(x, labels)
    found = within_class_covariance(sums(x, labels))
    np.testing.assert_allclose(found, theirs.covariance_, rtol=1e-9)


def test_sums_of_parts_give_the_head_of_all():
    x, labels = tokens()
    (whole,) = lda_heads(sums(x, labels), [1.0])
    parts = Statistics.total([sums(x[:100], labels[:100]), sums(x[100:], labels[100:])])
    (found,) = lda_heads(parts, [1.0])
    np.testing.assert_allclose(found["fc1.weight"], whole["fc1.weight"], rtol=1e-5)


def test_a_class_that_nobody_has_never_wins_and_tokens_alike_divide_by_nothing():
    (head,) = lda_heads(sums(np.ones((5, 2)), np.array([0, 0, 1, 1, 1])), [1.0])
    assert np.isfinite(head["fc1.weight"]).all()
    assert logits(head, np.ones((1, 2))).argmax() != 2


def test_rounding_below_zero_is_no_negative_variance():
    """Tokens 1 and 3, one of each class: S is 0, and -5e-6 as the Gram matrix is 1e-5 too small.

    With a penalty of 2e-6 on two tokens the weights are m_c / 1e-6, and not their negatives.
    """
    statistics = sums(np.array([[1.0], [3.0]]), np.array([0, 1]), 2)
    assert statistics.gram is not None
    statistics.gram -= 1e-5
    (head,) = lda_heads(statistics, [2e-6])
    np.testing.assert_allclose(head["fc1.weight"], [[1e6], [3e6]], rtol=1e-6)
