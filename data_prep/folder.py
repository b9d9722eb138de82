"""A folder of class folders, such as ``DIR/cat/1.jpg``, with or without a published test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import track

from data_prep import PrepError
from data_prep.image_files import ImageFiles, read_image
from data_prep.images import ImageSet

ON_ERROR = ("stop", "skip")
"""What to do about a file that cannot be read as an image."""
_TEST_FOLDERS = ("test", "val")


def published_test(folder: Path) -> Path | None:
    """Return the test split's folder if ``folder`` holds ``train`` and ``test``, else ``val``."""
    if not (folder / "train").is_dir():
        return None
    return next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)


def read_folder(folder: Path, split: str, on_error: str = "stop") -> ImageSet:
    """Read the images of class folders; only their paths and sizes stay in memory.

    Classes are the sorted names of the folders in ``folder``, or, where a split is published, of
    those in its ``train`` and in its ``test`` (else ``val``) folder. An image's id is its position
    among the sorted relative paths, unreadable files included, so that a bad file changes no other
    image's mask. Names that start with a dot are passed over. Every file is decoded once, here:
    what cannot be read is found before anything is encoded.

    Args:
        folder: Holds a folder for each class, or ``train`` and ``test``.
        split: ``train`` or ``test``; which one to read where both are published.
        on_error: ``stop``, or ``skip`` to list unreadable files in the set's ``skipped``.

    Raises:
        PrepError: there is no class, a class is empty or in one split only, a class folder holds a
            folder, or a file cannot be read under ``stop``.
    """
    root, tests = folder, published_test(folder)
    if tests is not None:
        _check_same_classes(folder / "train", tests)
        root = tests if split == "test" else folder / "train"
    names = _class_names(root)
    listed = [(f"{name}/{path.name}", path) for name in names for path in _files(root / name)]
    listed.sort()
    ids, paths, native, sizes, skipped = [], [], [], [], []
    for image_id, (_, path) in enumerate(track(listed, f"Checking {split} images")):
        try:
            file = read_image(path)
        except PrepError as err:
            if on_error == "stop":
                sentence = str(err).rstrip(".")
                raise PrepError(f"{sentence}; remove it or use --on-error skip.") from err
            skipped.append(str(err))
            continue
        ids.append(image_id)
        paths.append(path)
        native.append(file.native_bytes)
        sizes.append(file.file_bytes)
    number = {name: label for label, name in enumerate(names)}
    labels = [number[path.parent.name] for path in paths]
    if missing := sorted(set(range(len(names))) - set(labels)):
        raise PrepError(f"The class {names[missing[0]]!r} in {root} has no readable image.")
    return ImageSet(
        images=ImageFiles(tuple(paths), np.array(native, dtype=np.int64)),
        labels=np.array(labels, dtype=np.int64),
        image_ids=np.array(ids, dtype=np.int64),
        class_names=tuple(names),
        source=folder.resolve().name,
        split=split,
        file_bytes=np.array(sizes, dtype=np.int64),
        skipped=tuple(skipped),
    )


def _class_names(root: Path) -> list[str]:
    names = sorted(path.name for path in _listed(root) if path.is_dir())
    if not names:
        raise PrepError(
            f"{root} has no class folders: put each class's images into a folder of its own, or "
            "give a folder with Fashion-MNIST's idx files."
        )
    return names


def _files(folder: Path) -> list[Path]:
    files = _listed(folder)
    for path in files:
        if path.is_dir():
            raise PrepError(
                f"The class folder {folder} holds the folder {path.name}: put its images into the "
                "class folder itself; a published split needs both a train and a test folder."
            )
    if not files:
        raise PrepError(f"The class folder {folder} is empty: add images or remove it.")
    return files


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as err:
        raise PrepError(f"{folder} cannot be listed: {err.strerror}.") from err


def _check_same_classes(train: Path, test: Path) -> None:
    classes = {folder: set(_class_names(folder)) for folder in (train, test)}
    for one, other in ((train, test), (test, train)):
        if missing := sorted(classes[one] - classes[other]):
            raise PrepError(
                f"The class {missing[0]!r} is in {one} but not in {other}: add its images there or "
                "remove it."
            )
