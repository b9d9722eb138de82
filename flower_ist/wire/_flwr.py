"""The only private parts of flwr that this library uses, each with its reason.

Everything else comes from flwr's public modules. When an update of flwr moves one of these, this
is the only file to fix.
"""

from flwr.app import Message, Metadata, RecordDict

# A node is offline when nothing was heard of it for so many of its heartbeat intervals.
from flwr.common.constant import HEARTBEAT_PATIENCE

# Types in the signatures of Grid's abstract methods.
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

# Since Flower 1.22 what is actually sent is the deflated form of every nested object.
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

# `Message(...)` reads the process's identity, which must be set outside a Flower process.
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "HEARTBEAT_PATIENCE",
    "NodeInfo",
    "Run",
    "TaskIdentity",
    "empty_message",
    "get_all_nested_objects",
    "inflate_object_from_contents",
    "is_http_grid",
    "no_object_id_recompute",
    "set_message_id",
    "with_metadata",
]


def with_metadata(message: Message, metadata: Metadata) -> Message:
    """Return a message with the same content or error and other metadata; nothing is copied."""
    return Message(  # type: ignore[call-overload, no-any-return]
        content=message.content if message.has_content() else None,
        error=message.error if message.has_error() else None,
        metadata=metadata,  # accepted, but left out of the published signatures
    )


def empty_message(metadata: Metadata) -> Message:
    """Return a message with this metadata and nothing in it, to reply to."""
    return Message(  # type: ignore[call-overload, no-any-return]
        content=RecordDict(),
        metadata=metadata,  # accepted, but left out of the published signatures
    )


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message the id that the SuperLink would give it: there is no public setter."""
    message.metadata.__dict__["_message_id"] = message_id


def is_http_grid(grid: Grid) -> bool:
    """Return whether a grid is that of a deployment. Devices never need to import this class."""
    from flwr.superlink.grid import HttpGrid

    return isinstance(grid, HttpGrid)
