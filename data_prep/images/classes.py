"""Class names: their order, whether two sets agree on them, and the file that fixes them.

A device that labels its own images may lack some classes. Without a list that all clients share,
its labels would be numbered by what it happens to have. The list is a small JSON file, the class
schema.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.images.image_set import ImageSet
from data_prep.json_file import read_json
from flower_ist.console import is_unicode, printable
from flower_ist.files import make_folder, write_file

FORMAT = "flower-ist-classes"
VERSION = 1


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


def check_names(names: Sequence[object], where: str) -> tuple[str, ...]:
    """Return class names that a schema may hold; errors begin with ``where`` they stand.

    Raises:
        PrepError: there are none, or they are not distinct texts.
    """
    if not names:
        raise PrepError(f"{where} names no class: it needs at least one.")
    checked = tuple(name for name in names if isinstance(name, str) and name.strip())
    if len(checked) != len(names):
        raise PrepError(f"{where}: every class name must be a text that is not empty.")
    if broken := next((name for name in checked if not is_unicode(name)), None):
        raise PrepError(
            f"{where}: the class name {printable(broken)!r} holds bytes that are no UTF-8: rename "
            "it."
        )
    if repeated := next((name for name, n in Counter(checked).items() if n > 1), None):
        raise PrepError(f"{where} names the class {repeated!r} twice.")
    return checked


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of a schema file, in the order of the labels.

    Raises:
        PrepError: the file is missing, is no class schema, or its names are not distinct texts.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PrepError(f"{path} is not a class schema: its format is not {FORMAT!r}.")
    if content.get("version") != VERSION:
        raise PrepError(
            f"{path} is a class schema of version {content.get('version')!r}, but this release "
            f"reads version {VERSION}: write it again."
        )
    names = content.get("classes")
    if not isinstance(names, list):
        raise PrepError(f"{path} needs the entry classes, a list of the class names in order.")
    return check_names(names, str(path))


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Write a schema file; the same names give the same bytes, and an existing file is replaced.

    Raises:
        PrepError: the names are not distinct texts.
        NotWrittenError: the file cannot be written.
    """
    content = {"format": FORMAT, "version": VERSION, "classes": check_names(names, str(path))}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    make_folder(path.parent)
    write_file(path, text)


def apply_classes(data: ImageSet, names: Sequence[str]) -> ImageSet:
    """Number the labels by the schema's order; a class may have no images here.

    Raises:
        PrepError: there are images of a class that the schema lacks.
    """
    schema = check_names(names, "The class schema")
    number = {name: label for label, name in enumerate(schema)}
    present = [data.class_names[label] for label in np.unique(data.labels)]
    if unknown := [name for name in present if name not in number]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise PrepError(
            f"{data.source} has images of the class {unknown[0]!r}{more}, which the class schema "
            f"lacks (it has {len(schema)}): add it to every client's schema or remove its images."
        )
    renumbered = np.array([number.get(name, -1) for name in data.class_names], dtype=np.int64)
    return replace(data, labels=renumbered[data.labels], class_names=schema)
