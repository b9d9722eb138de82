"""Pictures by matplotlib, which is imported only when one is drawn."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from flower_ist.errors import FlowerIstError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float = 7.5, height: float = 4.5) -> Figure:
    """Return an empty figure of a size in inches, drawn without a window.

    Raises:
        FlowerIstError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise FlowerIstError("Pictures need matplotlib: pip install 'flower-ist[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figures give the same bytes."""
    buffer = io.BytesIO()
    # Without the library's name and version.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
