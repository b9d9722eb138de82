"""Splits of a few labeled images; the sizes and classes expected are worked out by hand."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.splits.clients import split_clients
from data_prep.splits.kinds import SPLITS, ClientSplit, describe_splits
from data_prep.splits.rows import iid_split


def image_set(labels, owners=None):
    labels = np.array(labels)
    return ImageSet(
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=labels,
        image_ids=np.arange(len(labels)),
        class_names=tuple(f"class {label}" for label in range(labels.max() + 1)),
        source="toy",
        owners=None if owners is None else np.array(owners),
    )


def split(data, text, clients=None, seed=0):
    return split_clients(data, ClientSplit.parse(text), clients, seed)


def counts(data, parts):
    return [np.bincount(data.labels[rows], minlength=len(data.class_names)) for rows in parts]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("iid", ClientSplit()),
        ("natural", ClientSplit("natural")),
        ("dirichlet:0.3", ClientSplit("dirichlet", alpha=0.3)),
        ("shards:2", ClientSplit("shards", shards=2)),
        ("quantity:square", ClientSplit("quantity", growth="square")),
    ],
)
def test_a_split_is_read_and_written(text, spec):
    assert ClientSplit.parse(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize("text", ["", "random", "iid:", "natural:3", "dirichlet", "quantity:cubic"])
def test_an_unknown_split_names_all_choices(text):
    with pytest.raises(PrepError) as caught:
        ClientSplit.parse(text)
    assert str(caught.value) == (
        f"The split {text!r} is unknown: use iid, dirichlet:ALPHA, shards:NUMBER, quantity:linear, "
        "quantity:square, quantity:exponential or natural."
    )


@pytest.mark.parametrize("alpha", ["", "x", "0", "-1", "nan", "inf", "1e-9", "1e9"])
def test_an_alpha_out_of_range(alpha):
    with pytest.raises(PrepError, match=r"alpha must be a number of 0\.001 to 1,000,000, not"):
        ClientSplit.parse(f"dirichlet:{alpha}")


@pytest.mark.parametrize("number", ["", "0", "-1", "1.5", "²", "9" * 5000])
def test_a_number_of_shards_out_of_range(number):
    with pytest.raises(PrepError, match="must be a whole number of 1 and up, not"):
        ClientSplit.parse(f"shards:{number}")


def test_each_form_has_a_line_of_help():
    assert [line.split(": ")[0] for line in describe_splits()] == list(SPLITS)


@settings(max_examples=20, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=40, max_size=90),
    text=st.sampled_from(["iid", "dirichlet:1", "dirichlet:50", "shards:2", "shards:3"])
    | st.sampled_from(["quantity:linear", "quantity:square", "quantity:exponential"]),
    clients=st.integers(1, 4),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_image_goes_to_one_client_the_same_each_time(labels, text, clients, seed):
    data = image_set(labels)
    parts = split(data, text, clients, seed)
    assert len(parts) == clients
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for one, other in zip(parts, split(data, text, clients, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", ["iid", "dirichlet:1", "shards:2", "quantity:linear"])
def test_another_seed_is_another_split(text):
    data = image_set(np.repeat(np.arange(4), 25))
    first, second = split(data, text, 3, seed=0), split(data, text, 3, seed=1)
    assert any(a.tolist() != b.tolist() for a, b in zip(first, second, strict=True))


def test_iid_is_the_split_there_always_was_and_the_default_is_four_clients():
    data = image_set(np.arange(40) % 4)
    for one, other in zip(split(data, "iid"), iid_split(40, 4, 0), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("growth", "count", "sizes"),
    [
        ("linear", 20, [2, 4, 6, 8]),
        ("square", 30, [1, 4, 9, 16]),
        # e, e^2, e^3 and e^4 of their sum 84.79 are .0321, .0871, .2369 and .6439; what is cut off
        # goes to the last.
        ("exponential", 100, [3, 8, 23, 66]),
    ],
)
def test_sizes_by_hand(growth, count, sizes):
    data = image_set(np.arange(count) % 2)
    assert [len(part) for part in split(data, f"quantity:{growth}", 4)] == sizes


def test_quantity_does_not_follow_the_order_of_the_images():
    """Sorted by class, the first of 100 images would all be of class 0."""
    data = image_set(np.repeat([0, 1], 50))
    assert all(count.min() >= 1 for count in counts(data, split(data, "quantity:linear", 4)))


def test_a_large_alpha_shares_each_class_evenly():
    """At 1e6 a client's share of 100 images is 25, give or take .05, before rounding down."""
    data = image_set(np.repeat(np.arange(3), 100))
    found = np.array(counts(data, split(data, "dirichlet:1e6", 4)))
    assert found.min() >= 24
    assert found.max() <= 27


