"""A stream of images -> a stream of tokens, with the encoder and the mask of a model's recipe.

An image's mask is drawn from the seed and, in place of an image id, the CRC-32 of its content: the
same picture gets the same answer, wherever it stands in whatever list.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep import PrepError
from data_prep.encoders.reopen import reopen_encoder
from data_prep.images.check import check_on_error
from data_prep.images.decode import decode_image
from data_prep.images.pixels import network_input
from data_prep.images.prefetch import prefetch
from data_prep.images.reading import reading_of
from data_prep.masks.draw import draw_mask
from data_prep.masks.names import check_views
from data_prep.shards.encode import Batch, Encoding
from flower_ist.errors import first_line
from flower_ist.tokens.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """Some images, decoded, or a sentence on why not.

    Attributes:
        paths: of those that can be read.
        batch: their pixels and masks; None if none can be read.
        unreadable: a sentence for each of the others.
    """

    paths: list[Path]
    batch: Batch | None
    unreadable: list[str]


def stream_tokens(
    encoding: Encoding,
    batches: Iterable[list[Path]],
    *,
    workers: int = 2,
    views: int = 1,
    on_error: str = "stop",
    tell: Callable[[str], object] = lambda sentence: None,
) -> Generator[tuple[list[str], NDArray[np.float32]], None, None]:
    """Yield for each batch of paths those that can be read, and their tokens (n, V, D).

    Args:
        encoding: Encoder and mask, see :func:`open_encoding`.
        batches: Of paths.
        workers: Threads that decode ahead; with 0 nothing is asked for before it is answered.
        views: Masks of each image, 1 and up.
        on_error: At an image that cannot be read: ``stop``, or ``skip`` to tell of it and go on.
        tell: Takes a sentence for each image that was skipped.

    Raises:
        PrepError: the views would be all the same, the choice on error is unknown, or, under
            ``stop``, an image cannot be read.
    """
    check_on_error(on_error)
    check_views(views, encoding.mask)
    with closing(prefetch(lambda p: prepare(encoding, p, views), batches, workers)) as prepared:
        for each in prepared:
            for sentence in each.unreadable:
                if on_error == "stop":
                    raise PrepError(f"{sentence.rstrip('.')}: remove it or use --on-error skip.")
                tell(sentence)
            if each.batch is not None:
                tokens = encoding.tokens(each.batch).reshape(len(each.paths), views, -1)
                yield [str(path) for path in each.paths], tokens


def prepare(encoding: Encoding, paths: list[Path], views: int = 1) -> Prepared:
    """Read, decode and resize images, and draw their masks; one is in memory at native size."""
    size = encoding.encoder.record.image_size
    readable, pixels, ids, unreadable = [], [], [], []
    for path in paths:
        try:
            content = _content(path)
            native = decode_image(io.BytesIO(content), path, encoding.reading)
        except PrepError as err:
            unreadable.append(str(err))
            continue
        pixels.append(network_input(native[None], size, encoding.interpolation))
        ids.append(zlib.crc32(content))
        readable.append(path)
    if not readable:
        return Prepared([], None, unreadable)
    masks = [draw_mask(encoding.mask, np.array(ids, np.int64), view) for view in range(views)]
    return Prepared(readable, Batch(torch.cat(pixels), np.stack(masks)), unreadable)


def open_encoding(
    recipe: Recipe,
    encoder: str = "",
    weights: str = "",
    *,
    device: str = "cpu",
    mask_ratio: float | None = None,
) -> Encoding:
    """Open a recipe's encoder, and draw its masks; another ratio may be asked for.

    Raises:
        PrepError: the encoder is not given or is another one, or the mask does not fit it.
    """
    mask = recipe.mask
    opened = reopen_encoder(recipe.encoder, encoder, weights, seed=mask.seed, device=device)
    encoding = Encoding(
        opened,
        mask_kind=mask.kind,
        mask_ratio=mask.ratio if mask_ratio is None else mask_ratio,
        seed=mask.seed,
        interpolation=recipe.encoder.interpolation,
        reading=reading_of(recipe.reading),
    )
    if encoding.mask.patches != mask.patches:
        raise PrepError(
            f"The model's masks are of {mask.patches} patches, but its encoder cuts "
            f"{encoding.mask.patches}: the model's record was edited."
        )
    return encoding


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as err:  # ValueError: a name with a zero byte
        raise PrepError(f"{path} cannot be read as an image: {first_line(err)}.") from err
