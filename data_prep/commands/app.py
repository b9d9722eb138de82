"""The commands of ``python -m data_prep``, which ``flower-ist`` has too."""

from __future__ import annotations

from data_prep.commands.demo import demo_tokens
from data_prep.commands.inspect import inspect
from data_prep.commands.mask import mask
from data_prep.commands.prep import prep
from data_prep.commands.pretrain import pretrain
from data_prep.commands.probe import probe, probe_pixels
from flower_ist.command_group import Commands

app = Commands("Turn images into token shards for flower-ist, and judge the tokens.")
for command in (prep, mask, inspect, pretrain, demo_tokens, probe, probe_pixels):
    app.later()(command)
