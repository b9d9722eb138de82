"""Closed-form heads: numbers by hand, and the central solution from any split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from flower_ist.statistics.class_means import class_means_head, fedcof_head
from flower_ist.statistics.ridge import RidgePath, ridge_head, ridge_system
from flower_ist.statistics.sums import Statistics, full_gram, statistics_layout


def statistics_of(tokens, labels, num_classes=2, *, gram=True):
    tokens = np.atleast_2d(np.asarray(tokens, np.float32))
    total = Statistics.empty(num_classes, tokens.shape[1], gram=gram)
    total.add_tokens(tokens, np.asarray(labels))
    return total


# Class 0: (1, 0), (3, 0). Class 1: (0, 2), (0, 4).
TOKENS = [[1, 0], [3, 0], [0, 2], [0, 4]]
LABELS = [0, 0, 1, 1]


def test_statistics_by_hand():
    """1 + 9, nothing mixed, 4 + 16: the upper triangle 10 0 20 row by row."""
    statistics = statistics_of(TOKENS, LABELS)
    assert statistics.counts.tolist() == [2, 2]
    assert statistics.sums.tolist() == [[4, 0], [0, 6]]
    assert statistics.gram.tolist() == [10, 0, 20]


def test_ridge_of_two_by_two_by_hand():
    """One number a token: x = 1 of class 0 and x = 3 of class 1, penalty 1.

    A = [[1 + 9, 1 + 3], [4, 2]], B = [[1, 3], [1, 1]]. A + I = [[11, 4], [4, 3]] has determinant
    17 and inverse [[3, -4], [-4, 11]] / 17, so W = [[-1, 5], [7, -1]] / 17.
    """
    statistics = statistics_of([[1], [3]], [0, 1])
    a, b = ridge_system(statistics)
    assert a.tolist() == [[10, 4], [4, 2]]
    assert b.tolist() == [[1, 3], [1, 1]]
    found = RidgePath.of(statistics).solve(1.0)
    np.testing.assert_allclose(found, np.array([[-1, 5], [7, -1]]) / 17, rtol=1e-12)


@st.composite
def splits(draw):
    """Up to 60 tokens of up to 6 numbers, correlated on purpose, and a client for each token."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    scale = 10.0 ** draw(st.integers(-1, 2))
    mixing = generator.normal(size=(dim, dim)) @ np.diag(np.logspace(0, -3, dim))
    tokens = (scale * generator.normal(size=(count, dim)) @ mixing + 1).astype(np.float32)
    clients = generator.integers(0, draw(st.integers(1, 9)), count)
    return tokens, generator.integers(0, 3, count), clients


@settings(deadline=None)
@given(splits(), st.sampled_from([1e-2, 1.0, 100.0]))
def test_any_split_gives_the_central_ridge_solution(data, penalty):
    """Central: numpy's solver on the tokens themselves, with a column of ones behind them."""
    tokens, labels, clients = data
    total = Statistics.empty(3, tokens.shape[1], gram=True)
    for client in np.unique(clients):
        part = statistics_of(tokens[clients == client], labels[clients == client], 3)
        total.add(Statistics.from_tensors(part.to_tensors("float64")))
    x = np.column_stack([tokens.astype(np.float64), np.ones(len(tokens))])
    central = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ np.eye(3)[labels])
    found = RidgePath.of(total).solve(penalty)
    np.testing.assert_allclose(found, central, rtol=1e-6, atol=1e-6)


def test_scikit_learn_finds_the_same_weights():
    generator = np.random.default_rng(0)
    tokens, labels = generator.normal(size=(80, 5)).astype(np.float32), generator.integers(0, 3, 80)
    model = Ridge(alpha=2.5, fit_intercept=False)
    model.fit(np.column_stack([tokens, np.ones(80)]).astype(np.float64), np.eye(3)[labels])
    found = RidgePath.of(statistics_of(tokens, labels, 3)).solve(2.5)
    np.testing.assert_allclose(found, model.coef_.T, rtol=1e-9, atol=1e-12)


def hard_tokens(dim=64, count=6000, num_classes=5, seed=3):
    """Tokens whose coordinates are strongly correlated, on scales from 0.01 to 100, half of them a
    hundred of their spreads away from 0; the smallest eigenvalue of the correlations is about 1e-7.
    """
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(dim, dim)))[0] for _ in range(2))
    mixing = left @ np.diag(np.logspace(0, -4, dim)) @ right
    labels = generator.integers(0, num_classes, count)
    classes = generator.normal(size=(num_classes, dim))
    tokens = (generator.normal(size=(count, dim)) + classes[labels]) @ mixing
    tokens = tokens / tokens.std(axis=0) + np.where(np.arange(dim) % 2, 100, 0)
    return tokens * np.logspace(-2, 2, dim), labels


