"""One place where figures become PNG files: without a display, and whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from flower_ist.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches. It belongs to no window and no display."""
    from matplotlib.figure import Figure

    # A figure made without pyplot is drawn by Agg when it is saved as PNG.
    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, file: Path, dpi: int = 120) -> Path:
    """Write a figure as PNG; a file of that name is replaced.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    with whole_file(file) as stream, warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes: no harm is done.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=dpi)
    return file
