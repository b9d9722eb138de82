"""Rounds in which too many clients are silent: how long they are waited for.

Devices that wake only to train (``flower-ist deploy init --duty``) fall asleep in the middle of a
round, perhaps all at once. Such a round changes nothing, and the next one waits until enough
clients are there again. What a client says, even that it failed, is no silence.
"""

from __future__ import annotations

import logging
import time

_log = logging.getLogger("flwr")


class SilentRounds:
    """Tell whether a round without enough replies is waited out, or ends the run.

    Args:
        seconds: since the last round with enough replies, or since the first one began, after which
            it ends the run; 0: at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._heard: float | None = None

    def begin(self) -> None:
        """A round begins."""
        if self._heard is None:
            self._heard = time.monotonic()

    def waits(self, server_round: int, good: int, needed: int, silent: int) -> bool:
        """Return whether a round that is over had too few good replies, and training goes on.

        Args:
            server_round: its number, for the log.
            good: how many replies were good.
            needed: how many must be, at least 1.
            silent: how many clients were asked and not heard of.
        """
        now = time.monotonic()
        if good >= needed:
            self._heard = now
            return False
        left = self._seconds - (now - (now if self._heard is None else self._heard))
        if good + silent < needed or left <= 0:
            return False
        _log.warning(
            "Round %d changes nothing: %d good replies are too few, and %d clients are silent. "
            "They are waited for; a round without enough replies ends the run in %.0f s.",
            *(server_round, good, silent, left),
        )
        return True
