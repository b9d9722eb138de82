"""Turns: nobody twice before everybody once, the same for the same names, whoever comes or goes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from flower_ist.strategies.sampling import TurnSampler
from flower_ist.strategies.submodel import ISTStrategy
from tests.fakes.strategies import AXES, SilentGrid, model

NAMES = [f"client-{k}" for k in range(10)]


def drawn(sampler: TurnSampler, rounds: range, names: list[str], count: int) -> list[list[str]]:
    return [sampler.sample(server_round, names, count) for server_round in rounds]


@given(
    seed=st.integers(0, 2**32),
    num_clients=st.integers(1, 30),
    count=st.integers(1, 30),
    num_rounds=st.integers(1, 20),
)
def test_nobody_trains_twice_before_everybody_trained_once(seed, num_clients, count, num_rounds):
    """After every round the most and the fewest turns are at most one apart."""
    names = [f"n{k}" for k in range(num_clients)]
    count = min(count, num_clients)
    turns = Counter(dict.fromkeys(names, 0))
    sampler = TurnSampler(seed)
    for server_round in range(1, num_rounds + 1):
        chosen = sampler.sample(server_round, names, count)
        assert chosen == sorted(set(chosen))
        assert len(chosen) == count
        turns.update(chosen)
        assert max(turns.values()) - min(turns.values()) <= 1


@given(
    seed=st.integers(0, 2**32),
    present=st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=40),
    count=st.integers(1, 4),
)
def test_whoever_comes_and_goes_nobody_is_passed_over(seed, present, count):
    """Between a client's turns of two epochs there is a whole one, for all that stay for it."""
    sampler = TurnSampler(seed)
    rounds: list[set[str]] = []
    for server_round, who in enumerate(present, start=1):
        names = [f"n{k}" for k in who]
        rounds.append(set(sampler.sample(server_round, names, count)))
        assert len(rounds[-1]) == min(count, len(names))
        assert rounds[-1] <= set(names)
    for one in set().union(*rounds):
        turns = [k for k, chosen in enumerate(rounds) if one in chosen]
        for first, third in zip(turns, turns[2:], strict=False):
            stayed = set.intersection(*(present[k] for k in range(first, third + 1)))
            asked = set().union(*rounds[first : third + 1])
            assert {f"n{k}" for k in stayed} <= asked


def test_a_round_looks_at_those_that_it_draws(monkeypatch):
    """Of 1,000 clients in tens, all draw a lot in rounds 1 and 101, and nobody in any other."""
    lots = []
    real = hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda *a, **kw: lots.append(1) or real(*a, **kw))
    sampler, names = TurnSampler(0), tuple(f"n{k}" for k in range(1000))
    drawn_by, kept = [], sampler.state()["turns"]
    for server_round in range(1, 102):
        sampler.sample(server_round, names, 10)
        drawn_by.append(len(lots))
        assert kept.writes == 10 * server_round
    assert drawn_by == [1000] * 100 + [2000]


def test_ten_clients_in_threes():
    """Rounds 1 to 3 have nine clients; round 4 has the tenth and two of the next epoch."""
    rounds = drawn(TurnSampler(0), range(1, 5), NAMES, 3)
    first_nine = [name for chosen in rounds[:3] for name in chosen]
    assert len(set(first_nine)) == 9
    assert set(NAMES) - set(first_nine) <= set(rounds[3])


def test_epochs_have_orders_of_their_own_and_follow_the_seed():
    epochs = drawn(TurnSampler(0), range(1, 21), NAMES, 1)
    assert epochs[:10] != epochs[10:]
    assert sorted(epochs[:10]) == sorted(epochs[10:]) == [[name] for name in NAMES]
    assert epochs != drawn(TurnSampler(1), range(1, 21), NAMES, 1)


def test_only_names_count_not_their_order():
    assert drawn(TurnSampler(5), range(1, 9), NAMES, 4) == drawn(
        TurnSampler(5), range(1, 9), NAMES[::-1], 4
    )


def test_who_leaves_does_not_change_the_order_of_the_others():
    whole = [name for (name,) in drawn(TurnSampler(2), range(1, 11), NAMES, 1)]
    gone = whole[4]
    sampler = TurnSampler(2)
    before = drawn(sampler, range(1, 3), NAMES, 1)
    after = drawn(sampler, range(3, 10), [name for name in NAMES if name != gone], 1)
    assert [name for (name,) in before + after] == [name for name in whole if name != gone]


def test_a_newcomer_does_not_train_at_the_cost_of_others():
    """Nine clients have had five turns each: the tenth gets one turn first, then its share."""
    sampler = TurnSampler(0)
    drawn(sampler, range(1, 46), NAMES[:9], 1)
    later = [name for (name,) in drawn(sampler, range(46, 66), NAMES, 1)]
    assert later[0] == NAMES[9]
    turns = Counter(later)
    assert turns[NAMES[9]] == 2 + 1
    assert set(turns.values()) == {1, 2, 3}


def test_who_trained_alone_for_long_is_not_owed_a_rest():
    """One client was alone for 50 rounds: the others get one turn each, not 50."""
    sampler = TurnSampler(0)
    drawn(sampler, range(1, 51), NAMES[:1], 1)
    later = [name for (name,) in drawn(sampler, range(51, 71), NAMES, 1)]
    assert Counter(later)[NAMES[0]] >= 1


@pytest.mark.parametrize("resumed_at", [1, 2, 7, 11])
def test_a_resumed_run_draws_what_an_uninterrupted_one_would(resumed_at):
    whole = drawn(TurnSampler(3), range(1, 13), NAMES, 4)
    resumed = drawn(TurnSampler(3), range(resumed_at, 13), NAMES, 4)
    assert resumed == whole[resumed_at - 1 :]


def test_a_saved_state_goes_on_where_clients_came_and_went():
    """The names of before are gone from the call: only the state can know who had a turn."""
    sampler = TurnSampler(3)
    drawn(sampler, range(1, 4), NAMES[:7], 2)
    drawn(sampler, range(4, 6), NAMES[2:], 3)
    fresh = TurnSampler(3)
    fresh.load_state(json.loads(json.dumps(sampler.state(), default=dict)))
    expected = drawn(sampler, range(6, 20), NAMES, 3)
    assert drawn(fresh, range(6, 20), NAMES, 3) == expected
    assert drawn(TurnSampler(3), range(6, 20), NAMES, 3) != expected


def test_a_second_start_draws_as_the_first():
    sampler = TurnSampler(3)
    first = drawn(sampler, range(1, 6), NAMES, 4)
    assert drawn(sampler, range(1, 6), NAMES, 4) == first


def test_too_few_and_none():
    assert TurnSampler(0).sample(1, NAMES[:2], 5) == NAMES[:2]
    assert TurnSampler(0).sample(1, [], 5) == []


def test_the_strategy_asks_every_client_before_any_twice():
    """Ten nodes, four a round: after five rounds everybody was asked twice."""
    strategy = ISTStrategy(AXES, num_slices=4, fraction_train=0.4, min_train_nodes=1)
    grid = SilentGrid(10)
    asked: Counter[int] = Counter()
    for server_round in range(1, 6):
        messages = list(strategy.configure_train(server_round, model()[1], ConfigRecord(), grid))
        assert len(messages) == 4
        asked.update(message.metadata.dst_node_id for message in messages)
    assert set(asked.values()) == {2}
    assert len(asked) == 10
