"""The commands ``predict``, ``evaluate`` and ``export``: a run's model in use.

Images are read and encoded by data_prep, which needs torch and timm: it is imported when images are
given. Shards need neither.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flower_ist.console import print_bytes, say, terminal
from flower_ist.errors import ArgumentError

Model = Annotated[
    Path, typer.Argument(help="Folder of a run, or its model.safetensors.", metavar="RUN")
]
EncoderName = Annotated[
    str, typer.Option("--encoder", help="As prep's; the embedded one is found by itself.")
]
Weights = Annotated[str, typer.Option(help="As prep's.")]
Device = Annotated[str, typer.Option(help="Of the encoder: cpu, cuda or mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images encoded at once.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads that decode images ahead.")]
OnError = Annotated[
    str, typer.Option(help="At an image that cannot be read: stop, or skip and say so.")
]


def predict(
    model: Model,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Images, folders, tables with a column path, - , or one token shard."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the answers into this file.")] = None,
    form: Annotated[
        Literal["csv", "json"], typer.Option("--format", help="Of the answers.")
    ] = "csv",
    top: Annotated[int, typer.Option(min=1, help="Classes of each answer, best first.")] = 1,
    views: Annotated[int, typer.Option(min=1, help="Average over this many masks.")] = 1,
    mask_ratio: Annotated[
        float | None,
        typer.Option(help="Share of patches dropped; 0: none.", show_default="the run's"),
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(help="Answer what is put into this folder, until Ctrl-C.")
    ] = None,
    on_error: OnError = "stop",
    encoder: EncoderName = "",
    weights: Weights = "",
    device: Device = "cpu",
    batch_size: BatchSize = 64,
    workers: Workers = 2,
) -> None:
    """Classify images with a run's model; print a line for each as soon as it is known.

    IMAGES are files, folders of any depth, .csv or .parquet tables with a column path, or - for a
    list of paths on standard input. They need no labels. Each is masked, resized and encoded as
    the run's tokens were. One token shard does as well. With --watch, new files in a folder are
    answered as they appear, and --out is added to.
    """
    from flower_ist.classifier.predictor import load_classifier, recipe_of
    from flower_ist.tokens.shard import is_shard, open_shard
    from flower_ist.use import answers

    names = images or []
    if (watch is None) == (not names):
        raise ArgumentError("Give images or a shard to classify, or --watch FOLDER, not both.")
    if missing := [name for name in names if name != "-" and not os.path.lexists(name)]:
        raise ArgumentError(
            f"There is no image, folder, table or shard at {missing[0]}: check the path."
        )
    classifier = load_classifier(model)
    lines = answers.AnswerLines(form, classifier.class_names, top)
    skipped = 0

    def tell(sentence: str) -> None:
        nonlocal skipped
        skipped += 1
        say(f"Skipped: {sentence}", err=True)

    with answers.open_output(out, print_bytes, append=watch is not None) as write:
        if len(names) == 1 and is_shard(Path(names[0])):
            shard = open_shard(Path(names[0]), verify=True)
            tally = answers.write(answers.of_shard(classifier, shard), lines, write)
            summary = tally.summary
        else:
            from data_prep.stream.open import image_tokens

            tokens = image_tokens(
                recipe_of(classifier, model),
                names,
                watch,
                encoder=encoder,
                weights=weights,
                views=views,
                mask_ratio=mask_ratio,
                on_error=on_error if watch is None else "skip",
                tell=tell,
                device=device,
                batch_size=batch_size,
                workers=workers,
                # On one terminal they would be in each other's way.
                show_bar=out is not None or not sys.stdout.isatty(),
            )
            try:
                tally = answers.write(answers.of_images(classifier, tokens), lines, write)
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
            left_out = f"; {skipped} could not be read" if skipped else ""
            summary = f"{tally.images} images are answered{left_out}."
    say(summary, err=out is None)


def evaluate(
    model: Model,
    data: Annotated[
        list[str], typer.Argument(help="Token shards, or labeled images as prep takes them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the page, its pictures, CSV and JSON.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of images: test or train.")] = "test",
    mask_ratios: Annotated[
        str, typer.Option(help="Of images: also drop these shares of the patches; none for none.")
    ] = "0,0.25,0.5,0.75",
    on_error: OnError = "stop",
    encoder: EncoderName = "",
    weights: Weights = "",
    device: Device = "cpu",
    batch_size: BatchSize = 64,
    workers: Workers = 2,
) -> None:
    """Measure a run's model on labeled token shards or images.

    Prints the accuracy with its 95 % interval, precision and recall of each class, and the
    accuracy of each client where shards or a table name them. OUT gets one HTML page with the
    confusion matrix, a picture of the calibration and, of images, the accuracy against the share
    of patches that is dropped.
    """
    from flower_ist.classifier.predictor import load_classifier, recipe_of
    from flower_ist.files import refuse_existing
    from flower_ist.tokens.shard import is_shard, open_shard
    from flower_ist.use.evaluate import Labeled, labeled_shards
    from flower_ist.use.evaluate import evaluate as run
    from flower_ist.use.page import answer, tables_of, to_rich, write_report

    if out is not None:
        refuse_existing(out)
    classifier = load_classifier(model)
    if all(is_shard(Path(name)) for name in data):
        found = labeled_shards(classifier, (open_shard(Path(name), verify=True) for name in data))
    elif len(data) == 1:
        from data_prep.stream.labeled import labeled_tokens

        examples = labeled_tokens(
            recipe_of(classifier, model),
            classifier.class_names,
            data[0],
            split=split,
            mask_ratios=mask_ratios,
            tell=lambda sentence: say(sentence, err=True),
            on_error=on_error,
            encoder=encoder,
            weights=weights,
            device=device,
            batch_size=batch_size,
            workers=workers,
        )
        found = (Labeled(*example) for example in examples)
    else:
        raise ArgumentError("Give token shards, or one source of labeled images.")
    evaluation = run(classifier, found)
    measures = evaluation.measures
    for table in tables_of(evaluation):
        terminal().print(to_rich(table))
    say(f"Expected calibration error: {100 * measures.calibration_error:.2f} %.")
    say(answer(measures))
    if out is not None:
        page = write_report(evaluation, out, str(model), ", ".join(data))
        say(f"Page: {page}")


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[
        Literal["onnx", "torch"], typer.Option("--format", help="Of the file.")
    ] = "onnx",
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="From image to probabilities.")
    ] = False,
    mask: Annotated[
        Literal["drawn", "whole"],
        typer.Option(help="With the encoder: one drawn mask for all images, or none."),
    ] = "drawn",
    part: Annotated[
        str, typer.Option("--slice", help="k/K: one slice as a small net of its own.")
    ] = "",
    quantize: Annotated[Literal["int8"] | None, typer.Option(help="Of ONNX.")] = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="Token shard to print the file's accuracy on.")
    ] = None,
    encoder: EncoderName = "",
    weights: Weights = "",
) -> None:
    """Write a run's model as one file for onnxruntime or torch, without this package.

    The file is the head, from token to probabilities, with standardization and the fixed head
    folded in; or, with the encoder, all from image to probabilities. Class names, mask and encoder
    stand in its metadata.
    """
    from flower_ist.classifier.predictor import load_classifier, recipe_of
    from flower_ist.tables import percent
    from flower_ist.tokens.shard import open_shard
    from flower_ist.use.evaluate import evaluate, labeled_shards
    from flower_ist.use.export import ExportSettings, accuracy_of_file
    from flower_ist.use.export import export as write

    classifier = load_classifier(model)
    shards = [open_shard(path, verify=True) for path in test or []]
    if shards and with_encoder:
        raise ArgumentError("A file that reads images has no accuracy on tokens: leave out --test.")
    settings = ExportSettings(
        form=form,
        part=part,
        with_encoder=with_encoder,
        whole=mask == "whole",
        quantize=quantize or "",
    )
    recipe = recipe_of(classifier, model)
    head = write(classifier, recipe, out, settings, encoder=encoder, weights=weights)
    say(f"{out}: {out.stat().st_size:,} bytes.")
    if shards:
        found = accuracy_of_file(out, settings.form, head, classifier, shards)
        whole = evaluate(classifier, labeled_shards(classifier, shards)).measures.accuracy
        say(
            f"{percent(found.value)} % of {found.examples} examples are right; of the whole "
            f"model's answers {percent(whole.value)} %."
        )
