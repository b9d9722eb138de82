"""When a device is awake, for devices that only wake to train: "10 min every 6 h"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flower_ist.errors import FlowerIstError

_DUTY = re.compile(r"\s*(\d+)\s*(min|h)\s+every\s+(\d+)\s*(min|h)\s*")
_SECONDS = {"min": 60, "h": 3600}
_HOUR, _DAY = 3600, 86400


class DutyError(FlowerIstError):
    """A device cannot be awake at such times."""


@dataclass(frozen=True)
class Duty:
    """All devices wake at the same times, or they would never meet in a round.

    Attributes:
        awake: seconds.
        calendar: when it begins, as systemd's ``OnCalendar`` has it, in UTC.
    """

    awake: int
    calendar: str


def parse_duty(text: str) -> Duty:
    """Return the duty that a text like ``10 min every 6 h`` describes.

    Raises:
        DutyError: it describes none, or none that divides the hour or the day evenly.
    """
    if (found := _DUTY.fullmatch(text)) is None:
        raise DutyError(f"{text!r} is no duty: give one like '10 min every 6 h'.")
    awake = int(found[1]) * _SECONDS[found[2]]
    period = int(found[3]) * _SECONDS[found[4]]
    if not 0 < awake < period:
        raise DutyError(f"{text!r}: a device must be awake for less than the time between two.")
    if period < _HOUR and _HOUR % period == 0:
        return Duty(awake, f"*-*-* *:00/{period // 60}:00 UTC")
    if period % _HOUR == 0 and _DAY % period == 0:
        hours = "00" if period == _DAY else f"00/{period // _HOUR}"
        return Duty(awake, f"*-*-* {hours}:00:00 UTC")
    raise DutyError(
        f"{text!r}: devices meet only if the hour or the day is divided evenly, for instance by "
        "10, 15, 20 or 30 min, or by 1, 2, 3, 4, 6, 8, 12 or 24 h."
    )
