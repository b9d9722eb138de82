"""Run a Flower app in this process: no Ray, no network, the same bytes.

Every message is serialized and read back as in Flower, so that what works here works over a
network. It is for tests, sweeps and debugging: clients run one after another in a fixed order, and
the same seed gives the same run bit for bit.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flower_ist.wire._flwr import Run, TaskIdentity, set_message_id
from flower_ist.wire.size import round_trip

RUN_ID = 2**63 + 1
SERVER_NODE_ID = 1
FIRST_NODE_ID = 2**63 + 1000
_CLIENT_APP_RAISED = 2  # Flower's code for an exception in a ClientApp


class InProcessGrid(Grid):
    """A Grid that calls a ClientApp directly.

    Args:
        client_app: what every client runs.
        num_clients: how many clients there are.
        run_config: the run's settings, which the ClientApp also gets.
        node_configs: one per client; ``partition-id`` and ``num-partitions`` as in Flower's
            simulation if None.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        run_config: UserConfig | None = None,
        node_configs: Sequence[UserConfig] | None = None,
    ) -> None:
        if node_configs is None:
            node_configs = [
                {"partition-id": k, "num-partitions": num_clients} for k in range(num_clients)
            ]
        self._client_app = client_app
        self._contexts = {
            FIRST_NODE_ID + k: Context(
                run_id=RUN_ID,
                node_id=FIRST_NODE_ID + k,
                node_config=node_config,
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for k, node_config in enumerate(node_configs)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0
        TaskIdentity.run_id = RUN_ID
        TaskIdentity.node_id = SERVER_NODE_ID
        TaskIdentity.task_id = RUN_ID

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """Not available: there is no run record in this process."""
        raise RuntimeError("A run in this process has no run record.")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; ``Message(...)`` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the clients' node ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message's client at once and keep its reply."""
        message_ids = []
        for message in messages:
            self._sent += 1
            set_message_id(message, f"{self._sent:064x}")
            self._replies[message.metadata.message_id] = self._answer(round_trip(message))
            message_ids.append(message.metadata.message_id)
        return message_ids

    def pull_messages(  # type: ignore[override]  # Flower 1.43 renames it
        self,
        reply_to_message_ids: Iterable[str] | None = None,
        *,
        message_ids: Iterable[str] | None = None,
    ) -> Iterable[Message]:
        """Return the replies to some messages, or without ids to all, each once.

        ``message_ids`` is what Flower before 1.43 calls ``reply_to_message_ids``.
        """
        asked = reply_to_message_ids if message_ids is None else message_ids
        wanted = list(self._replies if asked is None else asked)
        return [self._replies.pop(i) for i in wanted if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run the messages' clients one after another and return their replies in that order.

        To an iterator it answers with an iterator.
        """
        if isinstance(messages, Iterator):
            return (r for m in messages for r in self.pull_messages(self.push_messages([m])))
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._client_app(message, context)
        except Exception as err:  # a ClientApp may raise anything; Flower replies with an error
            reason = "".join(traceback.format_exception_only(err)).strip()
            reply = Message(Error(code=_CLIENT_APP_RAISED, reason=reason), reply_to=message)
        return round_trip(reply)