def scores(statistics, penalty, tokens):
    w = RidgePath.of(statistics).solve(penalty)
    return tokens @ w[:-1] + w[-1]


def over_the_wire(statistics, dtype):
    return Statistics.from_tensors(statistics.to_tensors(dtype))


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_a_head_of_int16_statistics_predicts_as_the_exact_one(penalty):
    """Also where a small penalty divides by what float32 sums lose: a head of those is wrong on
    most tokens at penalty 0.1. 0.02 is about four times what is met."""
    tokens, labels = hard_tokens()
    statistics = Statistics.empty(5, tokens.shape[1], gram=True)
    statistics.add_tokens(tokens[:4000], labels[:4000])
    exact = scores(statistics, penalty, tokens[4000:])
    found = scores(over_the_wire(statistics, "int16"), penalty, tokens[4000:])
    assert (exact.argmax(axis=1) == labels[4000:]).mean() > 0.9
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.998


def test_clients_in_int16_sum_up_to_the_same_in_any_order():
    tokens, labels = hard_tokens(dim=8, count=90)
    parts = []
    for rows in np.split(np.arange(90), [10, 12]):
        part = Statistics.empty(5, 8, gram=True)
        part.add_tokens(tokens[rows], labels[rows])
        parts.append(over_the_wire(part, "int16"))
    totals = []
    for order in itertools.permutations(parts):
        totals.append(Statistics.empty(5, 8, gram=True))
        for part in order:
            totals[-1].add(part)
    for total in totals:
        np.testing.assert_allclose(total.sums, totals[0].sums, rtol=1e-12)
        np.testing.assert_allclose(total.gram, totals[0].gram, rtol=1e-12)
    whole = Statistics.empty(5, 8, gram=True)
    whole.add_tokens(tokens, labels)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-6)
    size = np.sqrt(np.diagonal(full_gram(whole)))
    np.testing.assert_allclose(
        full_gram(total) / size[:, None] / size, full_gram(whole) / size[:, None] / size, atol=1e-4
    )


def test_no_tokens_in_int16():
    empty = over_the_wire(Statistics.empty(2, 3, gram=True), "int16")
    assert empty.gram is not None
    assert (empty.counts.sum(), np.abs(empty.sums).sum(), np.abs(empty.gram).sum()) == (0, 0, 0)


def test_ridge_needs_the_gram_matrix():
    with pytest.raises(ValueError, match="There is no Gram matrix"):
        ridge_system(statistics_of(TOKENS, LABELS, gram=False))


