"""A folder of class folders, such as ``DIR/cat/1.jpg``, with or without a published test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep import PrepError
from data_prep.errors import first_line
from data_prep.images.check import check_images
from data_prep.images.class_names import check_same_classes
from data_prep.images.decode import ImageFiles, is_image, look_at_file
from data_prep.images.image_set import ImageSet

_TEST_FOLDERS = ("test", "val")
_LEFTOVER = "__MACOSX"
"""What one system's archives hold beside the images."""


def class_root(folder: Path) -> Path:
    """Return the folder of the class folders, where the archive or the user put one around it.

    RESISC45 comes as ``NWPU-RESISC45/airplane/...``, AID as ``AID/Airport/...``: the folder that
    holds nothing but such a folder stands for it. A lone folder that holds images is a class.

    Raises:
        PrepError: a folder cannot be listed.
    """
    inside = [path for path in _listed(folder) if path.is_dir()]
    if len(inside) != 1 or inside[0].name in ("train", *_TEST_FOLDERS):
        return folder
    entries = _listed(inside[0])
    if any(is_image(path) for path in entries if path.is_file()):
        return folder
    return class_root(inside[0]) if any(path.is_dir() for path in entries) else folder


def published_test(folder: Path) -> Path | None:
    """Return the test split's folder if ``folder`` holds ``train`` and ``test``, else ``val``."""
    root = class_root(folder)
    if not (root / "train").is_dir():
        return None
    return next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)


def count_published_test(folder: Path) -> int:
    """Return how many files are in the class folders of a test split, if one is published.

    Raises:
        PrepError: a folder cannot be listed.
    """
    tests = published_test(folder)
    classes = [] if tests is None else [path for path in _listed(tests) if path.is_dir()]
    return sum(path.is_file() for name in classes for path in _listed(name))


def read_folder(
    folder: Path,
    split: str,
    on_error: str = "stop",
    *,
    partial: bool = False,
    workers: int | None = None,
) -> ImageSet:
    """Read the images of class folders; only their paths and sizes stay in memory.

    Classes are the sorted names of the folders in ``folder`` (or in the lone folder inside it, see
    :func:`class_root`), or, where a split is published, of those in its ``train`` and in its
    ``test`` (else ``val``) folder. An image's id is its position among the sorted relative paths,
    unreadable files included, so that a bad file changes no other image's mask. Names that start
    with a dot are passed over. Every file is decoded once, here: what cannot be read is found
    before anything is encoded.

    Args:
        folder: Holds a folder for each class, or ``train`` and ``test``.
        split: ``train`` or ``test``; which one to read where both are published.
        on_error: ``stop``, or ``skip`` to list unreadable files in the set's ``skipped``.
        partial: A class schema follows: a class may lack images, or a folder in one split.
        workers: Threads that check files; None for as many as there are cores, up to 8.

    Raises:
        PrepError: there is no class, a class is empty or in one split only, a class folder holds a
            folder, or a file cannot be read under ``stop``.
    """
    root = top = class_root(folder)
    tests = published_test(top)
    if tests is not None:
        root = tests if split == "test" else top / "train"
        if not partial:
            train = top / "train"
            check_same_classes(_class_names(train), _class_names(tests), train, tests)
    names = _class_names(root)
    listed = [
        (f"{name}/{path.name}", path) for name in names for path in _files(root / name, partial)
    ]
    if not listed:
        raise PrepError(f"No class folder in {root} holds an image.")
    listed.sort()
    paths = [path for _, path in listed]
    checked = check_images(
        lambda row: look_at_file(paths[row]), len(paths), split, on_error, workers
    )
    number = {name: label for label, name in enumerate(names)}
    readable = [paths[row] for row in checked.rows]
    labels = np.array([number[path.parent.name] for path in readable], dtype=np.int64)
    if not partial and (missing := sorted(set(range(len(names))) - set(labels.tolist()))):
        raise PrepError(f"The class {names[missing[0]]!r} in {root} has no readable image.")
    return ImageSet(
        images=ImageFiles(tuple(readable), checked.facts[:, 0], checked.facts[:, 2]),
        labels=labels,
        image_ids=checked.rows,
        class_names=tuple(names),
        source=top.resolve().name,
        split=split,
        file_bytes=checked.facts[:, 1],
        skipped=checked.skipped,
    )


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in _listed(root) if path.is_dir())
    if not names:
        raise PrepError(
            f"{root} has no class folders: put each class's images into a folder of its own, or "
            "give a folder with Fashion-MNIST's idx files."
        )
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
