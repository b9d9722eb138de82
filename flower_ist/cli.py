"""``flower-ist``: a function for each command, which imports what it needs when it is called."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flower_ist.command_group import Commands, ManyValues
from flower_ist.console import say, terminal
from flower_ist.deploy.command import app as deployment
from flower_ist.errors import ArgumentError

app = Commands(
    "Independent Subnetwork Training on masked ViT tokens with Flower, all messages counted."
)

DATA_PREP_COMMANDS = {
    "prep": "Encode masked images into token shards.",
    "mask": "Store the kept patches of images, to be encoded elsewhere.",
    "inspect": "Show and check token shards.",
    "pretrain": "Train an encoder on images without labels.",
    "probe": "Print the test accuracy of a linear probe on tokens.",
}
"""Commands that run where the images are; their options are those of ``python -m data_prep``."""

USE_COMMANDS = {
    "predict": "Classify images, or a token shard, with a run's model.",
    "evaluate": "Measure a run's model on labeled shards or images.",
    "export": "Write a run's model as one file for onnxruntime or torch.",
}
"""Commands that use a run's model."""


@app.later()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's runs.")] = Path("demo-out"),
    strategies: Annotated[
        str, typer.Option(help="Strategies to run, with commas between them.")
    ] = "ist,fedavg-narrow,fedavg",
    clients: Annotated[int, typer.Option(min=1, help="Number of virtual clients.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Server rounds of each run.")] = 10,
) -> None:
    """Train on the embedded Fashion-MNIST tokens with real 'flwr run' simulations.

    Runs IST, FedAvg on a net as narrow as a slice, and FedAvg on the whole net with the same
    clients, and ends with a table and a plot of accuracy against bytes. It starts a SuperLink of
    its own and ends it; nothing is downloaded. Without Ray the clients take turns in one process.
    """
    from flower_ist.compare.demo import run_demo

    run_demo(out, strategies.split(","), clients, rounds, terminal())


@app.later("app")
def print_app() -> None:
    """Print the folder of this project's Flower app, for flwr run "$(flower-ist app)"."""
    from flower_ist.runs.app_import import find_app

    say(str(find_app()))


@app.later()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or run.jsonl files.")],
    output: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="How to print.")
    ] = "table",
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against bytes into this file.")
    ] = None,
) -> None:
    """Summarize runs: bytes on the wire, input bytes saved, accuracy.

    RUNS are folders that a run wrote, or the run.jsonl files in them.
    """
    from flower_ist.runs import report as reports
    from flower_ist.runs.device_bytes import device_table
    from flower_ist.runs.log import read_run

    summaries = [reports.summarize(run) for run in runs]
    if plot is not None:
        reports.plot(runs, plot)
    if output == "table":
        terminal().print(reports.to_table(summaries))
        for run, summary in zip(runs, summaries, strict=True):
            if (paid := device_table(summary.name, read_run(run))) is not None:
                terminal().print(paid)
    else:
        text = reports.to_json if output == "json" else reports.to_csv
        say(text(summaries), nl=output == "json")


@app.later()
def watch(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    once: Annotated[bool, typer.Option("--once", help="Show them as they are and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two updates.")] = 1.0,
) -> None:
    """Show runs live until they end: rounds, accuracy, bytes, clients that failed, time left.

    One run is shown in full, several with a line each. Exit code 1 if one has failed.
    """
    from flower_ist.runs.watch.table import watch as watch_runs

    try:
        good = watch_runs(runs, terminal(), once=once, every=every)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not good:
        raise typer.Exit(1)


@app.later()
def track(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[str, typer.Option(help="tensorboard, wandb or mlflow.")],
    follow: Annotated[bool, typer.Option("--follow", help="Continue until the run ends.")] = False,
    project: Annotated[
        str, typer.Option(help="Project of W&B, experiment of MLflow.")
    ] = "flower-ist",
    per_client: Annotated[
        bool, typer.Option("--per-client", help="Include the bytes of each client.")
    ] = False,
) -> None:
    """Send a run's numbers to TensorBoard, W&B or MLflow; a round is never sent twice.

    TensorBoard's event file is written into the run folder: tensorboard --logdir RUN.
    """
    from flower_ist.runs.track import track as send

    try:
        send(run, to, follow=follow, project=project, per_client=per_client, tell=say)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.later("compare", cls=ManyValues)
