"""A folder of class folders, such as ``DIR/cat/1.jpg``, with or without a published test split."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.images.check import ReadOptions, check_files
from data_prep.images.classes import check_names, check_same_classes
from data_prep.images.decode import is_image
from data_prep.images.image_set import ImageSet
from data_prep.sources.table import TEST_NAMES
from flower_ist.console import printable
from flower_ist.errors import first_line

_LEFTOVER = "__MACOSX"
"""What one system's archives hold beside the images."""


class FolderSource:
    """The images of class folders; only their paths and sizes stay in memory.

    Classes are the sorted names of the folders in ``folder`` (or in the lone folder inside it, see
    :func:`class_root`), or, where a split is published, of those in its ``train`` folder and in the
    first of its ``TEST_NAMES``. An image's id is its position among the sorted relative paths,
    unreadable files included, so that a bad file changes no other image's mask. Names that start
    with a dot are ignored. Every file is decoded once when a split is read: what is damaged is
    found before anything is encoded.

    Raises:
        PrepError: a folder cannot be listed.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        self._root = class_root(folder)
        self._options = options
        published = (self._root / "train").is_dir()
        tests = [self._root / name for name in TEST_NAMES if (self._root / name).is_dir()]
        self._test = tests[0] if published and tests else None
        self._train = self._root if self._test is None else self._root / "train"

    @property
    def has_test(self) -> bool:
        """Whether there are a ``train`` folder and one for testing."""
        return self._test is not None

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; a folder without a published split is read whole.

        Raises:
            PrepError: there is no class, a class is empty or in one split only, a class folder
                holds a folder, or a file cannot be read under ``stop``.
        """
        root, partial = self._train, self._options.partial
        if self._test is not None:
            root = self._test if split == "test" else self._train
            if not partial:
                sides = _class_names(self._train), _class_names(self._test)
                check_same_classes(*sides, self._train, self._test)
        names = _class_names(root)
        # Names are compared as texts: paths are ordered part by part.
        listed = sorted(
            (f"{name}/{path.name}", path) for name in names for path in _files(root / name, partial)
        )
        if not listed:
            raise PrepError(f"No class folder in {root} holds an image.")
        paths = [path for _, path in listed]
        files, file_bytes, checked = check_files(paths, split, self._options)
        number = {name: label for label, name in enumerate(names)}
        labels = np.array([number[paths[row].parent.name] for row in checked.rows], dtype=np.int64)
        if not partial and (missing := sorted(set(range(len(names))) - set(labels.tolist()))):
            raise PrepError(f"The class {names[missing[0]]!r} in {root} has no readable image.")
        return ImageSet(
            images=files,
            labels=labels,
            image_ids=checked.rows,
            class_names=tuple(names),
            source=printable(self._root.resolve().name),
            split=split,
            file_bytes=file_bytes,
            skipped=checked.skipped,
            unusual=checked.unusual,
            left_out=self._left_out(),
        )

    def _left_out(self) -> tuple[str, ...]:
        """Say which entries beside the class folders, or beside both splits, are not read."""
        sentences, read = [], [self._train] if self._test is None else [self._train, self._test]
        for folder in sorted(_listed(self._root)) if self._test is not None else []:
            if folder.is_dir() and folder not in read:
                count = sum(len(files) for _, _, files in os.walk(folder))
                sentences.append(
                    f"{folder} is left out with its {count} files: only {read[0].name} and "
                    f"{read[1].name} are read."
                )
        for place in dict.fromkeys((self._root, *read)):
            if beside := sorted(path for path in _listed(place) if path.is_file()):
                s = "s are" if len(beside) > 1 else " is"
                sentences.append(
                    f"{len(beside)} file{s} left out beside the folders in {place}, such as "
                    f"{beside[0].name}."
                )
        return tuple(sentences)


def class_root(folder: Path) -> Path:
    """Return the folder of the class folders, where the archive or the user put one around it.

    RESISC45 comes as ``NWPU-RESISC45/airplane/...``, AID as ``AID/Airport/...``: the folder that
    holds nothing but such a folder stands for it. A lone folder that holds images is a class.

    Raises:
        PrepError: a folder cannot be listed.
    """
    inside = [path for path in _listed(folder) if path.is_dir()]
    if len(inside) != 1 or inside[0].name in ("train", *TEST_NAMES):
        return folder
    entries = _listed(inside[0])
    if any(is_image(path) for path in entries if path.is_file()):
        return folder
    return class_root(inside[0]) if any(path.is_dir() for path in entries) else folder


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in _listed(root) if path.is_dir())
    if not names:
        raise PrepError(
            f"{root} has no class folders: put each class's images into a folder of its own, or "
            "give a folder with Fashion-MNIST's idx files."
        )
    check_names(names, str(root))
    return names


def _files(folder: Path, may_be_empty: bool) -> list[Path]:
    files = _listed(folder)
    for path in files:
        if path.is_dir():
            raise PrepError(
                f"The class folder {folder} holds the folder {path.name}: put its images into the "
                "class folder itself; a published split needs both a train and a test folder."
            )
    if not files and not may_be_empty:
        raise PrepError(f"The class folder {folder} is empty: add images or remove it.")
    return files


def _listed(folder: Path) -> list[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as err:
        raise PrepError(f"{folder} cannot be listed: {first_line(err)}.") from err
    return [path for path in entries if not path.name.startswith(".") and path.name != _LEFTOVER]
