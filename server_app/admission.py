"""Which clients a run begins with, and why one cannot take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from flower_ist.grids.clients import Client, ClientRegistry, await_nodes
from flower_ist.tokens.class_names import class_difference
from flower_ist.tokens.meta import encoder_settings, unlike_settings
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.reported import client_text
from server_app.settings import Settings, SettingsError


def meet_clients(
    grid: Grid, registry: ClientRegistry, check: Callable[[Client], str], settings: Settings
) -> list[Client]:
    """Wait for the clients that a run needs, ask all that are there for their facts, check them.

    Args:
        grid: to the clients.
        registry: that they are written into.
        check: returns why a client cannot take part, or an empty text.
        settings: how many are needed, and how long to wait for them.

    Returns:
        All that were met, also those that gave no answer.

    Raises:
        TooFewClientsError: fewer are connected than are needed.
        SettingsError: as :func:`check_clients` does.
    """
    needed = max(settings.min_available_nodes, settings.min_train_nodes)
    clients = registry.meet(grid, await_nodes(grid, needed, settings.node_timeout))
    check_clients(clients, check, needed)
    return clients


def check_clients(clients: Sequence[Client], check: Callable[[Client], str], needed: int) -> None:
    """Refuse to start with clients that are not set up right, or with too few of them.

    A client that gives no answer at all is left out of the run instead.

    Args:
        clients: all that were met.
        check: returns why a client cannot take part, or an empty text.
        needed: number of clients.

    Raises:
        SettingsError: ``check`` has a reason against a client (its shard could not be opened, its
            tokens are of another kind than the server's), or fewer than ``needed`` answered.
    """
    silent = [client.name for client in clients if client.silent]
    for client in clients:
        reason = check(client)
        if reason and not client.silent:
            raise SettingsError(f"{client.name} is not ready: {reason}.")
    if len(clients) - len(silent) < needed:
        raise SettingsError(
            f"{needed} clients are needed, but only {len(clients) - len(silent)} are ready: "
            f"{', '.join(silent)} gave no answer in time."
        )


def why_not(client: Client, shard: TokenShard) -> str:
    """Return why a client cannot take part: its own problem, or tokens of another kind."""
    if client.problem:
        return client.problem
    expected: Mapping[str, Any] = {
        "token-dim": shard.meta.dim,
        "class-names": list(shard.meta.class_names),
        "encoder-sha256": shard.meta.encoder.weights_sha256,
        "encoder-settings": encoder_settings(shard.meta.encoder),
    }
    for fact, value in expected.items():
        told = client.facts.get(fact, value)
        if told == value:
            continue
        if isinstance(told, list) and fact == "class-names":
            names = [str(name) for name in told]
            difference = class_difference(names, value, "the client", "the server")
            return (
                f"its classes are not the server's: {difference}; encode the client's images again "
                "with flower-ist prep --classes FILE, where FILE is the classes.json that prep "
                "wrote beside the server's shards"
            )
        if isinstance(told, str) and fact == "encoder-settings":
            found, wanted = unlike_settings(told, value)
            return (
                f"it holds tokens made with {client_text(found)}, but the server's were made with "
                f"{wanted}: encode both with the same settings"
            )
        return (
            f"it holds tokens with {fact} {client_text(repr(told))}, but the server's shard has "
            f"{value!r}: encode both with the same encoder and classes"
        )
    return ""
