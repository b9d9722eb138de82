"""Runs of ``prep``: their command line, and what they wrote."""

import sys

from flower_ist.tokens.shard import open_shard


def contents(out):
    """All files of a folder but pictures, whose bytes may name matplotlib's release."""
    files = (path for path in out.rglob("*") if path.is_file() and path.suffix != ".png")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def shards(out, count=4):
    return [open_shard(out / f"client-{k}", verify=True) for k in range(count)]


def command(settings):
    """The command line of ``settings``."""
    options = {
        "--out": settings.out,
        "--encoder": settings.encoder,
        "--chunk-images": settings.chunk_images,
        "--batch-size": settings.batch_size,
        "--workers": settings.workers,
    }
    pairs = [str(text) for pair in options.items() for text in pair]
    return [sys.executable, "-m", "data_prep", "prep", settings.source, *pairs]
