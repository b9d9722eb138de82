"""Data sets of the Hugging Face hub, or saved on this disk, through the library ``datasets``.

Images are decoded by our own reader, so that palettes, transparency and 16-bit gray become what
they become in a folder of files. Code that comes with a data set is never run: ``datasets`` 4,
which this needs, cannot.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.errors import first_line
from data_prep.images.check import check_images
from data_prep.images.class_names import check_same_classes, in_order
from data_prep.images.decode import check_image, decode_image
from data_prep.images.image_set import ImageSet
from data_prep.images.indexed import IndexedImages
from data_prep.sources.named import NamedSource, check_options
from data_prep.sources.table import TEST_NAMES

OPTIONS = ("image", "label", "client", "train", "test")
"""The columns and the splits to use where their names do not say it."""


@dataclass(frozen=True)
class HubImages:
    """Reads one image of a data set; nothing but the place of its data is in memory.

    Attributes:
        dataset: A ``datasets.Dataset`` whose image column is not decoded.
        column: The image column.
        name: Names the data set in errors.
    """

    dataset: Any
    column: str
    name: str

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        file, _, name = self._file(index)
        return decode_image(file, name)

    def check(self, index: int) -> tuple[int, int]:
        """Return the native bytes and the bytes as a file of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        file, size, name = self._file(index)
        return check_image(file, name), size

    def _file(self, index: int) -> tuple[Path | BinaryIO, int, str]:
        name = f"Image {index} of {self.name}"
        entry = self.dataset[index][self.column]
        if entry is None or (entry["bytes"] is None and entry["path"] is None):
            raise PrepError(f"{name} is missing.")
        if entry["bytes"] is not None:
            return io.BytesIO(entry["bytes"]), len(entry["bytes"]), name
        path = Path(entry["path"])
        if not path.is_file():
            raise PrepError(f"{name} is missing: there is no file {path}.")
        return path, path.stat().st_size, f"{name}, {path},"


def hub_has_test(source: NamedSource) -> bool:
    """Return whether the data set has a training and a test split.

    Raises:
        PrepError: the data set cannot be loaded.
    """
    splits = _load(source)
    return all(_split_name(source, splits, split) for split in ("train", "test"))


def count_hub_test(source: NamedSource) -> int:
    """Return how many images are in the test split of a data set that has one.

    Raises:
        PrepError: the data set cannot be loaded.
    """
    splits = _load(source)
    name = _split_name(source, splits, "test")
    return 0 if name is None else len(splits[name])


def read_hub(
    source: NamedSource,
    split: str,
    on_error: str = "stop",
    *,
    partial: bool = False,
    workers: int | None = None,
) -> ImageSet:
    """Read one split of ``hf:NAME[:CONFIG]``, where NAME is of the hub or a local folder.

    The image column is the only one of images; the label column is the only ``ClassLabel``, or
    ``label``; the clients' column is ``client``. Options name them otherwise:
    ``hf:flwrlabs/femnist?label=character&client=writer_id``. A ``ClassLabel`` brings its class
    names; other labels' distinct values become the names, in the order of :func:`in_order`. The
    training split is ``train``; the test split is ``test``, else the validation split. Where only
    one split is there it is read, whatever is asked for. An image's id is its row in its split.

    Args:
        source: Name, configuration and options.
        split: ``train`` or ``test``; which one to read where both are there.
        on_error: ``stop``, or ``skip`` to list unreadable images in the set's ``skipped``.
        partial: A class schema follows: a class may lack images in a split.
        workers: Threads that check images; None for as many as there are cores, up to 8.

    Raises:
        PrepError: the data set cannot be loaded, a column is missing or in doubt, an image has no
            label, or an image cannot be read under ``stop``.
    """
    splits = _load(source)
    # A local folder's whole path says more about the machine than about the images.
    local = Path(source.name)
    name = f"hf:{local.resolve().name if local.exists() else source.name}"
    used = {s: _split_name(source, splits, s) for s in ("train", "test")}
    chosen = used[split] or used["train"] or used["test"] or next(iter(splits))
    dataset = splits[chosen]
    image, label, client = _columns(source, dataset, name)
    labeled = {s: splits[s] for s in (used["train"], used["test"], chosen) if s is not None}
    labels, class_names = _labels(labeled, label, chosen, name, partial)
    import datasets

    stored = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    images = HubImages(stored, image, name)
    checked = check_images(images.check, len(dataset), split, on_error, workers)
    owners = _values(dataset, client) if client else None
    return ImageSet(
        images=IndexedImages(images, checked.rows, checked.facts[:, 0]),
        labels=labels[checked.rows],
        image_ids=checked.rows,
        class_names=class_names,
        source=name,
        split=split,
        file_bytes=checked.facts[:, 1],
        skipped=checked.skipped,
        owners=None if owners is None else np.array([str(v) for v in owners])[checked.rows],
    )


