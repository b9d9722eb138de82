"""A JSON file that may be missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep import PrepError
from flower_ist.errors import first_line, why_unreadable


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        PrepError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise PrepError(f"{file} cannot be read: {first_line(err)}.") from err
    except (ValueError, RecursionError) as err:
        raise PrepError(f"{file} is not a JSON file: {why_unreadable(file, err)}.") from err
