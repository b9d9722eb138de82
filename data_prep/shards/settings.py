"""The settings of ``prep``, each also an option of the command under the same name."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from data_prep import PrepError
from data_prep.encoders.settings import EncoderSettings
from data_prep.masks.names import describe_kinds
from data_prep.options import check_bounds, option
from data_prep.sources.settings import SourceSettings
from data_prep.splits.settings import SplitSettings

_ENCODER, _MASK, _RUN = "Encoder", "Masks", "Running"


@dataclass(frozen=True)
class PrepSettings(SplitSettings, EncoderSettings, SourceSettings):
    """How images become shards. Only ``source`` and ``out`` have no default.

    A mask, its ratio, a seed and an image size of None are those of images masked already, else
    ``random``, 0.5, 0 and the encoder's own.
    """

    out: Path = option("Folder for the new shards: OUT/client-0 ..., OUT/test.")
    _: KW_ONLY
    interpolation: str = option("bicubic or bilinear.", "bicubic", panel=_ENCODER)
    dtype: str = option("Tokens are stored as float16, float32 or int8.", "float16", panel=_ENCODER)
    mask: str | None = option(
        "\n\n".join(["Which patches are kept; default random.", *describe_kinds()]),
        None,
        panel=_MASK,
    )
    mask_ratio: float | None = option(
        "Share of patches dropped, from 0 to below 1; default 0.5.", None, panel=_MASK
    )
    views: int = option(
        "Tokens for each training image, under the masks of that many epochs. 1 is one mask for "
        "each image, kept for good, which the paper calls fixed; its random, a new mask each "
        "epoch, is approximated by more. The test shard always has 1.",
        1,
        panel=_MASK,
        least=1,
    )
    seed: int | None = option(
        "Seed of masks, splits and random weights; default 0.", None, panel=_MASK
    )
    workers: int = option(
        "Threads that decode images ahead of the encoder; 0 for none.", 2, panel=_RUN, least=0
    )
    batch_size: int = option("Images encoded at once.", 64, panel=_RUN, least=1)
    chunk_images: int = option(
        "Images in a chunk, the unit of work: a run that is stopped loses at most this many.",
        512,
        panel=_RUN,
        least=1,
    )
    num_shards: int = option(
        "Processes or machines that share the encoding.", 1, panel=_RUN, least=1
    )
    shard_index: int = option("Which of these this process is, from 0.", 0, panel=_RUN)
    ray: bool = option("Share the encoding out with Ray Data.", False, panel=_RUN)

    append: bool = option(
        "SOURCE holds new images for OUT/CLIENT, a shard that is there: they are encoded as its "
        "own were, and join it.",
        False,
        panel=_RUN,
    )

    def check(self) -> None:
        """Find what is wrong without any image or encoder.

        Raises:
            PrepError: an option is out of range, unknown, or excludes another.
        """
        check_bounds(self)
        if not 0 <= self.shard_index < self.num_shards:
            raise PrepError(
                f"The shard index must be 0 to {self.num_shards - 1}, not {self.shard_index}: it "
                f"says which of {self.num_shards} processes this is."
            )
        if self.ray and self.num_shards > 1:
            raise PrepError("Ray shares the work out itself: leave --num-shards or --ray out.")
        if self.append and not self.client:
            raise PrepError("Images join one client's shard: name it with --client.")
        if self.append and (self.num_shards > 1 or self.ray):
            raise PrepError("--append encodes in one process: leave --num-shards and --ray out.")
        self.check_split()
        self.reading()