def _load(source: NamedSource) -> Mapping[str, Any]:
    check_options(source, OPTIONS)
    try:
        import datasets
    except ImportError as err:
        raise PrepError(
            "Data sets of the Hugging Face hub need datasets: in the checkout, pip install -e "
            "'.[prep]'."
        ) from err
    name, config = source.name, None
    if ":" in name and not Path(name).exists():
        name, _, config = name.rpartition(":")
    saved = ("dataset_dict.json", "state.json")
    try:
        if any((Path(name) / file).is_file() for file in saved):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config)
    # The hub, the network and each file format have errors of their own.
    except Exception as err:
        raise PrepError(
            f"The data set {source.name!r} cannot be loaded: {first_line(err)}; check the name and "
            "the network."
        ) from err
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _split_name(source: NamedSource, splits: Mapping[str, Any], split: str) -> str | None:
    asked = source.options.get(split)
    if asked and asked not in splits:
        raise PrepError(
            f"The data set {source.name!r} has no split {asked!r}: it has {', '.join(splits)}."
        )
    known = ("train",) if split == "train" else TEST_NAMES
    return asked or next((name for name in known if name in splits), None)


def _columns(source: NamedSource, dataset: Any, name: str) -> tuple[str, str, str | None]:
    import datasets

    features = dataset.features
    for option in ("image", "label", "client"):
        if source.options.get(option, next(iter(features))) not in features:
            raise PrepError(
                f"{name} has no column {source.options[option]!r}: it has {', '.join(features)}."
            )
    images = [c for c, feature in features.items() if isinstance(feature, datasets.Image)]
    image = source.options.get("image") or _only(images, "image", name, features)
    if image not in images:
        raise PrepError(f"The column {image!r} of {name} holds no images.")
    labels = [c for c, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not labels and "label" in features:
        labels = ["label"]
    label = source.options.get("label") or _only(labels, "label", name, features)
    client = source.options.get("client") or ("client" if "client" in features else None)
    return image, label, client


def _only(found: list[str], what: str, name: str, features: Mapping[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    several = f"several {what} columns, {', '.join(found)}" if found else f"no {what} column"
    raise PrepError(
        f"{name} has {several}: choose one of {', '.join(features)} with ?{what}=COLUMN."
    )


def _labels(
    splits: Mapping[str, Any], label: str, chosen: str, name: str, partial: bool
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels (N,) of the split ``chosen`` and the class names of all splits."""
    import datasets

    feature = splits[chosen].features[label]
    if isinstance(feature, datasets.ClassLabel):
        numbers = _values(splits[chosen], label)
        # The hub's sign of a label that is kept secret is -1.
        _refuse_unlabeled([None if n == -1 else n for n in numbers], chosen, name)
        return np.array(numbers, dtype=np.int64), tuple(feature.names)
    texts = {}
    for split, dataset in splits.items():
        values = _values(dataset, label)
        _refuse_unlabeled(values, split, name)
        if not all(isinstance(value, str | int) for value in values):
            raise PrepError(f"The column {label!r} of {name} holds no texts or whole numbers.")
        texts[split] = [str(value) for value in values]
    if len(texts) == 2 and not partial:
        (one, first), (two, second) = texts.items()
        places = (f"the split {one} of {name}", f"the split {two}")
        check_same_classes(set(first), set(second), *places)
    names = in_order(text for column in texts.values() for text in column)
    number = {text: row for row, text in enumerate(names)}
    return np.array([number[text] for text in texts[chosen]], dtype=np.int64), names


def _refuse_unlabeled(values: list[Any], split: str, name: str) -> None:
    empty = next((row for row, value in enumerate(values) if value is None or value == ""), None)
    if empty is not None:
        raise PrepError(f"Image {empty} of {name} has no label in its split {split}.")


def _values(dataset: Any, column: str) -> list[Any]:
    # Only this column is read, and no image is decoded.
    table = dataset.select_columns([column]).with_format("arrow")[:]
    values: list[Any] = table[column].to_pylist()
    return values
