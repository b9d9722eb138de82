"""Sentences on a console."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console


def print_sentence(console: Console, sentence: str) -> None:
    """Print a sentence on one line, as it is; nothing where it is empty."""
    if sentence:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_skipped(console: Console, skipped: Iterable[str]) -> None:
    """List the unreadable images, each once: two sets cut from one source both carry its list."""
    sentences = dict.fromkeys(skipped)
    if sentences:
        print_sentence(console, f"Skipped {len(sentences)} unreadable image files:")
    for sentence in sentences:
        print_sentence(console, sentence)
