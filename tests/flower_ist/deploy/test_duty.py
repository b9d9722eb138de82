"""Devices that only wake to train wake at the same times."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from flower_ist.deploy.duty import Duty, DutyError, parse_duty

DUTIES = {
    "10 min every 6 h": Duty(600, "*-*-* 00/6:00:00 UTC"),
    "2 h every 24 h": Duty(7200, "*-*-* 00:00:00 UTC"),
    "5min every 30min": Duty(300, "*-*-* *:00/30:00 UTC"),
    "1 h every 120 min": Duty(3600, "*-*-* 00/2:00:00 UTC"),
}


@pytest.mark.parametrize(("text", "duty"), DUTIES.items())
def test_a_duty_is_a_time_and_a_calendar(text: str, duty: Duty) -> None:
    assert parse_duty(text) == duty


@pytest.mark.parametrize(
    "text",
    [
        *("", "often", "10 min", "10 min every", "6 h every 10 min", "6 h every 6 h"),
        *("0 min every 1 h", "10 min every 7 h", "1 min every 7 min", "10 s every 1 h"),
        *("10 min every 48 h", "10 min every 90 min", "-1 h every 6 h", "1 h every 6 h\nX=1"),
    ],
)
def test_what_is_no_duty_is_refused(text: str) -> None:
    with pytest.raises(DutyError, match=r"no duty|less than|divided evenly"):
        parse_duty(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
@pytest.mark.parametrize("duty", DUTIES.values())
def test_systemd_understands_the_calendar(duty: Duty) -> None:
    subprocess.run(["systemd-analyze", "calendar", duty.calendar], check=True, capture_output=True)
