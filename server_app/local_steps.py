"""How many optimizer steps a client takes in a round, where ``local-epochs`` decides.

They are counted once a run, from what the clients told of their data, and are the same for every
client and every strategy: a slice belongs to one client in a round, and should not be trained less
because that client has little data. They follow from the median client, so that one client that
lies about its data cannot drive the work of all others up. Of two clients the one with less data
decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from statistics import median_low

from flower_ist.grids.clients import Client
from flower_ist.wire.reported import finite
from server_app.settings import Settings, SettingsError
from server_app.strategies import CLOSED_FORM

_log = logging.getLogger("flwr")


def steps_of_epochs(epochs: float, examples: Sequence[float], batch_size: int) -> int:
    """Return the steps in which the median client passes over its examples so many times.

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
        clients: all that were met. One that told no number of examples, or one that no reply may
            have (``max-examples``), has no part in the median.

    Raises:
        SettingsError: no client told how many examples it has.
    """
    if settings.local_steps or settings.strategy in CLOSED_FORM:
        return settings.local_steps
    told = (finite(client.facts.get("num-examples")) for client in clients)
    examples = [count for count in told if count and 1 <= count <= settings.max_examples]
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
