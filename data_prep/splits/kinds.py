"""How a split is asked for. Without numpy, as a command's help needs it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Self

from data_prep import PrepError

SPLITS = {
    "iid": "every client gets equally many images, drawn at random",
    "dirichlet:ALPHA": "each class is shared out by a Dirichlet draw; 0.1 is strong skew, 100 none",
    "shards:NUMBER": "the images, sorted by class, are cut up and each client gets NUMBER pieces",
    "quantity:linear": "client k gets a share of images in proportion to k + 1, of all classes",
    "quantity:square": "in proportion to the square of k + 1",
    "quantity:exponential": "in proportion to e to the power of k",
    "natural": "one client for each owner that the source names",
}
"""How a split is written on the command line, and what it does."""

_GROWTHS = ("linear", "square", "exponential")
# Below, numpy's Dirichlet draw is one client per class anyway; above, it is an even split.
_ALPHAS = (1e-3, 1e6)


def describe_splits() -> list[str]:
    """Return one line per kind of split, for a help text."""
    return [f"{form}: {meaning}." for form, meaning in SPLITS.items()]


@dataclass(frozen=True)
class ClientSplit:
    """One kind of split with its one parameter.

    Attributes:
        kind: ``iid``, ``dirichlet``, ``shards``, ``quantity`` or ``natural``.
        alpha: Concentration of ``dirichlet``, 0.001 to 1,000,000.
        shards: Pieces per client of ``shards``, at least 1.
        growth: ``linear``, ``square`` or ``exponential``, of ``quantity``.
    """

    kind: str = "iid"
    alpha: float = 0.0
    shards: int = 0
    growth: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a split as it is written on the command line, such as ``dirichlet:0.3``.

        Raises:
            PrepError: the kind is unknown or its parameter is missing or out of range.
        """
        kind, colon, parameter = text.partition(":")
        if text in ("iid", "natural"):
            return cls(kind)
        if kind == "dirichlet" and colon:
            return cls(kind, alpha=_alpha(parameter))
        if kind == "shards" and colon:
            return cls(kind, shards=_shards(parameter))
        if kind == "quantity" and parameter in _GROWTHS:
            return cls(kind, growth=parameter)
        *most, last = SPLITS
        raise PrepError(f"The split {text!r} is unknown: use {', '.join(most)} or {last}.")

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        parameter = {
            "dirichlet": f":{self.alpha}",
            "shards": f":{self.shards}",
            "quantity": f":{self.growth}",
        }
        return self.kind + parameter.get(self.kind, "")


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = float("nan")
    least, most = _ALPHAS
    if not (isfinite(alpha) and least <= alpha <= most):
        raise PrepError(
            f"Dirichlet's alpha must be a number of {least:g} to {most:,.0f}, not {text!r}: write "
            "dirichlet:0.3, say."
        )
    return alpha


def _shards(text: str) -> int:
    # At most 12 digits: Python refuses to read very long numbers, and no set has so many images.
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) >= 1):
        raise PrepError(
            f"The shards of each client must be a whole number of 1 and up, not {text!r}: write "
            "shards:2, say."
        )
    return int(text)
