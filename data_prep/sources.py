"""Where images come from: a ``.npz`` file, Fashion-MNIST's idx files, or class folders."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.folder import ON_ERROR, published_test, read_folder
from data_prep.images import ImageSet
from data_prep.split import hold_out, stratified_hold_out

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


def read_source(path: Path, split: str = "train", on_error: str = "stop") -> ImageSet:
    """Read a ``.npz`` file, one split of Fashion-MNIST's idx files, or a folder of class folders.

    ``on_error`` says what becomes of unreadable image files: see :func:`read_folder`.

    Raises:
        PrepError: nothing readable is there.
    """
    if on_error not in ON_ERROR:
        raise PrepError(
            f"The choice on error {on_error!r} is unknown: use {' or '.join(ON_ERROR)}."
        )
    if path.is_dir():
        if _is_fashion_mnist(path):
            return read_fashion_mnist(path, split)
        return read_folder(path, split, on_error)
    if path.suffix == ".npz":
        return read_npz(path, split)
    raise PrepError(
        f"{path} is neither a .npz file nor a folder of class folders or of Fashion-MNIST's idx "
        "files: check it."
    )


def read_npz(path: Path, split: str = "train") -> ImageSet:
    """Read ``x`` (N, H, W) or (N, H, W, C) uint8 and ``y`` (N,) from a ``.npz`` without pickles.

    Optional arrays: ``index`` (N,), the images' positions in the published order (default: 0 to
    N - 1), and ``class_names`` (C,) texts (default: the labels' numbers).

    Raises:
        PrepError: the file is missing or damaged, or an array is missing or of another form.
    """
    try:
        # numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {
                name: file[name] for name in ("x", "y", "index", "class_names") if name in file
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        raise PrepError(f"{path} is not a readable .npz file of plain arrays: {err}.") from err
    if "x" not in arrays or "y" not in arrays:
        raise PrepError(f"{path} must hold the arrays x (images) and y (labels).")
    x, y = arrays["x"], arrays["y"]
    if y.dtype.kind not in "iu" or y.ndim != 1 or not len(y) or y.min() < 0:
        raise PrepError(f"{path}: y must hold one whole number of 0 and up per image.")
    names = arrays.get("class_names", np.arange(int(y.max()) + 1).astype(str))
    index = arrays.get("index", np.arange(len(x)))
    if index.dtype.kind not in "iu" or (len(index) and index.min() < 0):
        raise PrepError(f"{path}: index must hold whole numbers of 0 and up.")
    return ImageSet(
        images=x[..., None] if x.ndim == 3 else x,
        labels=y.astype(np.int64),
        image_ids=index.astype(np.int64),
        class_names=tuple(str(name) for name in names),
        source=path.stem,
        split=split,
    )


def read_fashion_mnist(folder: Path, split: str) -> ImageSet:
    """Read Fashion-MNIST (Xiao et al. 2017, MIT licence) from its idx files, gzipped or not.

    The folder holds ``train-images-idx3-ubyte[.gz]`` and the other three files as published at
    https://github.com/zalandoresearch/fashion-mnist.

    Raises:
        PrepError: a file is missing or damaged, or the split is not train or test.
    """
    if split not in _IDX_SPLITS:
        raise PrepError(f"Fashion-MNIST has the splits train and test, not {split!r}.")
    prefix = _IDX_SPLITS[split]
    images = read_idx(_find_idx(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find_idx(folder, f"{prefix}-labels-idx1-ubyte"))
    return ImageSet(
        images=images[..., None],
        labels=labels.astype(np.int64),
        image_ids=np.arange(len(images), dtype=np.int64),
        class_names=FASHION_MNIST_CLASSES,
        source="Fashion-MNIST",
        split=split,
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one idx file of bytes: two zeros, 0x08, the number of axes, big-endian sizes, data.

    Raises:
        PrepError: the file is missing, damaged or not of bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as err:
        raise PrepError(f"{path} cannot be read: {err}.") from err
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_UINT8)):
        raise PrepError(f"{path} is not an idx file of bytes.")
    axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:][: 4 * axes], dtype=">u4"))
    body = content[4 + 4 * axes :]
    if len(shape) != axes or len(body) != math.prod(shape):
        raise PrepError(f"{path} has {len(body)} bytes of data, which is not {list(shape)}.")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _find_idx(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise PrepError(f"{folder} lacks {name}[.gz]: give a folder with Fashion-MNIST's idx files.")


def _is_fashion_mnist(folder: Path) -> bool:
    return any(folder.glob("*-idx[13]-ubyte*"))


def read_train_and_test(
    path: Path, test: Path | None, test_share: float, seed: int, on_error: str = "stop"
) -> tuple[ImageSet, ImageSet]:
    """Read both sets: a published test split, a second source, or a share held out by the seed.

    Of class folders the same share of each class is held out.

    Raises:
        PrepError: a source cannot be read, or the share leaves a set empty.
    """
    train = read_source(path, "train", on_error)
    if test is None and path.is_dir() and (_is_fashion_mnist(path) or published_test(path)):
        test = path
    if test is not None:
        return train, read_source(test, "test", on_error)
    if path.is_dir():
        train_rows, test_rows = stratified_hold_out(train.labels, test_share, seed)
    else:
        train_rows, test_rows = hold_out(len(train), test_share, seed)
    return train.take(train_rows), replace(train.take(test_rows), split="test")
