"""``flower-ist deploy``: init, connect, renew and demo-shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flower_ist.command_group import Commands
from flower_ist.console import say

DEVICE_SHARD = "/var/lib/flower-ist/shard"
"""Where a device keeps its shard by default."""

app = Commands(
    "Set up a federation of devices with TLS and authenticated nodes: docs/deploying.md."
)


@app.later()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    nodes: Annotated[int, typer.Option(min=1, help="Number of devices; keys cost nothing.")],
    host: Annotated[
        list[str],
        typer.Option(help="Server's name or IP address, again for more; devices use the first."),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="That devices connect to.")] = 9092,
    control_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="For the operator, on the server only.", show_default="port + 1"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Shard's path on each device, {node} for its number.", show_default=DEVICE_SHARD
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(help="Instead of --data: a folder on this machine with client-0, client-1..."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the connection in Flower's config.")] = "edge",
    flower_version: Annotated[
        str | None, typer.Option(help="Of all machines.", show_default="the installed one")
    ] = None,
    duty: Annotated[
        str,
        typer.Option(help='For devices that only wake to train, like "10 min every 6 h".'),
    ] = "",
) -> None:
    """Write certificates, keys, scripts, units and compose files for a federation.

    Nothing is overwritten: the folder must be new.
    """
    from importlib.metadata import version

    from flower_ist.deploy.plan import DeployError, DeploymentPlan, pattern_paths, shard_paths
    from flower_ist.deploy.writer import write_deployment

    if data is not None and shards is not None:
        raise DeployError("Give either --data or --shards: both say where the shards are.")
    plan = DeploymentPlan(
        hosts=tuple(host),
        node_data=pattern_paths(data or DEVICE_SHARD, nodes)
        if shards is None
        else shard_paths(shards, nodes),
        port=port,
        control_port=port + 1 if control_port is None else control_port,
        name=name,
        flower_version=flower_version or version("flwr"),
        duty=duty,
    )
    write_deployment(plan, folder)
    say(f"Wrote {folder}: its README.md says what goes where. Devices connect to {plan.address}.")


@app.later()
def connect(
    folder: Annotated[Path, typer.Argument(help="Folder that 'deploy init' wrote.")],
) -> None:
    """Tell Flower's commands on this machine where the SuperLink is; twice does no harm."""
    from flower_ist.deploy import connection

    config = connection.config_file()
    changed = connection.connect(folder, config)
    say(f"The connection {'was added to' if changed else 'is in'} {config}.")


@app.later()
def renew(
    folder: Annotated[Path, typer.Argument(help="Folder that 'deploy init' wrote.")],
) -> None:
    """Make a new key and certificate for the server; the devices stay as they are."""
    from flower_ist.deploy.writer import renew_server_certificate

    last_day = renew_server_certificate(folder)
    say(
        f"Wrote {folder}/superlink/server.crt and server.key, good until {last_day}: copy both to "
        "the server and start its two programs again."
    )


@app.later()
def demo_shards(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    nodes: Annotated[int, typer.Option(min=1, help="Number of clients.")],
) -> None:
    """Write the embedded demo tokens as shards, to rehearse with."""
    from flower_ist.files import new_folder
    from flower_ist.tokens import demo
    from flower_ist.tokens.shard import client_folder, test_folder
    from flower_ist.tokens.writer import ShardWriter

    shards = [demo.train_shard(client, nodes) for client in range(nodes)]
    with new_folder(folder) as unfinished:
        folders = (*(client_folder(unfinished, n) for n in range(nodes)), test_folder(unfinished))
        for path, shard in zip(folders, (*shards, demo.test_shard()), strict=True):
            with ShardWriter(path, shard.meta) as writer:
                writer.append_shard(shard)
    say(f"Wrote client-0 to client-{nodes - 1} and test to {folder}.")
