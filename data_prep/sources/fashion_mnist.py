"""Fashion-MNIST's four idx files, as published."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.images.image_set import ImageSet

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


def read_fashion_mnist(folder: Path, split: str) -> ImageSet:
    """Read Fashion-MNIST (Xiao et al. 2017, MIT license) from its idx files, gzipped or not.

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


def is_fashion_mnist(folder: Path) -> bool:
    """Return whether a folder holds idx files of images or labels."""
    return any(folder.glob("*-idx[13]-ubyte*"))
