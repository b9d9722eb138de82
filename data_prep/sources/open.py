"""Open any source of images: its form or its name decides which reader it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

from data_prep import PrepError
from data_prep.images.check import ReadOptions
from data_prep.images.classes import apply_classes, check_same_classes
from data_prep.images.image_set import ImageSet
from data_prep.images.reading import USUAL_READING, Reading
from data_prep.patches.read import MaskedSource, is_masked
from data_prep.sources.arrays import FashionMnistSource, NpzSource
from data_prep.sources.folder import FolderSource
from data_prep.sources.hub import HubSource
from data_prep.sources.table import SUFFIXES, TableSource
from data_prep.sources.table_files import parquet_files
from data_prep.sources.torchvision import TorchvisionSource
from data_prep.splits.rows import stratified_hold_out

_NAMED: dict[str, type[HubSource] | type[TorchvisionSource]] = {
    "hf": HubSource,
    "torchvision": TorchvisionSource,
}
"""Data sets given by name: ``SCHEME:NAME[?option=value&...]``."""


class Source(Protocol):
    """Images that were found but not read."""

    @property
    def has_test(self) -> bool:
        """Whether a training and a test split are published."""

    def read(self, split: str) -> ImageSet:
        """Read ``train`` or ``test``; a source without a published test split is read whole.

        Raises:
            PrepError: nothing readable is there.
        """


def open_source(source: str | Path, options: ReadOptions) -> Source:
    """Find out of what kind a source is; its images are read later.

    A source is one of:

    * a folder of class folders, also with ``train`` and ``test`` around them, or with one folder
      around all, as RESISC45 and AID are published;
    * a folder with Fashion-MNIST's idx files;
    * a folder that ``flower-ist mask`` wrote;
    * a ``.npz`` file of ``x`` and ``y``;
    * a ``.csv`` or ``.parquet`` file, or a folder of the latter, with the columns path and label,
      or image bytes and label;
    * ``hf:NAME[:CONFIG]``, a data set of the Hugging Face hub or saved in a local folder;
    * ``torchvision:NAME``, such as ``torchvision:CIFAR10``.

    Raises:
        PrepError: it is none of these, or cannot be opened.
    """
    scheme, colon, rest = str(source).partition(":")
    if colon and scheme in _NAMED:
        return _open_named(scheme, rest, options)
    path = Path(source)
    place, mark, query = str(source).partition("?")
    if mark and not path.exists():
        path, columns = Path(place), _parsed(query, str(source), TableSource.OPTIONS)
        if path.suffix in SUFFIXES or parquet_files(path):
            return TableSource(path, options, columns)
    if path.is_dir():
        if is_masked(path):
            return MaskedSource(path)
        if FashionMnistSource.is_here(path):
            return FashionMnistSource(path)
        if parquet_files(path):
            return TableSource(path, options)
        return FolderSource(path, options)
    if path.suffix in SUFFIXES:
        return TableSource(path, options)
    if path.suffix == ".npz":
        return NpzSource(path)
    raise PrepError(
        f"{source} is no source of images: give a folder, a .npz, .csv or .parquet file, hf:NAME "
        "or torchvision:NAME."
    )


def _open_named(scheme: str, rest: str, read_options: ReadOptions) -> Source:
    name, _, query = rest.partition("?")
    if not name:
        raise PrepError(f"The source '{scheme}:{rest}' lacks a name: write {scheme}:NAME.")
    kind = _NAMED[scheme]
    return kind(name, _parsed(query, f"{scheme}:{rest}", kind.OPTIONS), read_options)


def _parsed(query: str, source: str, known: Sequence[str]) -> dict[str, str]:
    """Return the options behind a source's question mark.

    Raises:
        PrepError: they cannot be read, or one is unknown.
    """
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as err:
        raise PrepError(
            f"The options in '{source}' cannot be read: write them as ?name=value&name=value."
        ) from err
    if unknown := sorted(options.keys() - set(known)):
        raise PrepError(
            f"The source {source.partition('?')[0]} knows no option {unknown[0]!r}: use "
            f"{', '.join(known)}."
        )
    return options


def read_source(
    source: str | Path,
    split: str = "train",
    on_error: str = "stop",
    *,
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    reading: Reading = USUAL_READING,
) -> ImageSet:
    """Read one split of any source; a source that publishes no test split is read whole.

    Args:
        source: A path or a name, see :func:`open_source`.
        split: ``train`` or ``test``.
        on_error: As in :class:`ReadOptions`.
        classes: The class schema's names. Labels are numbered by it, and classes may lack images.
        workers: As in :class:`ReadOptions`.
        reading: As in :class:`ReadOptions`.

    Raises:
        PrepError: nothing readable is there.
    """
    options = ReadOptions(on_error, classes is not None, workers, reading)
    data = open_source(source, options).read(split)
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
    reading: Reading = USUAL_READING,
) -> tuple[ImageSet, ImageSet | None]:
    """Read both sets: a published test split, a second source, or a share held out by the seed.

    The same share of each class is held out; see :func:`read_source` for the other arguments.

    Args:
        source: Holds the training images.
        test: A second source, for the test images.
        test_share: Share held out where no test images are given or published; 0 for no test set
            at all.
        seed: Of the share held out.
        on_error: As in :class:`ReadOptions`.
        classes: The class schema's names.
        workers: As in :class:`ReadOptions`.
        reading: As in :class:`ReadOptions`.

    Raises:
        PrepError: a source cannot be read, the two sets have different classes or number them
            differently, or the share leaves a set empty.
    """
    options = ReadOptions(on_error, classes is not None, workers, reading)
    opened = open_source(source, options)
    train, held = opened.read("train"), None
    if test is not None:
        held = open_source(test, options).read("test")
    elif test_share and opened.has_test:
        held = opened.read("test")
    elif test_share:
        train_rows, test_rows = stratified_hold_out(train.labels, test_share, seed)
        train, held = train.take(train_rows), replace(train.take(test_rows), split="test")
    if classes is not None:
        return apply_classes(train, classes), None if held is None else apply_classes(held, classes)
    if held is not None:
        places = ("the training images", "the test images")
        check_same_classes(train.class_names, held.class_names, *places)
        if train.class_names != held.class_names:
            raise PrepError(
                "The training and the test images number their classes differently: give the "
                "class names' order as a class schema (--classes)."
            )
    return train, held


def left_out_tests(source: str | Path) -> str:
    """Return a sentence on a source's test images, for a run that uses its training images only.

    It is empty where the source publishes no test split; no image is decoded.
    """
    try:
        opened = open_source(source, ReadOptions(partial=True))
    except PrepError:  # what is left out need not be whole
        return ""
    return f"--test-share 0 leaves out the test images of {source}." if opened.has_test else ""