def test_head_of_a_ridge_solution():
    head = ridge_head(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert head["fc1.weight"].tolist() == [[1, 3], [2, 4]]
    assert head["fc1.bias"].tolist() == [5, 6]
    assert {tensor.dtype for tensor in head.values()} == {np.dtype(np.float32)}


def test_class_means_by_hand():
    """Class 0: mean (3, 4), length 5. Class 1: mean (0, 2). Nobody has class 2."""
    statistics = statistics_of([[2, 4], [4, 4], [0, 2]], [0, 0, 1], 3, gram=False)
    head = class_means_head(statistics)
    np.testing.assert_allclose(head["fc1.weight"], [[0.6, 0.8], [0, 1], [0, 0]], rtol=1e-6)
    assert head["fc1.bias"].tolist() == [0, 0, -1e4]


def test_fedcof_by_hand():
    """Two clients, two tokens each, one number a token, one class and shrinkage 0.5.

    Sums 2 and 10 over 2 tokens: means 1 and 5, class mean 3 of N = 4. S = 1 / (2 - 1) (2 x 4 +
    2 x 4) + 0.5 = 16.5; G = 4 x 9 + 3 x 16.5 = 85.5; W = 12 / 85.5 > 0, at length 1.
    In two numbers a token, where the second is 1 for all: means (1, 1) and (5, 1), S = [[16.5, 0],
    [0, 0.5]], G = 4 [[9, 3], [3, 1]] + 3 S = [[85.5, 12], [12, 5.5]], determinant 326.25, B =
    (12, 4): W = (12 x 5.5 - 4 x 12, 4 x 85.5 - 12 x 12) / 326.25 = (18, 198) / 326.25.
    """
    one = statistics_of([[0], [2]], [0, 0], 1, gram=False)
    other = statistics_of([[4], [6]], [0, 0], 1, gram=False)
    assert fedcof_head([one, other], 0.5)["fc1.weight"].tolist() == [[1]]
    one = statistics_of([[0, 1], [2, 1]], [0, 0], 1, gram=False)
    other = statistics_of([[4, 1], [6, 1]], [0, 0], 1, gram=False)
    found = fedcof_head([one, other], 0.5)["fc1.weight"][0]
    np.testing.assert_allclose(found, np.array([18, 198]) / np.hypot(18, 198), rtol=1e-6)


def test_fedcof_of_two_classes_by_hand():
    """Class 0: (2, 0) at one client, (0, 0) at another. Class 1: (0, 1) three times, at the other.

    S_0 = 1 / (2 - 1) (1 + 1) of the first number + I = diag(3, 1), S_1 = I (one client), N m m^T =
    (2, 3) (2, 3)^T / 5, G = N m m^T + (2 - 1) S_0 + (3 - 1) S_1 = [[5.8, 1.2], [1.2, 4.8]].
    G^-1 (2, 0) points to (4.8, -1.2), G^-1 (0, 3) to (-1.2, 5.8).
    """
    one = statistics_of([[2, 0]], [0], gram=False)
    other = statistics_of([[0, 0], [0, 1], [0, 1], [0, 1]], [0, 1, 1, 1], gram=False)
    expected = np.array([[4.8, -1.2], [-1.2, 5.8]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(fedcof_head([one, other])["fc1.weight"], expected, rtol=1e-6)


def test_fedcof_with_classes_that_few_or_no_clients_have():
    """Class 1 is at one client only (no covariance), class 2 at none (never wins)."""
    one = statistics_of([[1, 0], [2, 0]], [0, 0], 3, gram=False)
    other = statistics_of([[3, 0], [0, 2]], [0, 1], 3, gram=False)
    head = fedcof_head([one, other])
    assert np.isfinite(head["fc1.weight"]).all()
    assert head["fc1.bias"].tolist() == [0, 0, -1e4]
    logits = np.array([[2.0, 0], [0, 1]]) @ head["fc1.weight"].T + head["fc1.bias"]
    assert logits.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "payload"),
    [
        ("float64", 80 + 8 * (7_680 + 295_296)),
        ("float32", 80 + 4 * (7_680 + 295_296)),
        ("int16", 80 + 4 * 7_680 + 4 * 768 + 2 * 295_296),
        ("compact", 80 + 2 * 7_680 + 8 * 768 + 2 * 295_296),
    ],
)
def test_layout_is_what_travels(dtype, payload):
    """10 classes, 768 numbers: 80 bytes of counts, 7,680 sums and 295,296 of the triangle."""
    layout = statistics_layout(10, 768, "class-sums-and-gram", dtype)
    tensors = Statistics.empty(10, 768, gram=True).to_tensors(dtype)
    assert layout == {name: (t.dtype, t.shape) for name, t in tensors.items()}
    assert sum(t.nbytes for t in tensors.values()) == payload
    assert list(statistics_layout(10, 768, "class-sums", dtype)) == ["counts", "sums"]


def test_what_cannot_be_true_is_told():
    def spoiled(**changes):
        statistics = statistics_of(TOKENS, LABELS)
        for name, value in changes.items():
            setattr(statistics, name, np.asarray(value))
        return statistics.why_implausible(4, max_token=4)

    assert spoiled() == ""
    assert "do not add up to its 4 examples" in spoiled(counts=[2, 3])
    assert "do not add up" in spoiled(counts=[-1, 5])
    # Four times 2^62 wraps around to 0 in 64 bits.
    assert "do not add up" in spoiled(counts=[2**62, 2**62, 2**62, 2**62, 4])
    assert "class sums need tokens above max_token = 4" in spoiled(sums=[[9, 0], [0, 6]])
    assert "Gram matrix needs tokens above" in spoiled(gram=[10, 0, 65])


def lying_sums(dim: int = 6) -> Statistics:
    """Two classes whose means are far apart, in a Gram matrix without any spread."""
    sums = np.zeros((2, dim))
    sums[:, 0] = 500 * 1e4, -500 * 1e4
    return Statistics(np.array([500, 500]), sums, np.zeros(dim * (dim + 1) // 2))


def test_a_gram_matrix_that_is_too_small_for_the_class_sums_is_implausible():
    """500 tokens at 1e4 and 500 at -1e4 have a sum of squares of 1e11, not of 0."""
    why = lying_sums().why_implausible(1000, 1e4)
    assert why == "its Gram matrix is too small for its class sums"
    honest = lying_sums()
    honest.gram[0] = 1000 * 1e8
    assert honest.why_implausible(1000, 1e4) == ""


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "compact"])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_real_tokens_always_fit_their_gram_matrix(dtype, spread):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    tokens = 5000.0 + 100.0 * labels[:, None] + spread * generator.standard_normal((60, 8))
    told = over_the_wire(statistics_of(tokens, labels, 3), dtype)
    assert told.why_implausible(60, 1e4) == ""
