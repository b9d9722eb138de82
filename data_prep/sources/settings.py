"""Which images are read: the settings that ``prep`` and ``mask`` share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep import PrepError
from data_prep.options import argument, on_error, option

if TYPE_CHECKING:
    from data_prep.images.image_set import ImageSet
    from data_prep.images.reading import Reading

_PANEL = "Images"


@dataclass(frozen=True)
class SourceSettings:
    """The source of the training images, and where test images come from."""

    source: str = argument("Where the images are.")
    _: KW_ONLY
    test: str | None = option(
        "Test images; default: the published ones or a share.", None, panel=_PANEL
    )
    test_share: float = option(
        "Share held out where no test set is given or published; 0 for no test set.",
        0.2,
        panel=_PANEL,
    )
    classes: Path | None = option(
        "Class names that all clients agreed on (classes.json).", None, panel=_PANEL
    )
    on_error: str = on_error(panel=_PANEL)
    bit_depth: int | None = option(
        "Bits that 16-bit gray values use, 8 to 16; default: what the file states, or 16.",
        None,
        panel=_PANEL,
    )
    alpha: str = option(
        "Transparent pixels: shown over white, or ignore: their colors.", "white", panel=_PANEL
    )
    orientation: str = option(
        "Images are read as stored, or turned by what their exif data say.", "stored", panel=_PANEL
    )

    def reading(self) -> Reading:
        """Return what becomes of images that are not plain 8-bit RGB or gray.

        Raises:
            PrepError: a choice is unknown.
        """
        from data_prep.images.reading import Reading

        return Reading(self.bit_depth, self.alpha, self.orientation)

    def refuse_inside(self, out: Path) -> None:
        """Refuse to write among the images, where the result would be read as images next time.

        Raises:
            PrepError: ``out`` is the folder of a source, or lies in it.
        """
        for source in (self.source, self.test):
            folder = None if source is None else Path(source)
            if folder and folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
                raise PrepError(
                    f"{out} lies in the folder of the images, {source}, where it may be taken for "
                    "some of them: choose a folder outside."
                )

    def read_images(
        self, seed: int, workers: int | None = None
    ) -> tuple[ImageSet, ImageSet | None]:
        """Read the training and, if one is asked for, the test images.

        Args:
            seed: Of the share held out.
            workers: Threads that check images; None for one per core, up to 8.

        Raises:
            PrepError: they cannot be read, or their class names cannot be used.
        """
        # They import torch, which the help of a command does not need.
        from data_prep.images.classes import check_names, read_classes
        from data_prep.sources.open import read_train_and_test

        train, test = read_train_and_test(
            self.source,
            self.test,
            self.test_share,
            seed,
            self.on_error,
            None if self.classes is None else read_classes(self.classes),
            workers=workers,
            reading=self.reading(),
        )
        check_names(train.class_names, train.source)
        return train, test

    def left_out(self) -> str:
        """Return a sentence on published test images that are not asked for, or an empty text."""
        from data_prep.sources.open import left_out_tests

        return "" if self.test or self.test_share else left_out_tests(self.source)
