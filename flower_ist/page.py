"""HTML pages that can be mailed: they load nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(file: str) -> Template:
    """Return a template by its path in this package; ``page.html.jinja`` is the frame of all."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        loader=PackageLoader("flower_ist", ""),
    ).get_template(file)
