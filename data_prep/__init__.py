"""Turns images into token shards; runs where the images are, never inside the Flower app."""

from flower_ist.errors import FlowerIstError


class PrepError(FlowerIstError):
    """An image source, a checkpoint, a mask or an option cannot be used; the text says why."""
