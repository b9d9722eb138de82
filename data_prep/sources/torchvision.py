"""torchvision's image classification data sets, downloaded into a cache folder on first use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep import PrepError
from data_prep.encoders.torchvision_guard import guard_torchvision
from data_prep.errors import first_line
from data_prep.images.check import check_images
from data_prep.images.decode import native_bytes, to_pixels
from data_prep.images.image_set import ImageSet
from data_prep.images.indexed import IndexedImages
from data_prep.sources.named import NamedSource, check_options

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
"""How torchvision is asked for each split; sets without a published test split have no ``test``."""


@dataclass(frozen=True)
class TorchvisionImages:
    """Reads one image of a torchvision data set.

    Attributes:
        dataset: Gives ``(PIL image, label)`` by number.
        name: Names the data set in errors.
    """

    dataset: Any
    name: str

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 1 or 3) of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        return to_pixels(self._item(index)[0], self._call(index))

    def check(self, index: int) -> tuple[int, int]:
        """Return the native bytes and the label of image ``index``.

        Raises:
            PrepError: the image cannot be read.
        """
        image, label = self._item(index)
        to_pixels(image, self._call(index))
        return native_bytes(image), int(label)

    def _item(self, index: int) -> tuple[Image.Image, Any]:
        try:
            image, label = self.dataset[index]
        # As PIL's readers, see image_files.
        except Exception as err:
            raise PrepError(f"{self._call(index)} cannot be read: {first_line(err)}.") from err
        return image, label

    def _call(self, index: int) -> str:
        return f"Image {index} of {self.name}"


def torchvision_has_test(source: NamedSource) -> bool:
    """Return whether the data set comes with a test split.

    Raises:
        PrepError: the data set is unknown.
    """
    return "test" in _splits(source)


def read_torchvision(
    source: NamedSource, split: str, on_error: str = "stop", *, workers: int | None = None
) -> ImageSet:
    """Read one split of ``torchvision:NAME[?root=FOLDER]``; images are decoded when needed.

    The files lie in ``root``, by default ``flower-ist/torchvision`` in the user's cache folder;
    what is missing there is downloaded. Sets without a published test split are read whole. An
    image's id is its position in its split. Class names are torchvision's; where it has none, the
    labels' numbers. Images count as having no file of their own.

    Args:
        source: Name and options.
        split: ``train`` or ``test``.
        on_error: ``stop``, or ``skip`` to list unreadable images in the set's ``skipped``.
        workers: Threads that check images; None for as many as there are cores, up to 8.

    Raises:
        PrepError: the data set is unknown or cannot be downloaded, or an image cannot be read.
    """
    dataset = _load(source, split)
    name = f"torchvision:{source.name}"
    images = TorchvisionImages(dataset, name)
    checked = check_images(images.check, len(dataset), split, on_error, workers)
    labels = checked.facts[:, 1]
    known = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    return ImageSet(
        images=IndexedImages(images, checked.rows, checked.facts[:, 0]),
        labels=labels,
        image_ids=checked.rows,
        class_names=tuple(_text(c) for c in known or range(int(labels.max()) + 1)),
        source=name,
        split=split,
        skipped=checked.skipped,
    )


def _load(source: NamedSource, split: str) -> Any:
    splits = _splits(source)
    options = splits.get(split, splits["train"])
    try:
        guard_torchvision()
        import torchvision.datasets
    except ImportError as err:
        raise PrepError(
            "torchvision's data sets need torchvision: in the checkout, pip install -e '.[prep]'."
        ) from err
    folder = Path(source.options.get("root") or _cache_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return getattr(torchvision.datasets, source.name)(str(folder), download=True, **options)
    # Downloads, archives and each set's own files fail in many ways.
    except Exception as err:
        raise PrepError(
            f"torchvision's {source.name} cannot be downloaded to {folder} or read there: "
            f"{first_line(err)}; check the network, or give a folder that holds it as "
            f"torchvision:{source.name}?root=FOLDER."
        ) from err


def _splits(source: NamedSource) -> dict[str, dict[str, Any]]:
    check_options(source, ("root",))
    if source.name not in SETS:
        raise PrepError(
            f"{source.name!r} is no torchvision data set known here: use one of "
            f"{', '.join(sorted(SETS))}."
        )
    return SETS[source.name]


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flower-ist" / "torchvision"


def _text(name: object) -> str:
    # Some sets give all the words that mean a class.
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)
