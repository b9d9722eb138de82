"""The client's side of the prior: taken, kept, missed, and not replaced by a damaged one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from client_app.prior import PriorError, token_prior
from flower_ist.statistics.gaussians import ClassGaussians
from flower_ist.statistics.prior import TokenPrior
from flower_ist.wire.layout import WireError, layout_of
from flower_ist.wire.packing import SQUEEZED, digest_of, pack
from flower_ist.wire.protocol import PRIOR_ARRAY, PRIOR_KEY, PRIOR_RECORD, REPLAY_KEY, SKIP_KEY
from tests.fakes.shards import make_meta

META = make_meta(dim=2)  # of two classes


def prior(
    first: float = 1.0, dim: int = 2, *, replay: bool = True, skip: bool = False
) -> TokenPrior:
    gaussians = ClassGaussians(
        np.array([0.5, 0.5], np.float32),
        np.zeros((2, dim), np.float32),
        np.eye(dim, dtype=np.float32),
        np.zeros(dim, np.float32),
    )
    mean = np.full(dim, first, np.float32)
    found = TokenPrior(mean, np.ones(dim, np.float32), gaussians if replay else None)
    return found.with_head(np.eye(dim, dtype=np.float32), mean) if skip else found


def packed(given: TokenPrior) -> Array:
    tensors = given.to_tensors()
    return pack(tensors, layout_of(tensors), SQUEEZED)


def message(array: Array, *, brings: bool = True, **changes: Any) -> Message:
    """Make a message that counts on a prior, and brings it or not."""
    name = {PRIOR_KEY: digest_of(array), REPLAY_KEY: True, SKIP_KEY: False}
    name |= {{"skip": SKIP_KEY}.get(key, key): value for key, value in changes.items()}
    content = RecordDict(
        {PRIOR_KEY: ConfigRecord({k: v for k, v in name.items() if v is not None})}
    )
    if brings:
        content[PRIOR_RECORD] = ArrayRecord({PRIOR_ARRAY: array})
    return Message(content, 2, "train")


def client(**node_config: Any) -> Context:
    return Context(1, 2, node_config, RecordDict(), {})


def mean_of(found: TokenPrior | None) -> float:
    assert found is not None
    return float(found.mean[0])


def test_without_a_name_there_is_none():
    assert token_prior(Message(RecordDict(), 2, "train"), client(), META) is None


def test_it_is_kept_for_later_messages():
    context, array = client(), packed(prior())
    assert mean_of(token_prior(message(array), context, META)) == 1
    found = token_prior(message(array, brings=False), context, META)
    assert mean_of(found) == 1
    assert found is not None
    assert found.gaussians is not None


def test_one_that_was_lost_is_missed():
    context, array = client(), packed(prior())
    token_prior(message(array), context, META)
    context.state = RecordDict()
    with pytest.raises(PriorError, match="does not hold the token prior: send it again"):
        token_prior(message(array, brings=False), context, META)
    assert mean_of(token_prior(message(array), context, META)) == 1


def test_another_one_than_named_is_not_used():
    context = client()
    token_prior(message(packed(prior(1))), context, META)
    other = packed(prior(2))
    with pytest.raises(PriorError, match="does not hold the token prior"):
        token_prior(message(other, brings=False), context, META)
    assert mean_of(token_prior(message(other), context, META)) == 2
    assert mean_of(token_prior(message(other, brings=False), context, META)) == 2


def damaged(array: Array) -> Array:
    return Array(array.dtype, array.shape, array.stype, bytes(len(array.data)))


def nan() -> Array:
    return packed(prior(np.nan))


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (lambda: message(packed(prior(dim=3))), WireError, "The array does not hold 48 bytes"),
        (
            lambda: message(nan()),
            ValueError,
            "The token prior holds values that are no sensible numbers",
        ),
        # Its name is that of other bytes.
        (
            lambda: message(damaged(packed(prior())), **{PRIOR_KEY: "0" * 16}),
            PriorError,
            "does not hold the token prior",
        ),
        (
            lambda: message(packed(prior(replay=False))),
            WireError,
            "The array does not hold 48 bytes",
        ),
        # Mean, spread, shares and two steps are 8 numbers of 4, the means and the rest 6 of 2, the
        # factor 4 of 1: of the head 2 x 2 weights of 2 bytes and 2 biases of 4 are missing, or too
        # many.
        (
            lambda: message(packed(prior()), skip=True),
            WireError,
            "The array does not hold 64 bytes",
        ),
        (
            lambda: message(packed(prior(skip=True))),
            WireError,
            "The array does not hold 48 bytes",
        ),
        (lambda: message(packed(prior()), replay=None), PriorError, "'replay' and 'lda-skip' tr"),
        (lambda: message(packed(prior()), replay=1), PriorError, "'replay' and 'lda-skip' true"),
        (lambda: message(packed(prior()), skip=None), PriorError, "'replay' and 'lda-skip' true"),
        (lambda: message(packed(prior()), skip="no"), PriorError, "'replay' and 'lda-skip' true"),
        (
            lambda: message(packed(prior()), **{PRIOR_KEY: None}),
            PriorError,
            "'token-prior' must be a string",
        ),
        (
            lambda: message(packed(prior()), **{PRIOR_KEY: 3}),
            PriorError,
            "'token-prior' must be a string",
        ),
    ],
)
def test_a_faulty_prior_is_refused_and_the_good_one_kept(wrong, error, sentence):
    context, array = client(), packed(prior())
    token_prior(message(array), context, META)
    with pytest.raises(error, match=sentence) as caught:
        token_prior(wrong(), context, META)
    assert "\n" not in str(caught.value)
    assert mean_of(token_prior(message(array, brings=False), context, META)) == 1


def test_a_record_without_the_array_is_refused():
    asks = message(packed(prior()), brings=False)
    asks.content[PRIOR_RECORD] = ArrayRecord({"other": packed(prior())})
    with pytest.raises(PriorError, match="does not hold"):
        token_prior(asks, client(), META)


def test_without_replay_it_holds_no_gaussians():
    array = packed(prior(replay=False))
    found = token_prior(message(array, replay=False), client(), META)
    assert found is not None
    assert found.gaussians is None


def test_a_head_comes_with_it():
    array = packed(prior(2.0, skip=True))
    context = client()
    for brings in (True, False):
        found = token_prior(message(array, brings=brings, skip=True), context, META)
        assert found is not None
        assert found.head is not None
        # For tokens minus 2 the bias 2 of x is 2 + 2.
        assert found.head.weight.tolist() == [[1, 0], [0, 1]]
        assert found.head.bias.tolist() == [4, 4]


def test_a_private_client_standardizes_but_draws_nothing():
    """The number of its real examples in a batch would tell how its labels are spread."""
    context, array = client(**{"privacy-clip": 1.0, "privacy-noise": 1.0}), packed(prior())
    for brings in (True, False):
        found = token_prior(message(array, brings=brings), context, META)
        assert mean_of(found) == 1
        assert found is not None
        assert found.gaussians is None
