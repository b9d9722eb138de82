"""A ``.npz`` file of images and labels, read without pickles."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.errors import first_line
from data_prep.images.image_set import ImageSet


def read_npz(path: Path, split: str = "train") -> ImageSet:
    """Read ``x`` (N, H, W) or (N, H, W, C) uint8 and ``y`` (N,) from a ``.npz`` without pickles.

    Optional arrays: ``index`` (N,), the images' positions in the published order (default: 0 to
    N - 1), and ``class_names`` (C,) texts (default: the labels' numbers).

    Raises:
        PrepError: the file is missing or damaged, or an array is missing or of another form.
    """
    try:
        # numpy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as opened:
            # numpy takes whatever is no archive for a pickle, and advises to trust it.
            if not zipfile.is_zipfile(opened):
                raise zipfile.BadZipFile("it is no zip archive, or one that was cut off")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                arrays: dict[str, NDArray[Any]] = {
                    name: file[name] for name in ("x", "y", "index", "class_names") if name in file
                }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        raise PrepError(
            f"{path} is not a readable .npz file of plain arrays: {first_line(err)}."
        ) from err
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
