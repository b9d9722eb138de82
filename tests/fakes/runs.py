"""A run log of two rounds, written by hand, and what a report must make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flower_ist.runs.log import RunLog
from flower_ist.runs.report import RunSummary

PNG = b"\x89PNG\r\n\x1a\n"
EMPTY = {
    "strategy": "ist",
    "wire_bytes_down": 0,
    "wire_bytes_up": 0,
    "image_bytes": 0,
    "masked_image_bytes": 0,
    "token_bytes": 0,
    "full_model_bytes": 5_000_000,
    "clients_selected": 0,
    "clients_failed": 0,
    "message_types": {},
}
TRAIN_1 = {"train": {"wire_bytes_down": 4_000_000, "wire_bytes_up": 3_000_000}}
TRAIN_2 = {"train": {"wire_bytes_down": 4_000_000, "wire_bytes_up": 1_000_000}}
ROUNDS: list[dict[str, Any]] = [
    {"round": 0, "accuracy": 0.1, **EMPTY, "wire_bytes_down": 1000, "wire_bytes_up": 2000},
    {
        "round": 1,
        "accuracy": 0.875,
        **EMPTY,
        "wire_bytes_down": 4_000_000,
        "wire_bytes_up": 3_000_000,
        "image_bytes": 6000,
        "masked_image_bytes": 2500,
        "token_bytes": 300,
        "clients_selected": 2,
        "message_types": TRAIN_1,
    },
    {
        "round": 2,
        "accuracy": 0.75,
        **EMPTY,
        "wire_bytes_down": 4_000_500,
        "wire_bytes_up": 1_000_500,
        "image_bytes": 2000,
        "masked_image_bytes": 1500,
        "token_bytes": 100,
        "clients_selected": 2,
        "clients_failed": 1,
        "message_types": TRAIN_2,
    },
]
SUMMARY = RunSummary(
    name="by-hand",
    strategy="ist",
    rounds=2,
    wire_bytes_down=8_001_500,
    wire_bytes_up=4_002_500,
    # 7 MB and 5 MB of train messages over 2 + 2 clients asked.
    bytes_per_client_round=3_000_000.0,
    # 12 MB where 4 clients would have got and sent 5 MB each: 1 - 12 / 40.
    model_saved=0.7,
    # 1 - 4000 / 8000, and 400 / 8000.
    input_saved=0.5,
    token_share=0.05,
    best_accuracy=0.875,
    # 3000 of round 0 and 7 MB of round 1.
    best_after_bytes=7_003_000,
    final_accuracy=0.75,
    failed=1,
)


def write_run(folder: Path, rounds: list[dict[str, Any]] = ROUNDS) -> Path:
    log = RunLog(folder)
    for line in rounds:
        log.append(line)
    return folder
