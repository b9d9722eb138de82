"""Turns images into token shards; runs where the images are, never inside the Flower app."""


class PrepError(ValueError):
    """An image source, a checkpoint, a mask or an option cannot be used; the text says why."""
