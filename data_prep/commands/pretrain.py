"""The command ``pretrain``: every option of ``PretrainSettings``, and where to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.commands.common import OnError, console, errors_as_sentences
from data_prep.pretrain.settings import PretrainSettings


def _option(panel: str, text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=panel)


_NETWORK, _TRAINING, _RUN = "Network", "Training", "Running"


def pretrain(
    source: Annotated[str, typer.Argument(help="Images; labels are not used.")],
    out: Annotated[Path, typer.Option(help="Folder for the encoder, the state and the log.")],
    vit: Annotated[
        str, _option(_NETWORK, "timm ViT that is changed by the sizes.")
    ] = PretrainSettings.vit,
    image_size: Annotated[
        int, _option(_NETWORK, "Images become this high and wide.")
    ] = PretrainSettings.image_size,
    patch_size: Annotated[
        int, _option(_NETWORK, "Pixels of a patch.")
    ] = PretrainSettings.patch_size,
    dim: Annotated[int, _option(_NETWORK, "Width of a token.")] = PretrainSettings.dim,
    depth: Annotated[int, _option(_NETWORK, "Blocks of the encoder.")] = PretrainSettings.depth,
    heads: Annotated[
        int, _option(_NETWORK, "Attention heads of a block.")
    ] = PretrainSettings.heads,
    decoder_dim: Annotated[
        int, _option(_NETWORK, "Width of the decoder.")
    ] = PretrainSettings.decoder_dim,
    decoder_depth: Annotated[
        int, _option(_NETWORK, "Blocks of the decoder.")
    ] = PretrainSettings.decoder_depth,
    mask_ratio: Annotated[
        float, _option(_TRAINING, "Share of patches that the encoder does not see.")
    ] = PretrainSettings.mask_ratio,
    epochs: Annotated[int, _option(_TRAINING, "Passes over the images.")] = PretrainSettings.epochs,
    batch_size: Annotated[
        int, _option(_TRAINING, "Images in a step.")
    ] = PretrainSettings.batch_size,
    learning_rate: Annotated[
        float, _option(_TRAINING, "Peak of the schedule.")
    ] = PretrainSettings.learning_rate,
    warmup_epochs: Annotated[
        float, _option(_TRAINING, "Epochs up to the peak.")
    ] = PretrainSettings.warmup_epochs,
    weight_decay: Annotated[
        float, _option(_TRAINING, "Of AdamW, on matrices.")
    ] = PretrainSettings.weight_decay,
    least_crop: Annotated[
        float, _option(_TRAINING, "Least share of the area that a random crop keeps.")
    ] = PretrainSettings.least_crop,
    normalization: Annotated[
        str, _option(_TRAINING, "half (0.5/0.5) or imagenet.")
    ] = PretrainSettings.normalization,
    seed: Annotated[
        int, _option(_TRAINING, "Of weights, masks, orders and crops.")
    ] = PretrainSettings.seed,
    label: Annotated[
        str, _option(_RUN, "What shards call the encoder; default: by its source.")
    ] = "",
    device: Annotated[str, _option(_RUN, "cpu, cuda or mps.")] = "cpu",
    threads: Annotated[
        int, _option(_RUN, "Threads of torch on the CPU; 0 for as many as there are cores.")
    ] = 0,
    on_error: OnError = "stop",
) -> None:
    """Train a small ViT as a masked autoencoder on images without labels.

    OUT/encoder.safetensors is then an encoder for prep: --encoder OUT/encoder.safetensors.
    A run that was stopped goes on from its last full epoch when the same command is
    given again. SOURCE is whatever prep takes; its training images are used.
    """
    options = {
        name: value
        for name, value in locals().items()
        if name in PretrainSettings.__dataclass_fields__
    }
    with errors_as_sentences():
        import torch

        from data_prep.pretrain.run import pretrain as run
        from data_prep.sources.open import read_source

        settings = PretrainSettings(**options)
        settings.check()
        if threads > 0:
            torch.set_num_threads(threads)
        data = read_source(source, "train", on_error)
        try:
            file = run(data, out, settings, device=device, label=label, console=console)
        except KeyboardInterrupt as err:
            typer.echo(f"Stopped: give the same command again to go on in {out}.", err=True)
            raise typer.Exit(code=130) from err
        console.print(f"Encoder: {file}", highlight=False, soft_wrap=True)
