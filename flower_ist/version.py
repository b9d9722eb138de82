"""The library's version: that of pyproject.toml, which is not there where it is installed."""

__version__ = "0.1.0"
