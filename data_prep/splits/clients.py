"""Which client holds which training images: evenly at random, skewed, or as their owners do.

The kinds are those of flwr-datasets (https://flower.ai/docs/datasets/), so that results can be
compared with those of others. It is given labels and row numbers, never an image, and is imported
only where a split needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.masks.names import check_seed
from data_prep.splits.kinds import ClientSplit
from data_prep.splits.rows import CLIENTS, Rows, iid_split, permutation

if TYPE_CHECKING:
    # It imports torch, which the help text of a command does not need.
    from data_prep.images.image_set import ImageSet

DEFAULT_CLIENTS = 4


def split_clients(data: ImageSet, spec: ClientSplit, clients: int | None, seed: int) -> list[Rows]:
    """Deal all images to clients; each gets at least one.

    The same arguments give the same rows each time. ``iid`` also does so in every release of every
    library; the others follow numpy's generator and flwr-datasets.

    Args:
        data: The training images.
        spec: The kind of split.
        clients: How many; None for as many as there are owners under ``natural``, else 4.
        seed: 0 to 2**64 - 1; ``natural`` does not depend on it.

    Returns:
        The rows of each client in ascending order: disjoint, together all rows of ``data``.

    Raises:
        PrepError: a client would get no image, the number of clients is impossible, or the images'
            owners are unknown.
    """
    check_seed(seed)
    if spec.kind == "natural":
        return _by_owner(data, clients)
    clients = DEFAULT_CLIENTS if clients is None else clients
    if spec.kind == "iid" or not 1 <= clients <= len(data):
        # This also refuses a number of clients that no split can have.
        return iid_split(len(data), clients, seed)
    # The partitioners deal rows in their order, which in class folders is that of the classes.
    order = permutation(len(data), seed, CLIENTS)
    if spec.kind == "dirichlet":
        return _dirichlet(data.labels, order, spec, clients, seed)
    if spec.kind == "shards":
        return _label_shards(data.labels, order, spec, clients, seed)
    return _by_quantity(order, spec, clients)


def _by_owner(data: ImageSet, clients: int | None) -> list[Rows]:
    """Return the rows of each owner, the owners sorted by name, as flwr-datasets has them."""
    if data.owners is None:
        raise PrepError(
            f"{data.source} does not say whose images these are: the split natural needs a source "
            "with owners; use another split."
        )
    names, owner = np.unique(data.owners, return_inverse=True)
    if clients not in (None, len(names)):
        raise PrepError(
            f"The images of {data.source} have {len(names)} owners, which makes {len(names)} "
            f"clients, not {clients}: leave --clients out, or use another split."
        )
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])


def _dirichlet(
    labels: NDArray[np.int64], order: Rows, spec: ClientSplit, clients: int, seed: int
) -> list[Rows]:
    """Draw again, ten times at most, until no client is empty, as flwr-datasets does."""
    from flwr_datasets.partitioner import DirichletPartitioner

    partitioner = DirichletPartitioner(
        clients, "label", alpha=spec.alpha, min_partition_size=1, seed=seed
    )
    try:
        return _partition(partitioner, {"label": labels[order]}, order)
    except ValueError as err:
        raise PrepError(
            f"The split {spec} left one of {clients} clients without images in each of its draws: "
            "use fewer clients, a larger alpha or another seed."
        ) from err


def _label_shards(
    labels: NDArray[np.int64], order: Rows, spec: ClientSplit, clients: int, seed: int
) -> list[Rows]:
    """Cut the images, sorted by class, into pieces whose sizes differ by one at most.

    Cutting images itself, ShardPartitioner leaves out what does not fill a piece. So it is given
    whole pieces to deal; where pieces come out even, the result is the same.
    """
    from flwr_datasets.partitioner import ShardPartitioner

    pieces = clients * spec.shards
    if pieces > len(order):
        raise PrepError(
            f"{len(order)} images cannot be cut into {clients} x {spec.shards} shards: use fewer "
            "clients or fewer shards each."
        )
    by_class = order[np.argsort(labels[order], kind="stable")]
    cut = np.array_split(by_class, pieces)
    partitioner = ShardPartitioner(
        clients, "piece", num_shards_per_partition=spec.shards, shard_size=1, seed=seed
    )
    numbers = np.arange(pieces)
    dealt = _partition(partitioner, {"piece": numbers}, numbers)
    return [np.sort(np.concatenate([cut[number] for number in part])) for part in dealt]


def _by_quantity(order: Rows, spec: ClientSplit, clients: int) -> list[Rows]:
    from flwr_datasets import partitioner

    kinds = {
        "linear": partitioner.LinearPartitioner,
        "square": partitioner.SquarePartitioner,
        "exponential": partitioner.ExponentialPartitioner,
    }
    try:
        return _partition(kinds[spec.growth](clients), {}, order)
    except ValueError as err:
        raise PrepError(
            f"The split {spec} of {len(order)} images leaves client-0 without any: use fewer than "
            f"{clients} clients or a split that grows more slowly."
        ) from err


def _partition(partitioner: Any, columns: Mapping[str, NDArray[Any]], rows: Rows) -> list[Rows]:
    """Return the sorted entries of ``rows`` that a partitioner gives to each client."""
    from datasets import Dataset

    partitioner.dataset = Dataset.from_dict({**columns, "row": rows})
    # Repeated draws warn, as do overflows (which end in an error) and pyarrow's coming changes. The
    # result is checked instead.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [partitioner.load_partition(k) for k in range(partitioner.num_partitions)]
    return [np.sort(part.with_format("numpy")["row"][:]).astype(np.intp) for part in parts]
