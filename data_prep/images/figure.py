"""Figures become PNG files here, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flower_ist.figure import new_figure, plain_texts
from flower_ist.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "plain_texts", "save_png"]


def save_png(figure: Figure, file: Path, dpi: int = 120) -> Path:
    """Write a figure as PNG; a file of that name is replaced.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    with whole_file(file) as stream, plain_texts():
        figure.savefig(stream, format="png", dpi=dpi)
    return file
