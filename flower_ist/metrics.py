"""Weighted means of what clients report, for reports that nobody controls."""

from __future__ import annotations

import math
from typing import Any

from flwr.app import MetricRecord, RecordDict


def mean_metrics(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """Average the clients' metrics, weighted by examples.

    Unlike Flower's own function this never fails: a metric counts where it is one finite number,
    and clients that lack it are left out of its mean.

    Args:
        contents: replies that were judged good.
        weighted_by_key: the metric that holds the weights; it is not averaged itself.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for content in contents:
        metrics = next(iter(content.metric_records.values()))
        weight = finite(metrics.get(weighted_by_key)) or 0.0
        for key, value in metrics.items():
            number = finite(value)
            if key != weighted_by_key and number is not None:
                sums[key] = sums.get(key, 0.0) + weight * number
                weights[key] = weights.get(key, 0.0) + weight
    return MetricRecord({key: sums[key] / weights[key] for key in sums if weights[key] > 0})


def finite(value: Any) -> float | None:
    """Return a value as float if it is one finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
