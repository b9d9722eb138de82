"""The command ``pretrain``: the settings of a training, and where and how it runs."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from data_prep.commands.common import command_of, console, resumable
from data_prep.options import argument, on_error, option
from data_prep.pretrain.settings import PretrainSettings
from flower_ist.console import print_text

_RUN = "Running"


@dataclass(frozen=True)
class PretrainCommand(PretrainSettings):
    """How an encoder is trained, on which images, and where it goes."""

    source: str = argument("Images; labels are not used.")
    out: Path = option("Folder for the encoder, the state and the log.")
    _: KW_ONLY
    label: str = option("What shards call the encoder; default: by its source.", "", panel=_RUN)
    device: str = option("cpu, cuda or mps.", "cpu", panel=_RUN)
    threads: int = option(
        "Threads of torch on the CPU; 0 for as many as there are cores.", 0, panel=_RUN
    )
    on_error: str = on_error(panel=_RUN)


@command_of(PretrainCommand)
def pretrain(settings: PretrainCommand) -> None:
    """Train a small ViT as a masked autoencoder on images without labels.

    SOURCE is whatever prep takes; its training images are used. The result is an
    encoder for prep: --encoder OUT/encoder.safetensors. A run that was stopped
    resumes after its last full epoch when the same command is given again.
    """
    import torch

    from data_prep.pretrain.run import pretrain as run
    from data_prep.sources.open import read_source

    settings.check()
    if settings.threads > 0:
        torch.set_num_threads(settings.threads)
    data = read_source(settings.source, "train", settings.on_error)
    with resumable(f"the last full epoch is kept in {settings.out}"):
        file = run(
            data,
            settings.out,
            settings,
            device=settings.device,
            label=settings.label,
            console=console,
        )
    print_text(console, f"Encoder: {file}")
