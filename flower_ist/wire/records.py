"""The records of one kind in a message's content.

``RecordDict.array_records`` and its sisters give the same, but each access makes an object that
refers to itself and to the content. Tensors of gigabytes would then wait for Python's collector of
such cycles, which comes by when many small objects were made.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def arrays_in(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return the ArrayRecords by name."""
    return {key: record for key, record in content.items() if isinstance(record, ArrayRecord)}


def metrics_in(content: RecordDict) -> dict[str, MetricRecord]:
    """Return the MetricRecords by name."""
    return {key: record for key, record in content.items() if isinstance(record, MetricRecord)}


def configs_in(content: RecordDict) -> dict[str, ConfigRecord]:
    """Return the ConfigRecords by name."""
    return {key: record for key, record in content.items() if isinstance(record, ConfigRecord)}
