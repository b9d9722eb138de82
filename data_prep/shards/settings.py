"""What one ``prep`` does: every option of the command, under the same name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep import PrepError
from data_prep.shards.chunks import CHUNK_IMAGES
from data_prep.splits.clients import ClientSplit


@dataclass(frozen=True)
class PrepSettings:
    """How images become shards. Only ``source`` and ``out`` have no default.

    Attributes:
        source: Where the images are, as :func:`data_prep.sources.open.read_train_and_test` reads
            it.
        out: The folder that gets the shards.
        test: Another source for the test images; None for the published ones or a share.
        test_share: Share held out where no test images are given; 0 for no test shard.
        classes: A file of class names that this source's must fit.
        save_classes: A second place for this source's class names, beside ``out/classes.json``.
        on_error: ``stop`` or ``skip``, at an image that cannot be read.
        encoder: ``embedded``, or the name of a timm model.
        weights: A checkpoint, ``random``, ``pretrained`` or empty for the encoder's own.
        image_size: Pixels that images are resized to; None for the encoder's own.
        patch_size: Pixels of a patch; None for the encoder's own.
        pool: ``cls`` or ``mean``.
        layer: Blocks that are run; 0 for all.
        normalization: ``model``, ``imagenet`` or ``half``.
        interpolation: ``bicubic`` or ``bilinear``.
        device: Where torch runs the encoder.
        compute_dtype: What the encoder computes in.
        dtype: What shards store: ``float16``, ``float32`` or ``int8``.
        mask: A mask kind; None for ``random``, or for that of images masked already.
        mask_ratio: Share of patches dropped; None for 0.5, or for that of images masked already.
        views: Tokens for each training image, under masks of that many epochs.
        seed: Of masks, splits and random weights; None for 0, or that of images masked already.
        clients: Number of training shards; None for the split's own.
        split: Which client gets which images, as ``ClientSplit.parse`` reads it.
        client: The name of the one client whose images these all are; empty to split them.
        workers: Threads that decode ahead of the encoder; 0 to decode in between.
        batch_size: Images encoded at once.
        chunk_images: Images a unit of work: what a stop in the middle loses at most.
        num_shards: Processes or machines that share the encoding.
        shard_index: Which of them this is, from 0.
        ray: Whether Ray Data runs the encoding, on all its GPUs or CPUs.
    """

    source: str
    out: Path
    test: str | None = None
    test_share: float = 0.2
    classes: Path | None = None
    save_classes: Path | None = None
    on_error: str = "stop"
    encoder: str = "embedded"
    weights: str = ""
    image_size: int | None = None
    patch_size: int | None = None
    pool: str = "cls"
    layer: int = 0
    normalization: str = "model"
    interpolation: str = "bicubic"
    device: str = "cpu"
    compute_dtype: str = "float32"
    dtype: str = "float16"
    mask: str | None = None
    mask_ratio: float | None = None
    views: int = 1
    seed: int | None = None
    clients: int | None = None
    split: str = "iid"
    client: str = ""
    workers: int = 2
    batch_size: int = 64
    chunk_images: int = CHUNK_IMAGES
    num_shards: int = 1
    shard_index: int = 0
    ray: bool = False

    def check(self) -> None:
        """Find what is wrong without any image or encoder.

        Raises:
            PrepError: an option is out of range, unknown, or excludes another.
        """
        for name, value, least in (
            ("batch size", self.batch_size, 1),
            ("number of images in a chunk", self.chunk_images, 1),
            ("number of workers", self.workers, 0),
            ("number of views", self.views, 1),
            ("number of shards", self.num_shards, 1),
        ):
            if value < least:
                raise PrepError(f"The {name} must be at least {least}, not {value}.")
        if not 0 <= self.shard_index < self.num_shards:
            raise PrepError(
                f"The shard index must be 0 to {self.num_shards - 1}, not {self.shard_index}: it "
                f"says which of {self.num_shards} processes this is."
            )
        if self.ray and self.num_shards > 1:
            raise PrepError("Ray shares the work out itself: leave --num-shards or --ray out.")
        ClientSplit.parse(self.split)
        if not self.client:
            return
        if Path(self.client).name != self.client or self.client.startswith("."):
            raise PrepError(f"The client {self.client!r} must be a plain name for a folder.")
        if self.client == "test":
            raise PrepError("A client cannot be called test: that is the test shard's name.")
        if self.clients is not None or self.split != "iid":
            raise PrepError(
                f"All images belong to the client {self.client}: leave --clients and --split out."
            )