def test_a_small_alpha_gives_a_class_to_one_client():
    """At .001 the largest of two shares is below .99 about once in 200 draws."""
    data = image_set(np.repeat(np.arange(8), 50))
    found = np.array(counts(data, split(data, "dirichlet:0.001", 2)))
    assert (found.max(axis=0) >= 49).sum() >= 7


def test_dirichlet_takes_any_images_of_a_class():
    data = image_set([0] * 60)
    assert not np.array_equal(split(data, "dirichlet:1e6", 2)[0], np.arange(30))


def test_dirichlet_that_cannot_be_had_is_a_sentence():
    """Two classes go to two of ten clients."""
    data = image_set(np.arange(40) % 2)
    with pytest.raises(PrepError) as caught:
        split(data, "dirichlet:0.001", 10)
    assert str(caught.value) == (
        "The split dirichlet:0.001 left one of 10 clients without images in each of its draws: "
        "use fewer clients, a larger alpha or another seed."
    )


def test_one_shard_each_is_one_class_each():
    data = image_set(np.arange(40) % 4)
    found = counts(data, split(data, "shards:1", 4))
    assert sorted(count.tolist() for count in found) == [
        [0, 0, 0, 10],
        [0, 0, 10, 0],
        [0, 10, 0, 0],
        [10, 0, 0, 0],
    ]


def test_uneven_shards_differ_by_one_image():
    """18 images in 2 x 2 shards are 5, 5, 4 and 4: 8 to 10 for a client."""
    parts = split(image_set(np.arange(18) % 3), "shards:2", 2)
    assert sorted(len(part) for part in parts) in ([8, 10], [9, 9])


def test_even_shards_are_those_that_the_library_deals():
    from datasets import Dataset
    from flwr_datasets.partitioner import ShardPartitioner

    data = image_set(np.arange(60) % 5)
    library = ShardPartitioner(3, "label", num_shards_per_partition=4, seed=7)
    library.dataset = Dataset.from_dict({"label": np.sort(data.labels)})
    ours = counts(data, split(data, "shards:4", 3, seed=7))
    with warnings.catch_warnings():
        # pyarrow 25 tells datasets that its way of sorting will change.
        warnings.simplefilter("ignore", FutureWarning)
        theirs = [np.bincount(library.load_partition(k)["label"], minlength=5) for k in range(3)]
    assert [c.tolist() for c in ours] == [c.tolist() for c in theirs]


def test_natural_makes_a_client_of_each_owner():
    data = image_set([0, 1, 0, 1, 1], owners=["bo", "al", "bo", "cy", "al"])
    owners = [data.owners[rows[0]] for rows in split(data, "natural")]
    assert owners == ["al", "bo", "cy"]
    for clients in (None, 3):
        assert [part.tolist() for part in split(data, "natural", clients)] == [[1, 4], [0, 2], [3]]


def test_natural_prints_nothing(capsys):
    split(image_set([0, 1], owners=["bo", "al"]), "natural")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "clients", "sentence"),
    [
        ("natural", 3, "have 2 owners, which makes 2 clients, not 3: leave --clients out"),
        ("quantity:exponential", 12, "of 30 images leaves client-0 without any: use fewer than 12"),
        ("quantity:exponential", 30, "of 30 images leaves client-0 without any"),
        ("shards:16", 2, "30 images cannot be cut into 2 x 16 shards: use fewer clients or fewer"),
        ("dirichlet:1", 31, "30 images cannot be split into 31 parts: use 1 to 30"),
        ("shards:1", 0, "30 images cannot be split into 0 parts: use 1 to 30"),
    ],
)
def test_numbers_of_clients_that_cannot_be_had(text, clients, sentence):
    data = image_set(np.arange(30) % 3, owners=["al", "bo"] * 15)
    with pytest.raises(PrepError, match=sentence):
        split(data, text, clients)


def test_exponential_growth_beyond_all_numbers():
    """e to the power of 800 is no float: a sentence all the same."""
    with pytest.raises(PrepError, match="leaves client-0 without any"):
        split(image_set(np.arange(1000) % 3), "quantity:exponential", 800)


def test_natural_needs_owners():
    with pytest.raises(PrepError, match="toy does not say whose images these are"):
        split(image_set([0, 1]), "natural")


def test_a_seed_out_of_range():
    with pytest.raises(PrepError, match="seed must be 0 to"):
        split(image_set([0, 1]), "dirichlet:1", 2, seed=-1)


def test_iid_needs_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    assert len(split(image_set([0, 1]), "iid", 2)) == 2
