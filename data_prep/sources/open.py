"""One entry for every source of images: by its form or its name the right reader is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep import PrepError
from data_prep.images.check import ON_ERROR
from data_prep.images.class_names import check_same_classes
from data_prep.images.classes import apply_classes
from data_prep.images.image_set import ImageSet
from data_prep.patches.meta import read_meta
from data_prep.patches.read import is_masked, masked_has_test, read_masked
from data_prep.sources.arrays import read_npz
from data_prep.sources.fashion_mnist import is_fashion_mnist, read_fashion_mnist, read_idx
from data_prep.sources.folder import count_published_test, published_test, read_folder
from data_prep.sources.hub import count_hub_test, hub_has_test, read_hub
from data_prep.sources.named import parse_named
from data_prep.sources.table import SUFFIXES, count_table_test, read_table, table_has_test
from data_prep.sources.torchvision import read_torchvision, torchvision_has_test
from data_prep.splits.rows import stratified_hold_out

__all__ = [
    "read_fashion_mnist",
    "read_idx",
    "read_npz",
    "read_source",
    "read_train_and_test",
    "left_out_tests",
]


@dataclass(frozen=True)
class _Reader:
    """Reads ``train`` or ``test`` of a source, and says whether it publishes both.

    Where it does, it counts the test images if that takes no download.
    """

    read: Callable[[str], ImageSet]
    has_test: Callable[[], bool]
    count_test: Callable[[], int] | None = None


def read_source(
    source: str | Path,
    split: str = "train",
    on_error: str = "stop",
    *,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
) -> ImageSet:
    """Read one split of any source; a source that publishes no test split is read whole.

    A source is one of:

    * a folder of class folders, also with ``train`` and ``test`` around them, or with one folder
      around all, as RESISC45 and AID are published;
    * a folder with Fashion-MNIST's idx files;
    * a folder that ``flower-ist mask`` wrote;
    * a ``.npz`` file of ``x`` and ``y``;
    * a ``.csv`` or ``.parquet`` file with the columns path and label;
    * ``hf:NAME[:CONFIG]``, a data set of the Hugging Face hub or saved in a local folder;
    * ``torchvision:NAME``, such as ``torchvision:CIFAR10``.

    Args:
        source: A path or a name.
        split: ``train`` or ``test``.
        on_error: What becomes of an unreadable image: ``stop``, or ``skip`` to list it in the set's
            ``skipped``. The others keep their ids.
        classes: The class schema's names. Labels are numbered by it, and classes may lack images.
        workers: Threads that check images; None for as many as there are cores, up to 8.

    Raises:
        PrepError: nothing readable is there.
    """
    data = _reader(source, on_error, classes is not None, workers).read(split)
    return data if classes is None else apply_classes(data, classes)


def read_train_and_test(
    source: str | Path,
    test: str | Path | None,
    test_share: float,
    seed: int,
    on_error: str = "stop",
    classes: Sequence[str] | None = None,
    *,
    workers: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Read both sets: a published test split, a second source, or a share held out by the seed.

    The same share of each class is held out; see :func:`read_source` for the arguments.

    Raises:
        PrepError: a source cannot be read, the two sets have different classes, or the share leaves
            a set empty.
    """
    reader = _reader(source, on_error, classes is not None, workers)
    train = reader.read("train")
    if test is not None:
        held = _reader(test, on_error, classes is not None, workers).read("test")
    elif reader.has_test():
        held = reader.read("test")
    else:
        train_rows, test_rows = stratified_hold_out(train.labels, test_share, seed)
        train, held = train.take(train_rows), replace(train.take(test_rows), split="test")
    if classes is not None:
        return apply_classes(train, classes), apply_classes(held, classes)
    places = ("the training images", "the test images")
    check_same_classes(train.class_names, held.class_names, *places)
    return train, held


def left_out_tests(source: str | Path) -> str:
    """Return a sentence on the test images of a source of which the training images alone are used.

    It is empty where the source publishes no test split that can be read; no image is decoded.
    """
    try:
        reader = _reader(source, "stop", partial=True, workers=None)
        if not reader.has_test():
            return ""
        count = "" if reader.count_test is None else f": {reader.count_test()}"
    except PrepError:  # what is left out need not be whole
        return ""
    return f"--test-share 0 leaves out the test images of {source}{count}."


def _reader(source: str | Path, on_error: str, partial: bool, workers: int | None) -> _Reader:
    if on_error not in ON_ERROR:
        raise PrepError(
            f"The choice on error {on_error!r} is unknown: use {' or '.join(ON_ERROR)}."
        )
    if named := parse_named(str(source)):
        if named.scheme == "hf":
            return _Reader(
                lambda split: read_hub(named, split, on_error, partial=partial, workers=workers),
                lambda: hub_has_test(named),
                lambda: count_hub_test(named),
            )
        return _Reader(
            lambda split: read_torchvision(named, split, on_error, workers=workers),
            lambda: torchvision_has_test(named),
        )
    path = Path(source)
    if path.is_dir() and is_masked(path):
        return _Reader(
            lambda split: read_masked(path, split),
            lambda: masked_has_test(path),
            lambda: read_meta(path / "test").num_images,
        )
    if path.is_dir() and is_fashion_mnist(path):
        return _Reader(
            lambda split: read_fashion_mnist(path, split),
            lambda: True,
            lambda: len(read_fashion_mnist(path, "test")),
        )
    if path.is_dir():
        return _Reader(
            lambda split: read_folder(path, split, on_error, partial=partial, workers=workers),
            lambda: published_test(path) is not None,
            lambda: count_published_test(path),
        )
    if path.suffix in SUFFIXES:
        return _Reader(
            lambda split: read_table(path, split, on_error, partial=partial, workers=workers),
            lambda: table_has_test(path),
            lambda: count_table_test(path),
        )
    if path.suffix == ".npz":
        return _Reader(lambda split: read_npz(path, split), lambda: False)
    raise PrepError(
        f"{source} is no source of images: give a folder, a .npz, .csv or .parquet file, hf:NAME "
        "or torchvision:NAME."
    )
