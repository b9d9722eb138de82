"""What this project refuses, as one sentence that says what is wrong and what to do."""

from __future__ import annotations


class FlowerIstError(Exception):
    """The base of all errors that are meant for the user; anything else is a bug of ours."""


class ArgumentError(FlowerIstError, ValueError):
    """A function or a class was called with a value that it cannot use."""
