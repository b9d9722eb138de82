"""Sentences on a console."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flower_ist.console import print_text

if TYPE_CHECKING:
    from rich.console import Console


def print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Print each sentence once: two sets cut from one source both carry its own."""
    for sentence in dict.fromkeys(sentences):
        print_text(console, sentence)


def print_skipped(console: Console, skipped: Iterable[str]) -> None:
    """List the unreadable images, each once: two sets cut from one source both carry its list."""
    sentences = dict.fromkeys(skipped)
    if sentences:
        print_text(console, f"Skipped {len(sentences)} unreadable image files:")
    print_sentences(console, sentences)
