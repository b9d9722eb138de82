"""Which client got how many images of which class, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from data_prep.splits.rows import Rows
from flower_ist.console import cell
from flower_ist.tables import new_table

Counts = NDArray[np.int64]
MOST_COLUMNS = 12
"""The most classes that the table shows one by one."""
_COLUMN_WIDTH = 8
_OVERVIEW = ("classes", "effective\nclasses", "largest\n%", "largest class")


def class_counts(labels: NDArray[np.integer], parts: Sequence[Rows], classes: int) -> Counts:
    """Return how many images of each class each part holds, (parts, classes)."""
    return np.stack([np.bincount(labels[rows], minlength=classes) for rows in parts])


@dataclass(frozen=True)
class SplitReport:
    """The images of K clients, counted by class.

    Attributes:
        clients: K names.
        class_names: C names.
        counts: (K, C) images; every client has at least one.
        owners: K names, where each client is one owner in the source; else none.
    """

    clients: tuple[str, ...]
    class_names: tuple[str, ...]
    counts: Counts
    owners: tuple[str, ...] = ()

    @classmethod
    def of_parts(
        cls,
        labels: NDArray[np.integer],
        class_names: Sequence[str],
        parts: Sequence[Rows],
        owners: Sequence[str] = (),
    ) -> Self:
        """Count a split given as rows; its clients are ``client-0`` and so on."""
        clients = tuple(f"client-{k}" for k in range(len(parts)))
        counts = class_counts(labels, parts, len(class_names))
        return cls(clients, tuple(class_names), counts, tuple(owners))

    @property
    def images(self) -> Counts:
        """(K,) images of each client."""
        images: Counts = self.counts.sum(axis=1)
        return images

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K, C) share of each class among a client's images."""
        return self.counts / self.images[:, None]

    @property
    def effective_classes(self) -> NDArray[np.float64]:
        """(K,) e to the entropy: how many classes of equal size are as mixed as the client's."""
        return _effective(self.shares)

    @property
    def distance(self) -> NDArray[np.float64]:
        """(K,) total variation between a client's classes and all clients' taken together.

        0 is the same mix; it is the share of its images that would have to be of other classes.
        """
        pooled = self.counts.sum(axis=0) / self.counts.sum()
        distance: NDArray[np.float64] = np.abs(self.shares - pooled).sum(axis=1) / 2
        return distance


def to_table(report: SplitReport) -> Table:
    """Return a table with a row for each client and one for all of them.

    Up to 12 classes with short names have a column each. Otherwise the columns are the number of
    classes held, how mixed they are, and the largest class with its share.
    """
    one_by_one = len(report.class_names) <= MOST_COLUMNS and all(
        len(name) <= 2 * _COLUMN_WIDTH for name in report.class_names
    )
    total = report.counts.sum(axis=0)
    table = new_table(show_footer=True)
    table.add_column("client", "all", no_wrap=True)
    if report.owners:
        table.add_column("owner", overflow="fold")
    table.add_column("images", f"{total.sum()}", justify="right", no_wrap=True)
    if one_by_one:
        for name, count in zip(report.class_names, _each_class(total), strict=True):
            # Never narrower than its number.
            table.add_column(
                cell(name),
                count,
                justify="right",
                overflow="fold",
                min_width=len(count),
                max_width=_COLUMN_WIDTH,
            )
    else:
        for name, value in zip(_OVERVIEW, _overview(total, report.class_names), strict=True):
            justify: Literal["left", "right"] = "left" if name == _OVERVIEW[-1] else "right"
            table.add_column(name, value, justify=justify, overflow="fold")
    mean = report.distance @ report.images / report.images.sum()
    table.add_column("distance", f"{mean:.2f}", justify="right", no_wrap=True)
    for k, client in enumerate(report.clients):
        counts = report.counts[k]
        cells = _each_class(counts) if one_by_one else _overview(counts, report.class_names)
        owner = [cell(report.owners[k])] if report.owners else []
        table.add_row(client, *owner, str(counts.sum()), *cells, f"{report.distance[k]:.2f}")
    return table


def to_json(report: SplitReport, notes: Mapping[str, Any] | None = None) -> str:
    """Return the counts and what follows from them as JSON, and notes on the images behind them."""
    clients: dict[str, Any] = {
        client: {
            **({"owner": report.owners[k]} if report.owners else {}),
            "images": int(report.images[k]),
            "counts": report.counts[k].tolist(),
            "effective_classes": round(float(report.effective_classes[k]), 4),
            "distance": round(float(report.distance[k]), 4),
        }
        for k, client in enumerate(report.clients)
    }
    content = {"class_names": list(report.class_names), "clients": clients, **(notes or {})}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _each_class(counts: Counts) -> list[Text]:
    return [cell(str(count) if count else "·") for count in counts]


def _overview(counts: Counts, names: Sequence[str]) -> list[Text]:
    shares = counts / counts.sum()
    return [
        cell(str(np.count_nonzero(counts))),
        cell(f"{_effective(shares[None])[0]:.1f}"),
        cell(f"{100 * shares.max():.1f}"),
        cell(names[int(counts.argmax())]),
    ]


def _effective(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    # The logarithm of an absent class counts nothing.
    logs = np.log(np.where(shares > 0, shares, 1.0))
    effective: NDArray[np.float64] = np.exp(-(shares * logs).sum(axis=1))
    return effective
