"""What tells one version of a set of images from another without decoding any."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from data_prep.images.decode import ImageFiles
from data_prep.images.image_set import ImageSet
from data_prep.patches.read import MaskedImages
from flower_ist.tokens.shard import array_sha256


def images_sha256(data: ImageSet) -> str:
    """Return a SHA-256 that is the same on every machine that has the same images.

    Of arrays in memory every pixel counts, of images masked already every stored byte. Other stored
    images count by their ids and their bytes as pixels and as files; where they are files, by the
    checksums of their content and their names below the folder that holds them all too.
    """
    digest = hashlib.sha256(data.image_ids.astype("<i8").tobytes())
    if data.file_bytes is not None:
        digest.update(data.file_bytes.astype("<i8").tobytes())
    images = data.images
    if isinstance(images, np.ndarray):
        digest.update(f"{images.shape} {array_sha256(images)}".encode())
        return digest.hexdigest()
    digest.update(images.native_bytes.astype("<i8").tobytes())
    if isinstance(images, MaskedImages):
        # It was compared with the bytes when the images were opened.
        digest.update(images.meta.sha256["patches"].encode())
    if isinstance(images, ImageFiles):
        if images.checksums is not None:
            digest.update(images.checksums.astype("<i8").tobytes())
        paths = [os.path.abspath(path) for path in images.paths]
        shared = os.path.commonpath([os.path.dirname(path) for path in paths])
        # Names may hold bytes that are no text.
        digest.update(b"\0".join(os.fsencode(os.path.relpath(path, shared)) for path in paths))
    return digest.hexdigest()
