"""The command ``mask``: images to kept patches, for a gateway that encodes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.commands.common import OnError, console, errors_as_sentences
from data_prep.masks.draw import describe_kinds


def mask(
    source: Annotated[str, typer.Argument(help="Images, as prep takes them.")],
    out: Annotated[Path, typer.Option(help="New folder for the kept patches.")],
    image_size: Annotated[
        int, typer.Option(help="Images become this high and wide: the encoder's input size.")
    ],
    patch_size: Annotated[int, typer.Option(help="Pixels of the encoder's patches.")],
    kind: Annotated[
        str, typer.Option("--mask", help="\n\n".join(["Which are kept.", *describe_kinds()]))
    ] = "random",
    mask_ratio: Annotated[float, typer.Option(help="Share dropped, 0 up to below 1.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the masks and the split.")] = 0,
    compress: Annotated[
        bool, typer.Option("--compress", help="Store lossless WebP instead of plain pixels.")
    ] = False,
    interpolation: Annotated[str, typer.Option(help="bicubic or bilinear.")] = "bicubic",
    test: Annotated[
        str | None, typer.Option(help="Test images; default: the published ones or a share.")
    ] = None,
    test_share: Annotated[
        float, typer.Option(help="Share held out where no test set is given; 0 for no test set.")
    ] = 0.2,
    classes: Annotated[
        Path | None, typer.Option(help="Class names that all clients agreed on (classes.json).")
    ] = None,
    on_error: OnError = "stop",
    workers: Annotated[int | None, typer.Option(help="Threads; default: one a core.")] = None,
) -> None:
    """Write the kept patches of images, for a device too weak to run an encoder.

    OUT is then a source: prep OUT --encoder ... on a gateway makes the same tokens as
    prep SOURCE with the same mask, seed and sizes would. Which patches were kept is not
    stored: it follows from the seed and the images' ids.
    """
    with errors_as_sentences():
        from data_prep.images.classes import check_names, read_classes
        from data_prep.new_folder import refuse_existing, refuse_inside
        from data_prep.patches.write import MaskSettings, write_masked, write_masked_splits
        from data_prep.shards.report import image_progress, masked_summary, print_skipped
        from data_prep.sources.open import left_out_tests, read_source, read_train_and_test

        refuse_inside(out, source, test)
        refuse_existing(out)
        settings = MaskSettings(
            image_size, patch_size, kind, mask_ratio, seed, interpolation, compress
        )
        names = None if classes is None else read_classes(classes)
        if test_share == 0 and test is None:
            sets = [read_source(source, "train", on_error, classes=names, workers=workers)]
            if left_out := left_out_tests(source):
                console.print(left_out, highlight=False, markup=False, soft_wrap=True)
        else:
            sets = list(
                read_train_and_test(
                    source, test, test_share, seed, on_error, names, workers=workers
                )
            )
        for data in sets:
            check_names(data.class_names, data.source)
        with image_progress(console, "Masking images", sum(map(len, sets))) as advance:
            if len(sets) == 1:
                metas = [write_masked(sets[0], out, settings, workers=workers, advance=advance)]
            else:
                train, held = sets
                metas = list(
                    write_masked_splits(
                        train, held, out, settings, workers=workers, advance=advance
                    )
                )
        console.print(masked_summary(out, metas), highlight=False, soft_wrap=True)
        print_skipped(console, list(dict.fromkeys(s for data in sets for s in data.skipped)))
