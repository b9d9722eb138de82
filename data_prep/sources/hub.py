"""Data sets of the Hugging Face hub, or saved on this disk, through the library ``datasets``.

Images are decoded by our own reader, so that palettes, transparency and 16-bit gray become what
they become in a folder of files. Code that comes with a data set is never run: ``datasets`` 4,
which this needs, cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.errors import cause_of
from data_prep.images.check import ReadOptions, check_images
from data_prep.images.classes import check_names, check_same_classes, in_order
from data_prep.images.image_set import ImageSet
from data_prep.images.stored import StoredImages
from data_prep.sources.column import ColumnImages, holds_images, holds_texts, undecoded
from data_prep.sources.table import TEST_NAMES
from flower_ist.console import printable


class HubSource:
    """One data set ``NAME[:CONFIG]``, where NAME is of the hub or a local folder.

    The image column is the only one of images; the label column is the only ``ClassLabel``, or
    ``label``; the clients' column is ``client``. Options name them otherwise:
    ``hf:flwrlabs/femnist?label=character&client=writer_id``. A ``ClassLabel`` brings its class
    names; other labels' distinct values become the names, in the order of :func:`in_order`. The
    training split is ``train``; the test split is ``test``, else the validation split. An image's
    id is its row in its split.

    Args:
        name: Name and configuration.
        options: Columns and splits by the names in ``OPTIONS``.
        read_options: How images are checked.

    Raises:
        PrepError: the data set cannot be loaded.
    """

    OPTIONS = ("image", "label", "client", "train", "test")

    def __init__(self, name: str, options: Mapping[str, str], read_options: ReadOptions) -> None:
        self._options, self._read_options = options, read_options
        self._splits = _load(name)
        # A local folder's whole path says more about the machine than about the images.
        local = Path(name)
        self._name = f"hf:{printable(local.resolve().name) if local.exists() else name}"
        self._folder = local if local.is_dir() else Path()
        self._train, self._test = (self._split_name(s, name) for s in ("train", "test"))

    @property
    def has_test(self) -> bool:
        """Whether there are a training and a test split."""
        return self._train is not None and self._test is not None

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; where there is only one split, that one is read.

        Raises:
            PrepError: a column is missing or ambiguous, an image has no label, or an image cannot
                be read under ``stop``.
        """
        asked = self._test if split == "test" else self._train
        chosen = asked or self._train or self._test or next(iter(self._splits))
        dataset = self._splits[chosen]
        image, label, client = self._columns(dataset)
        labels, class_names = self._labels(label, chosen)
        check_names(class_names, self._name)
        stored, options = undecoded(dataset, image), self._read_options
        images = ColumnImages(stored, image, self._name, self._folder, options.reading)
        checked = check_images(images.check, len(dataset), split, options, images.call)
        owners = _values(dataset, client) if client else None
        return ImageSet(
            images=StoredImages(images, checked.rows, checked.facts[:, 0]),
            labels=labels[checked.rows],
            image_ids=checked.rows,
            class_names=class_names,
            source=self._name,
            split=split,
            file_bytes=checked.facts[:, 3],
            skipped=checked.skipped,
            unusual=checked.unusual,
            left_out=self._left_out(chosen),
            owners=None if owners is None else np.array([str(v) for v in owners])[checked.rows],
        )

    def _left_out(self, chosen: str) -> tuple[str, ...]:
        read = {self._train, self._test, chosen}
        return tuple(
            f"The split {name} of {self._name} is left out with its {len(self._splits[name])} "
            "images: choose splits with ?train=SPLIT&test=SPLIT."
            for name in self._splits
            if name not in read
        )

    def _split_name(self, split: str, name: str) -> str | None:
        asked = self._options.get(split)
        if asked and asked not in self._splits:
            raise PrepError(
                f"The data set {name!r} has no split {asked!r}: it has {', '.join(self._splits)}."
            )
        known = ("train",) if split == "train" else TEST_NAMES
        return asked or next((found for found in known if found in self._splits), None)

    def _columns(self, dataset: Any) -> tuple[str, str, str | None]:
        """Return the columns of images, labels and, if there is one, clients."""
        import datasets

        features, options, name = dataset.features, self._options, self._name
        for option in ("image", "label", "client"):
            if options.get(option, next(iter(features))) not in features:
                raise PrepError(
                    f"{name} has no column {options[option]!r}: it has {', '.join(features)}."
                )
        images = [c for c, feature in features.items() if holds_images(feature)]
        texts = [c for c, feature in features.items() if holds_texts(feature)]
        image = options.get("image") or _only(images, images or texts, "image", name)
        if image not in images + texts:
            raise PrepError(f"The column {image!r} of {name} holds neither images nor their paths.")
        labels = [c for c, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        if not labels and "label" in features:
            labels = ["label"]
        usable = labels or [c for c in features if c not in images]
        label = options.get("label") or _only(labels, usable, "label", name)
        client = options.get("client") or ("client" if "client" in features else None)
        return image, label, client

    def _labels(self, label: str, chosen: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the labels (N,) of the split ``chosen`` and the class names of all splits."""
        import datasets

        name, feature = self._name, self._splits[chosen].features[label]
        if isinstance(feature, datasets.ClassLabel):
            numbers = _values(self._splits[chosen], label)
            # The hub's sign of a label that is kept secret is -1.
            _refuse_unlabeled([None if n == -1 else n for n in numbers], chosen, name)
            return np.array(numbers, dtype=np.int64), tuple(feature.names)
        texts = {}
        for split in dict.fromkeys(s for s in (self._train, self._test, chosen) if s is not None):
            values = _values(self._splits[split], label)
            _refuse_unlabeled(values, split, name)
            if not all(isinstance(value, str | int) for value in values):
                raise PrepError(f"The column {label!r} of {name} holds no texts or whole numbers.")
            texts[split] = [str(value) for value in values]
        if len(texts) == 2 and not self._read_options.partial:
            (one, first), (two, second) = texts.items()
            places = (f"the split {one} of {name}", f"the split {two}")
            check_same_classes(set(first), set(second), *places)
        names = in_order(text for column in texts.values() for text in column)
        number = {text: row for row, text in enumerate(names)}
        return np.array([number[text] for text in texts[chosen]], dtype=np.int64), names


def _load(name: str) -> Mapping[str, Any]:
    import datasets

    place, config = name, None
    if ":" in name and not Path(name).exists():
        place, _, config = name.rpartition(":")
    saved = ("dataset_dict.json", "state.json")
    try:
        if any((Path(place) / file).is_file() for file in saved):
            loaded = datasets.load_from_disk(place)
        else:
            loaded = datasets.load_dataset(place, config)
    # The hub, the network and each file format have errors of their own.
    except Exception as err:
        raise PrepError(f"The data set {name!r} cannot be loaded: {cause_of(err)}.") from err
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def _only(found: list[str], usable: list[str], what: str, name: str) -> str:
    """Return the only column found; else say which of the usable ones to choose from."""
    if len(found) == 1:
        return found[0]
    several = f"several {what} columns" if found else f"no {what} column"
    remedy = f"choose one of {', '.join(usable)} with ?{what}=COLUMN" if usable else "it needs one"
    raise PrepError(f"{name} has {several}: {remedy}.")


def _refuse_unlabeled(values: list[Any], split: str, name: str) -> None:
    empty = next((row for row, value in enumerate(values) if value is None or value == ""), None)
    if empty is not None:
        raise PrepError(f"Image {empty} of {name} has no label in its split {split}.")


def _values(dataset: Any, column: str) -> list[Any]:
    # Only this column is read, and no image is decoded.
    table = dataset.select_columns([column]).with_format("arrow")[:]
    values: list[Any] = table[column].to_pylist()
    return values