def compare_strategies(
    out: Annotated[
        Path, typer.Option(help="Folder of the comparison; the same command continues it.")
    ],
    app_folder: Annotated[
        Path | None,
        typer.Option("--app", help="Folder of the Flower app.", show_default="this project's own"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of shards.", show_default="the embedded demo tokens"),
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies, with commas between them.")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, help="Clients.", show_default="4")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds.", show_default="10")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each strategy.", show_default="3")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="inprocess, or flwr for real runs.", show_default="inprocess")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time.", show_default="one a core")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Settings to tune: local-steps=20,80 learning-rate=0.001,0.01."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Settings of all runs: hidden-width=256.")
    ] = None,
    capacity: Annotated[
        str | None, typer.Option(help="Share of the neurons that each client holds: 0.5,0.25,...")
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="0 to 1.", show_default="FedAvg's best - 0.005"),
    ] = None,
    plain: Annotated[
        bool | None,
        typer.Option("--plain", help="Each strategy as it was published, without the recipe."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Find the best run within these bytes of all clients: 2MB.", show_default=False
        ),
    ] = None,
    budget_per_client: Annotated[
        str | None,
        typer.Option(help="The same for the bytes of each client: 500kB.", show_default=False),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Find the fewest bytes to this validation accuracy: 0.7."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Repeat the comparison in this folder.")
    ] = None,
) -> None:
    """Compare strategies on the same shards, seeds, evaluation and byte meter.

    Each run has a process and a folder of its own. After Ctrl-C or a kill, the same command
    continues. The result is tables, CSV, JSON, pictures and a report in one HTML file.

    With --budget, --budget-per-client or --target it searches a grid of strategies, widths, wire
    dtypes and rounds instead, and ends with the flwr run command of the best.
    """
    from flower_ist.compare.command import compare
    from flower_ist.compare.planning import make_plan, repeated_plan
    from flower_ist.compare.search import search

    options = {
        "app": app_folder,
        "data": data,
        "strategies": strategies,
        "clients": clients,
        "rounds": rounds,
        "seeds": seeds,
        "engine": engine,
        "settings": settings,
        "sweep": sweep,
        "capacity": capacity,
        "target_accuracy": target_accuracy,
        "plain": plain,
        "budget": budget,
        "budget_per_client": budget_per_client,
        "target": target,
    }
    given: dict[str, Any] = {
        name: value for name, value in options.items() if value not in (None, [])
    }
    if source is not None and given:
        raise ArgumentError("--from repeats a comparison as it is: give only --out beside it.")
    plan = make_plan(**given) if source is None else repeated_plan(source)
    if not (search if plan.searches else compare)(plan, out, terminal(), jobs):
        raise typer.Exit(1)


@app.later()
def drop(
    shard: Annotated[Path, typer.Argument(help="Folder of a token shard.")],
    image_ids: Annotated[list[int], typer.Argument(help="Ids of images.")],
) -> None:
    """Take images out of a token shard, by their ids, as their owner wishes.

    The shard is replaced in one step. A client sees it in its next message, and the server's
    statistics are without the images from the next run on.
    """
    from flower_ist.files import restore_folder
    from flower_ist.tokens.edit import drop as drop_images

    restore_folder(shard)
    say(f"{drop_images(shard, image_ids)} examples are dropped from {shard}.")


@app.later()
def epsilon(
    run: Annotated[Path | None, typer.Argument(help="A run's folder or its run.jsonl.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise in multiples of the clip; else the run's own.")
    ] = None,
    replies: Annotated[int, typer.Option(help="Replies of one client, without a run.")] = 1,
    delta: Annotated[float, typer.Option(help="Chance with which the bound may fail.")] = 1e-5,
) -> None:
    """Print the epsilon that a run has spent after each round, or that some replies would spend."""
    from flower_ist.runs.privacy_budget import plan_table, run_table

    terminal().print(
        run_table(run, noise, delta) if run else plan_table(noise or 0.0, replies, delta)
    )


app.add_typer(deployment, name="deploy")

for _name, _summary in USE_COMMANDS.items():
    app.elsewhere(_name, _summary, f"flower_ist.use.commands:{_name}")

for _name, _summary in DATA_PREP_COMMANDS.items():
    # Imported when called: it needs libraries that no training needs.
    app.elsewhere(_name, _summary, f"data_prep.commands.{_name}:{_name}")

# What the imports made stays: without this, every collection while a help text is drawn looks
# through it again, a tenth of the time of `prep --help`.
gc.freeze()
