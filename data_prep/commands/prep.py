"""The command ``prep``."""

from __future__ import annotations

from data_prep.commands.common import command_of, console, resumable
from data_prep.shards.settings import PrepSettings


@command_of(PrepSettings)
def prep(settings: PrepSettings) -> None:
    """Encode masked images into one token shard per client and one for testing.

    SOURCE is one of: a folder of class folders, such as SOURCE/cat/1.jpg, also
    with train and test around them; a folder that "mask" wrote; a folder with
    Fashion-MNIST's idx files; a .npz of x and y; a .csv or .parquet with the
    columns path and label; hf:NAME of the Hugging Face hub; torchvision:NAME,
    such as torchvision:CIFAR10. For images masked already, the mask and the image
    size default to theirs.

    A run that was stopped resumes when the same command is given again: finished
    parts lie in OUT/.prep and are not encoded twice.

    Several processes share the work with --num-shards N --shard-index 0 ... N-1:
    the last one to finish makes the shards. If the machines share no disk, copy
    their OUT/.prep folders together and run the command once more without the two
    options.
    """
    # It imports timm, which no help text needs.
    from data_prep.shards.prep import prep as run
    from data_prep.shards.work_folder import WORK_FOLDER

    with resumable(f"what is finished is kept in {settings.out / WORK_FOLDER}"):
        run(settings, console)
