"""Class names: their order, and whether two splits agree on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from data_prep import PrepError


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names sorted: as numbers where all are whole numbers, else as texts."""
    distinct = set(names)
    if all(name.isdecimal() and name.isascii() for name in distinct):
        # Equal numbers, such as 1 and 01, still have one order.
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def check_same_classes(
    train: Collection[str], test: Collection[str], train_place: object, test_place: object
) -> None:
    """Refuse two splits of which one has a class that the other lacks; the places name them.

    Raises:
        PrepError: a class is in one split only.
    """
    sides = ((train, test, train_place, test_place), (test, train, test_place, train_place))
    for one, other, here, there in sides:
        if missing := in_order(set(one) - set(other)):
            raise PrepError(
                f"The class {missing[0]!r} is in {here} but not in {there}: add its images there, "
                "remove it, or name all classes in a class schema."
            )
