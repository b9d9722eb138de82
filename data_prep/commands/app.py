"""The commands of ``python -m data_prep``, which ``flower-ist`` has too."""

from __future__ import annotations

import typer

from data_prep.commands.demo import demo_tokens
from data_prep.commands.inspect import inspect
from data_prep.commands.mask import mask
from data_prep.commands.prep import prep
from data_prep.commands.pretrain import pretrain
from data_prep.commands.probe import probe, probe_pixels

app = typer.Typer(
    help="Turn images into token shards for flower-ist, and judge the tokens.",
    no_args_is_help=True,
    add_completion=False,
    # Their values may be whole arrays.
    pretty_exceptions_show_locals=False,
)
for command in (prep, mask, inspect, pretrain, demo_tokens, probe, probe_pixels):
    app.command()(command)
