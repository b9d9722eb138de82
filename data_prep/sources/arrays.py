"""Images in arrays: a ``.npz`` file without pickles, and Fashion-MNIST's four idx files."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.classes import check_names
from data_prep.images.image_set import ImageSet
from flower_ist.console import printable
from flower_ist.errors import why_unreadable

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_IDX_SPLITS = {"train": "train", "test": "t10k"}
_IDX_UINT8 = 0x08


class NpzSource:
    """A ``.npz`` file with ``x`` (N, H, W) or (N, H, W, C) uint8 and ``y`` (N,) whole numbers.

    Optional arrays: ``index`` (N,), the images' positions in the published order (default: 0 to
    N - 1), and ``class_names`` (C,) texts that labels index (default: the labels themselves). It
    is one set: it publishes no test split.
    """

    has_test = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, split: str) -> ImageSet:
        """Read all images.

        Raises:
            PrepError: the file is missing or damaged, or an array is missing or of another form.
        """
        path, (arrays, others) = self._path, _read_npz(self._path)
        if "x" not in arrays or "y" not in arrays:
            raise PrepError(f"{path} must hold the arrays x (images) and y (labels).")
        x, y = arrays["x"], arrays["y"]
        if y.ndim == 2 and y.shape[1] == 1:  # as Keras has them
            y = y[:, 0]
        if y.dtype.kind not in "iu" or y.ndim != 1 or not len(y) or y.min() < 0:
            raise PrepError(f"{path}: y must hold one whole number of 0 and up per image.")
        names, labels = arrays.get("class_names"), y.astype(np.int64)
        if names is None:
            # Labels of 1 to 3, or of 0, 7 and 255, are three classes, called by their numbers.
            numbers, labels = np.unique(labels, return_inverse=True)
            names = numbers.astype(str)
        index = arrays.get("index", np.arange(len(x)))
        if index.dtype.kind not in "iu" or (len(index) and index.min() < 0):
            raise PrepError(f"{path}: index must hold whole numbers of 0 and up.")
        return ImageSet(
            images=x[..., None] if x.ndim == 3 else x,
            labels=labels,
            image_ids=index.astype(np.int64),
            class_names=check_names([str(name) for name in names], str(path)),
            source=printable(path.stem),
            split=split,
            left_out=(f"The arrays {', '.join(others)} of {path} are left out.",) * bool(others),
        )


class FashionMnistSource:
    """Fashion-MNIST (Xiao et al. 2017, MIT license) from its idx files, gzipped or not.

    The folder holds ``train-images-idx3-ubyte[.gz]`` and the other three files as published at
    https://github.com/zalandoresearch/fashion-mnist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def has_test(self) -> bool:
        """Whether a test file is there; if only one is, reading says what is missing."""
        return any(self._folder.glob("t10k-*-ubyte*"))

    @staticmethod
    def is_here(folder: Path) -> bool:
        """Return whether a folder holds idx files of images or labels."""
        return any(folder.glob("*-idx[13]-ubyte*"))

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``.

        Raises:
            PrepError: a file is missing or damaged, or the split is not train or test.
        """
        if split not in _IDX_SPLITS:
            raise PrepError(f"Fashion-MNIST has the splits train and test, not {split!r}.")
        images = read_idx(self._find(f"{_IDX_SPLITS[split]}-images-idx3-ubyte"))
        labels = read_idx(self._find(f"{_IDX_SPLITS[split]}-labels-idx1-ubyte"))
        return ImageSet(
            images=images[..., None],
            labels=labels.astype(np.int64),
            image_ids=np.arange(len(images), dtype=np.int64),
            class_names=FASHION_MNIST_CLASSES,
            source="Fashion-MNIST",
            split=split,
        )

    def _find(self, name: str) -> Path:
        for path in (self._folder / name, self._folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise PrepError(
            f"{self._folder} lacks {name}[.gz]: give a folder with Fashion-MNIST's idx files."
        )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one idx file of bytes: two zeros, 0x08, the number of axes, big-endian sizes, data.

    Raises:
        PrepError: the file is missing, damaged or not of bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as err:
        raise PrepError(f"{path} cannot be read: {why_unreadable(path, err)}.") from err
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_UINT8)):
        not_bytes = ValueError("it is not an idx file of bytes")
        raise PrepError(f"{path} cannot be read: {why_unreadable(path, not_bytes)}.")
    axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:][: 4 * axes], dtype=">u4"))
    body = content[4 + 4 * axes :]
    if len(shape) != axes or len(body) != math.prod(shape):
        raise PrepError(f"{path} has {len(body)} bytes of data, which is not {list(shape)}.")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the arrays that are used, and the names of the others."""
    used = ("x", "y", "index", "class_names")
    try:
        # numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as opened:
            # numpy takes any file that is no archive for a pickle, and advises to trust it.
            if not zipfile.is_zipfile(opened):
                raise zipfile.BadZipFile("it is no zip archive, or one that was cut off")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                others = sorted(set(file.files) - set(used))
                return {name: file[name] for name in used if name in file}, others
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        raise PrepError(
            f"{path} is not a readable .npz file of plain arrays: {why_unreadable(path, err)}."
        ) from err
