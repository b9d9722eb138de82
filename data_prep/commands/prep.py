"""The command ``prep``: every option of ``PrepSettings``, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.commands.common import OnError, console, errors_as_sentences
from data_prep.masks.draw import describe_kinds
from data_prep.shards.settings import PrepSettings as Default
from data_prep.shards.work_folder import WORK_FOLDER
from data_prep.splits.clients import describe_splits

# Only a blank line keeps a line of its own in the help.
MASK_HELP = "\n\n".join(["Which patches are kept; default random.", *describe_kinds()])
SPLIT_HELP = "\n\n".join(["Which client gets which images.", *describe_splits()])
VIEWS_HELP = (
    "Tokens for each training image, under masks of that many epochs. 1 is one mask for each "
    "image, kept for good, which the paper calls fixed; its random, a new mask each epoch, is "
    "approximated by more. The test shard always has 1."
)


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


_IMAGES, _ENCODER, _MASK, _CLIENTS, _RUN = "Images", "Encoder", "Masks", "Clients", "Running"


def prep(
    source: Annotated[str, typer.Argument(help="Where the images are.")],
    out: Annotated[Path, typer.Option(help="New shards: OUT/client-0 ..., OUT/test.")],
    test: Annotated[
        str | None, _option(_IMAGES, "Test images; default: the published ones or a share.")
    ] = Default.test,
    test_share: Annotated[
        float, _option(_IMAGES, "Share held out where no test set is given; 0 for no test shard.")
    ] = Default.test_share,
    classes: Annotated[
        Path | None, _option(_IMAGES, "Class names that all clients agreed on (classes.json).")
    ] = Default.classes,
    save_classes: Annotated[
        Path | None, _option(_IMAGES, "Write the class names here too, beside OUT/classes.json.")
    ] = Default.save_classes,
    on_error: OnError = Default.on_error,
    encoder: Annotated[
        str, _option(_ENCODER, "embedded, a timm model's name, or a file that pretrain wrote.")
    ] = Default.encoder,
    weights: Annotated[
        str,
        _option(_ENCODER, "A checkpoint; pretrained: timm's from the network; random: a control."),
    ] = Default.weights,
    image_size: Annotated[
        int | None, _option(_ENCODER, "Images become this high and wide; default: its own.")
    ] = Default.image_size,
    patch_size: Annotated[
        int | None, _option(_ENCODER, "Pixels of a patch; default: its own.")
    ] = Default.patch_size,
    pool: Annotated[str, _option(_ENCODER, "cls token or mean of the patches.")] = Default.pool,
    layer: Annotated[int, _option(_ENCODER, "Blocks to run; 0 for all.")] = Default.layer,
    normalization: Annotated[
        str, _option(_ENCODER, "model (its own), imagenet, or half (0.5/0.5, the paper's).")
    ] = Default.normalization,
    interpolation: Annotated[
        str, _option(_ENCODER, "bicubic or bilinear.")
    ] = Default.interpolation,
    device: Annotated[str, _option(_ENCODER, "cpu, cuda or mps.")] = Default.device,
    compute_dtype: Annotated[
        str, _option(_ENCODER, "float32, bfloat16 or float16.")
    ] = Default.compute_dtype,
    dtype: Annotated[
        str, _option(_ENCODER, "Tokens are stored as float16, float32 or int8.")
    ] = Default.dtype,
    mask: Annotated[str | None, _option(_MASK, MASK_HELP)] = Default.mask,
    mask_ratio: Annotated[
        float | None, _option(_MASK, "Share of patches dropped, 0 up to below 1; default 0.5.")
    ] = Default.mask_ratio,
    views: Annotated[int, _option(_MASK, VIEWS_HELP)] = Default.views,
    seed: Annotated[
        int | None, _option(_MASK, "Of masks, splits and random weights; default 0.")
    ] = Default.seed,
    clients: Annotated[
        int | None, _option(_CLIENTS, "Training shards; default 4, or one for each owner.")
    ] = Default.clients,
    split: Annotated[str, _option(_CLIENTS, SPLIT_HELP)] = Default.split,
    client: Annotated[
        str, _option(_CLIENTS, "On a device: all images are this client's; makes OUT/CLIENT.")
    ] = Default.client,
    workers: Annotated[
        int, _option(_RUN, "Threads that decode ahead of the encoder; 0 for none.")
    ] = Default.workers,
    batch_size: Annotated[int, _option(_RUN, "Images encoded at once.")] = Default.batch_size,
    chunk_images: Annotated[
        int, _option(_RUN, "Images a unit of work: what a stop in the middle loses at most.")
    ] = Default.chunk_images,
    num_shards: Annotated[
        int, _option(_RUN, "Processes or machines that share the encoding.")
    ] = Default.num_shards,
    shard_index: Annotated[
        int, _option(_RUN, "Which of them this is, from 0.")
    ] = Default.shard_index,
    ray: Annotated[
        bool, _option(_RUN, "Share the encoding out with Ray Data.", "--ray")
    ] = Default.ray,
) -> None:
    """Encode masked images into one token shard per client and one for testing.

    SOURCE is one of: a folder of class folders, such as SOURCE/cat/1.jpg, also with
    train and test around them; a folder that "mask" wrote; a folder with
    Fashion-MNIST's idx files; a .npz of x and y; a .csv or .parquet with the columns
    path and label; hf:NAME of the Hugging Face hub; torchvision:NAME, such as
    torchvision:CIFAR10. Of images masked already, mask and image size are theirs.

    A run that was stopped goes on when the same command is given again: finished
    parts lie in OUT/.prep and are not encoded twice.

    Several processes share the work with --num-shards N --shard-index 0 ... N-1:
    the last one to finish makes the shards. On machines without a shared disk,
    copy their OUT/.prep together and give the command once more without the two.
    """
    given = dict(locals())
    with errors_as_sentences():
        # It brings timm along, which no help text needs.
        from data_prep.shards.prep import PrepSettings
        from data_prep.shards.prep import prep as run

        try:
            run(PrepSettings(**given), console)
        except KeyboardInterrupt as err:
            typer.echo(
                f"Stopped: give the same command again to go on; what is finished is kept in "
                f"{out / WORK_FOLDER}.",
                err=True,
            )
            raise typer.Exit(code=130) from err
