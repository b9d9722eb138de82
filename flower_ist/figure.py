"""Where figures come from: without a display, and with texts drawn as they are."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flower_ist.errors import FlowerIstError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NEEDED = "Pictures need matplotlib: pip install 'flower-ist[plot]'."


@contextmanager
def plain_texts() -> Iterator[None]:
    """Draw any name within the block: a dollar sign starts no formula, and no glyph is an error.

    Where a font lacks a script, boxes are drawn.

    Raises:
        FlowerIstError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise FlowerIstError(_NEEDED) from None

    with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float = 7.5, height: float = 4.5) -> Figure:
    """Return an empty figure of that many inches. It belongs to no window and no display.

    Raises:
        FlowerIstError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise FlowerIstError(_NEEDED) from None
    # A figure made without pyplot is drawn by Agg when it is saved as PNG.
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figures give the same bytes."""
    buffer = io.BytesIO()
    # Without the library's name and version.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def add_legend(axes: Axes, **options: Any) -> None:
    """Add a legend of all lines: matplotlib alone leaves out names that begin with ``_``."""
    lines = axes.get_lines()
    axes.legend(lines, [str(line.get_label()) for line in lines], **options)
