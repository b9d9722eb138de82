"""torchvision's image classification data sets, downloaded into a cache folder on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.torchvision_guard import guard_torchvision
from data_prep.errors import cause_of
from data_prep.images.check import ReadOptions, check_images
from data_prep.images.convert import facts_of, to_pixels
from data_prep.images.image_set import ImageSet
from data_prep.images.reading import USUAL_READING, Reading
from data_prep.images.stored import StoredImages
from flower_ist.errors import first_line
from flower_ist.files import make_folder

_BY_FLAG = {"train": {"train": True}, "test": {"train": False}}
_BY_NAME = {"train": {"split": "train"}, "test": {"split": "test"}}
_BY_TRAINVAL = {"train": {"split": "trainval"}, "test": {"split": "test"}}
_BY_VAL = {"train": {"split": "train"}, "test": {"split": "val"}}
_WHOLE: dict[str, dict[str, Any]] = {"train": {}}

SETS: dict[str, dict[str, dict[str, Any]]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), _BY_FLAG),
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB"), _BY_NAME),
    **dict.fromkeys(("PCAM", "RenderedSST2", "STL10", "SVHN"), _BY_NAME),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), _BY_TRAINVAL),
    "Imagenette": _BY_VAL,
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), _WHOLE),
}
"""torchvision's arguments for each split; sets without a published test split have no ``test``."""


@dataclass(frozen=True)
class TorchvisionImages:
    """Reads one image of a torchvision data set.

    Attributes:
        dataset: Gives ``(PIL image, label)`` by number.
        name: Names the data set in errors.
        reading: What becomes of unusual images.
    """

    dataset: Any
    name: str
    reading: Reading = USUAL_READING

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        return to_pixels(self._item(index)[0], self.call(index), self.reading)

    def fingerprint(self, indices: NDArray[np.int64]) -> bytes:
        """Return nothing: the images' ids and bytes are all that is known of them."""
        return b""

    def check(self, index: int) -> tuple[int, ...]:
        """Return the facts and the label of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        image, label = self._item(index)
        return *facts_of(image, self.call(index), self.reading), int(label)

    def _item(self, index: int) -> tuple[Image.Image, Any]:
        try:
            image, label = self.dataset[index]
        # PIL's readers raise many kinds, see images/decode.py.
        except Exception as err:
            raise PrepError(f"{self.call(index)} cannot be read: {first_line(err)}.") from err
        return image, label

    def call(self, index: int) -> str:
        """Return what image ``index`` is called."""
        return f"Image {index} of {self.name}"


class TorchvisionSource:
    """One of torchvision's data sets in ``SETS``; images are decoded when needed.

    The files lie in the folder of the option ``root``, by default ``flower-ist/torchvision`` in the
    user's cache folder; what is missing there is downloaded when a split is read. An image's id is
    its position in its split. Class names are torchvision's; where it has none, the labels'
    numbers. Images count as having no file of their own.

    Raises:
        PrepError: the data set is unknown.
    """

    OPTIONS = ("root",)

    def __init__(self, name: str, options: Mapping[str, str], read_options: ReadOptions) -> None:
        if name not in SETS:
            raise PrepError(
                f"{name!r} is no torchvision data set known here: use one of "
                f"{', '.join(sorted(SETS))}."
            )
        self._name, self._options, self._read_options = name, options, read_options

    @property
    def has_test(self) -> bool:
        """Whether the data set comes with a test split."""
        return "test" in SETS[self._name]

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; a set without a published test split is read whole.

        Raises:
            PrepError: the data set cannot be downloaded, or an image cannot be read.
        """
        dataset = self._load(split)
        name = f"torchvision:{self._name}"
        options = self._read_options
        images = TorchvisionImages(dataset, name, options.reading)
        checked = check_images(images.check, len(dataset), split, options, images.call)
        labels = checked.facts[:, 3]
        known = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
        return ImageSet(
            images=StoredImages(images, checked.rows, checked.facts[:, 0]),
            labels=labels,
            image_ids=checked.rows,
            class_names=tuple(_text(c) for c in known or range(int(labels.max()) + 1)),
            source=name,
            split=split,
            skipped=checked.skipped,
            unusual=checked.unusual,
        )

    def _load(self, split: str) -> Any:
        guard_torchvision()
        import torchvision.datasets

        name, splits = self._name, SETS[self._name]
        folder = Path(self._options.get("root") or _cache_folder())
        try:
            make_folder(folder)
            build = getattr(torchvision.datasets, name)
            return build(str(folder), download=True, **splits.get(split, splits["train"]))
        # Downloads, archives and each set's own files fail in many ways.
        except Exception as err:
            raise PrepError(
                f"torchvision's {name} cannot be downloaded to {folder} or read there: "
                f"{cause_of(err)}; or give a folder that holds it as "
                f"torchvision:{name}?root=FOLDER."
            ) from err


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flower-ist" / "torchvision"


def _text(name: object) -> str:
    # Some sets give all the words that mean a class.
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)
