"""What an import brings along, each in a process of its own."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer

import flower_ist
from data_prep.commands.app import app as data_prep
from flower_ist import cli
from tests.fakes import ROOT


def loaded(code: str, parts: int = 1) -> set[str]:
    """Run imports in a new process and return the names of all modules it then has.

    Of each name only the first ``parts``: packages alone by default.
    """
    code += f"\nimport sys; print(*{{'.'.join(n.split('.')[:{parts}]) for n in sys.modules}})"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_index_maths_shards_and_logs_need_neither_flwr_nor_torch():
    names = (
        *("submodels.partition", "submodels.schemes", "submodels.cut", "submodels.axes"),
        *("statistics.sums", "tokens.shard", "tokens.meta", "tokens.writer", "runs.log"),
    )
    modules = loaded("\n".join(f"import flower_ist.{name}" for name in names))
    assert {"flower_ist", "numpy"} <= modules
    assert not modules & {"flwr", "torch", "ray", "timm", "torchvision", "matplotlib"}


def commands(command: click.Command, *words: str) -> Iterator[str]:
    """Yield all that can be typed: the program alone, each command, each command of a command."""
    yield " ".join(words)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, *words, name)


COMMANDS = {
    home: list(commands(typer.main.get_command(app)))
    for home, app in {"flower_ist.cli": cli.app, "data_prep.commands.app": data_prep}.items()
}


def test_all_commands_are_tested():
    assert {"", "compare", "deploy init", "epsilon", "prep"} <= set(COMMANDS["flower_ist.cli"])
    assert {"", "prep", "mask", "probe"} <= set(COMMANDS["data_prep.commands.app"])


@pytest.mark.parametrize(
    ("home", "words"), [(home, words) for home, all_ in COMMANDS.items() for words in all_]
)
def test_help_comes_without_what_the_command_needs(home: str, words: str):
    modules = loaded(
        "from contextlib import redirect_stdout, suppress\n"
        "import os, sys\n"
        f"from {home} import app\n"
        "with open(os.devnull, 'w') as null, redirect_stdout(null), suppress(SystemExit):\n"
        f"    app({[*words.split(), '--help']})"
    )
    assert {"typer", "rich", "flower_ist"} <= modules
    assert not modules & {"flwr", "torch", "timm", "matplotlib", "jinja2", "ray", "numpy"}


def test_the_library_stands_alone():
    """Every module of it, the command line included, but what reads a user's own torch module."""
    modules = loaded(
        "import importlib, pkgutil, flower_ist\n"
        "for module in pkgutil.walk_packages(flower_ist.__path__, 'flower_ist.'):\n"
        "    if not module.name.startswith('flower_ist.modules'):\n"
        "        importlib.import_module(module.name)"
    )
    assert "flwr" in modules
    assert not modules & {"client_app", "server_app", "data_prep", "torch", "timm", "matplotlib"}


def test_the_apps_need_no_encoder_and_no_torch():
    modules = loaded("import client_app.app, server_app.app")
    assert {"client_app", "server_app", "flower_ist"} <= modules
    assert not modules & {"data_prep", "torch", "timm", "torchvision", "PIL", "matplotlib"}


def test_a_client_serves_a_round_with_flwr_numpy_and_threadpoolctl():
    """Facts, statistics, a training round and an evaluation, on the demo's tokens."""
    code = """
from flwr.app import ConfigRecord, Context, Message, RecordDict
from client_app.app import app
from flower_ist.classifier.mlp import initial_weights
from flower_ist.wire._flwr import TaskIdentity
from flower_ist.wire.record_tensors import record_of

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
context = Context(1, 2, {"partition-id": 0, "num-partitions": 4}, RecordDict(), {})
config = {"server-round": 1, "local-steps": 3, "batch-size": 8, "learning-rate": 0.01, "seed": 0}
sums = {"statistics": "class-sums-and-gram", "statistics-dtype": "int16"}
net = record_of(initial_weights([128, 8, 10], 0))
for kind, records in (
    ("query", {}),
    ("query.statistics", {"config": ConfigRecord(sums)}),
    ("train", {"config": ConfigRecord(config), "arrays": net}),
    ("evaluate", {"arrays": net}),
):
    reply = app(Message(RecordDict(records), 2, kind), context)
    assert not reply.has_error(), reply.error
"""
    modules = loaded(code, parts=2)
    assert {"flwr", "numpy", "threadpoolctl", "client_app.app"} <= modules
    assert not modules & {"torch", "matplotlib", "ray", "safetensors", "data_prep", "server_app"}
    rooms = ("cli", "compare", "deploy", "grids", "modules", "runs", "strategies")
    assert not modules & {f"flower_ist.{room}" for room in rooms}


def test_what_an_app_tells_of_its_settings_needs_neither_flwr_nor_torch():
    modules = loaded("import server_app.usage, flower_ist.compare.plan")
    assert {"server_app", "pydantic"} <= modules
    assert not modules & {"flwr", "torch", "client_app", "data_prep", "matplotlib"}


def test_a_module_of_one_s_own_without_torch_is_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        flower_ist.FlowerIstError, match=r"needs torch: pip install 'flower-ist\[torch\]'\.$"
    ):
        importlib.reload(importlib.import_module("flower_ist.modules"))


def test_public_names_are_loaded_on_demand():
    modules = loaded("from flower_ist import Axes, TokenShard, read_run\nassert Axes.declare")
    assert not modules & {"flwr", "torch"}
    for name in flower_ist.__all__:
        assert getattr(flower_ist, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = flower_ist.nonsense
