"""Data sets given by name: ``hf:NAME[:CONFIG][?option=value&...]`` and ``torchvision:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from data_prep import PrepError

SCHEMES = ("hf", "torchvision")


@dataclass(frozen=True)
class NamedSource:
    """A data set's name taken apart: ``hf:user/birds?label=species`` has one option.

    Attributes:
        scheme: A name in ``SCHEMES``.
        name: What the library calls the data set, its configuration included.
        options: What follows the question mark.
    """

    scheme: str
    name: str
    options: Mapping[str, str]


def parse_named(source: str) -> NamedSource | None:
    """Take a source apart, or return None where it begins with no known scheme.

    Raises:
        PrepError: the name is missing or the options cannot be read.
    """
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in SCHEMES:
        return None
    name, _, query = rest.partition("?")
    if not name:
        raise PrepError(f"The source {source!r} lacks a name: write {scheme}:NAME.")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as err:
        raise PrepError(
            f"The options in {source!r} cannot be read: write them as ?name=value&name=value."
        ) from err
    return NamedSource(scheme, name, options)


def check_options(source: NamedSource, known: tuple[str, ...]) -> None:
    """Refuse an option that the scheme does not know.

    Raises:
        PrepError: there is one.
    """
    if unknown := sorted(source.options.keys() - set(known)):
        raise PrepError(
            f"The source {source.scheme}:{source.name} knows no option {unknown[0]!r}: use "
            f"{', '.join(known)}."
        )
