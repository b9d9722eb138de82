"""Which clients a run begins with, why a client cannot take part, and how long each trains.

With ``local-epochs``, the steps of a round are computed once per run from what the clients reported
about their data. They are the same for every client and every strategy: a slice belongs to one
client in a round, and should not be trained less because that client has little data. They follow
from the median client, so that one client that lies about its data cannot increase the work of all
others. With two clients, the one with less data decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median_low
from typing import Any

from flwr.serverapp import Grid

from flower_ist.grids.clients import Client, ClientRegistry, await_nodes
from flower_ist.tokens.class_names import class_difference
from flower_ist.tokens.meta import encoder_settings, unlike_settings
from flower_ist.tokens.shard import TokenShard
from flower_ist.wire.protocol import MAX_EXAMPLES
from flower_ist.wire.reported import client_text, finite
from server_app.settings import Settings, SettingsError
from server_app.strategies import CLOSED_FORM

_PAUSE_SECONDS = 5.0

_log = logging.getLogger("flwr")


def meet_clients(
    grid: Grid, registry: ClientRegistry, check: Callable[[Client], str], settings: Settings
) -> list[Client]:
    """Wait for the clients that a run needs, ask all connected ones for their facts, check them.

    Args:
        grid: to the clients.
        registry: records the clients.
        check: returns why a client cannot take part, or an empty string.
        settings: how many are needed, and how long to wait for them.

    Returns:
        The clients that are ready. The others are left out of the run.

    Raises:
        TooFewClientsError: fewer are connected than are needed.
        SettingsError: as :func:`ready_clients` does.
    """
    needed = max(settings.min_available_nodes, settings.min_train_nodes)
    deadline = time.monotonic() + settings.node_timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        clients = registry.meet(grid, await_nodes(grid, needed, left))
        try:
            return ready_clients(clients, check, needed)
        except SettingsError as err:
            # One that cannot take part may be there first; those that can are still to come.
            if left == 0.0:
                raise
            _log.warning("Waiting for other clients: %s", err)
        time.sleep(min(_PAUSE_SECONDS, left))


def ready_clients(
    clients: Sequence[Client], check: Callable[[Client], str], needed: int
) -> list[Client]:
    """Return the clients that can take part; one that cannot stops the run only where too few can.

    Args:
        clients: all that were met.
        check: returns why a client cannot take part, or an empty string.
        needed: number of clients.

    Raises:
        SettingsError: fewer than ``needed`` are ready. It says of each what is wrong: it gave no
            answer, its shard could not be opened, its tokens are of another kind than the server's.
    """
    reasons = {client.name: check(client) for client in clients}
    ready = [client for client in clients if not reasons[client.name]]
    if len(ready) >= needed:
        return ready
    silent = [client.name for client in clients if client.silent]
    if len(ready) + len(silent) < len(clients):
        found = [f"{name} is not ready: {reason}" for name, reason in reasons.items() if reason]
        raise SettingsError("; ".join(found) + ".")
    raise SettingsError(
        f"{needed} clients are needed, but only {len(ready)} are ready: "
        f"{', '.join(silent)} gave no answer in time."
    )


def rejection_reason(client: Client, shard: TokenShard) -> str:
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
            differ = client_text(unlike_settings(value, told))
            return f"its tokens were not made as the server's ({differ}): encode both alike"
        return (
            f"it holds tokens with {fact} {client_text(repr(told))}, but the server's shard has "
            f"{value!r}: encode both with the same encoder and classes"
        )
    return ""


def steps_of_epochs(epochs: float, examples: Sequence[float], batch_size: int) -> int:
    """Return the number of steps in which the median client makes ``epochs`` passes over its data.

    ``max(1, round(epochs * median(examples) / batch_size))``. Of an even number of clients the
    smaller one of the two in the middle is the median: so one of two cannot raise it either.

    Args:
        epochs: passes; above 0, and any fraction of one.
        examples: how many each client has; at least one number.
        batch_size: examples in a step.
    """
    return max(1, round(epochs * median_low(examples) / batch_size))


def local_steps(settings: Settings, clients: Iterable[Client]) -> int:
    """Return the steps of a round, and log how they come about if ``local-epochs`` decides.

    Args:
        settings: of the run. With ``local-steps`` above 0 these are the steps; with a
            closed-form strategy nobody follows what is returned.
        clients: all that are ready. One that told no number of examples, or one that no reply may
            have (``MAX_EXAMPLES``), has no part in the median.

    Raises:
        SettingsError: no client told how many examples it has.
    """
    if settings.local_steps or settings.strategy in CLOSED_FORM:
        return settings.local_steps
    told = (finite(client.facts.get("num-examples")) for client in clients)
    examples = [count for count in told if count and 1 <= count <= MAX_EXAMPLES]
    if not examples:
        raise SettingsError(
            "'local-steps' is 0, but no client told how many examples it has, from which "
            "'local-epochs' would make steps: set 'local-steps' to the steps of a round."
        )
    steps = steps_of_epochs(settings.local_epochs, examples, settings.batch_size)
    _log.info(
        "Local steps a round: %d, %g epochs of the median client's %s examples",
        steps,
        settings.local_epochs,
        f"{median_low(examples):,.0f}",
    )
    return steps
