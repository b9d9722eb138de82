"""What happens with a device's call: known sender, bounded size, then on to the SuperLink."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace

from flower_ist.deploy.gateway.budget import Budget
from flower_ist.deploy.gateway.device import Device
from flower_ist.deploy.gateway.http import BadRequestError, Request
from flower_ist.deploy.gateway.ledger import KIND_OF_CALL, MESSAGES, WAITING
from flower_ist.deploy.gateway.nodes import KEY, Node, Nodes, signature_time
from flower_ist.deploy.gateway.short import answered
from flower_ist.deploy.gateway.superlink import Answer, SuperLink
from flower_ist.deploy.gateway.waiting import WaitingRoom

MAX_REQUEST_BYTES = 8 * 2**20
"""Flower's largest request is a chunk of an array, 5 MiB. The SuperLink itself sets no limit."""

MAX_STRANGER_BYTES = 4096
"""Of a request whose sender the SuperLink has not accepted yet: a question is smaller."""

_PREFIX = "/v1/fleet/"
_CALLS = frozenset(
    {
        *("register-node", "activate-node", "deactivate-node", "unregister-node"),
        *("send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab"),
        *("push-object", "pull-object", "confirm-message-received"),
    }
)
_PULL, _HEARTBEAT = "pull-messages", "send-node-heartbeat"
# By these a node becomes known. After a restart of the gateway a heartbeat does it.
_FIRST_CALLS = frozenset({"register-node", "activate-node", _PULL, _HEARTBEAT})
# Memory for an answer is set aside before it is asked for: an app has at most 10 MB.
_ANSWER_BYTES = {"pull-object": 6 * 2**20, "get-fab": 11 * 2**20}
_IN_FLIGHT_BYTES = 64 * 2**20
_IN_FLIGHT_OF_A_NODE = 16 * 2**20
_PROTOBUF = {b"content-type": b"application/protobuf"}
_UNAUTHORIZED = Answer(
    401,
    b'{"detail":"Invalid SuperNode authentication"}',
    {b"content-type": b"application/json"},
)


@dataclass
class Call:
    """One call of a device whose signature is valid.

    Attributes:
        name: such as pull-messages.
        request: its head.
        signed_at: seconds since 1970.
        node: who sent it, if the SuperLink has accepted its key before.
        body: protobuf, once it is read.
    """

    name: str
    request: Request
    signed_at: float
    node: Node | None
    body: bytes = b""


class Calls:
    """The devices' calls.

    Args:
        superlink: who answers them.
        reply_bytes: what a node may always send in reply to one message; it may also send twice
            what it was sent.
    """

    def __init__(self, superlink: SuperLink, reply_bytes: int) -> None:
        self._superlink = superlink
        self._reply_bytes = reply_bytes
        self._budget = Budget(_IN_FLIGHT_BYTES, _IN_FLIGHT_OF_A_NODE)
        self.nodes = Nodes()
        self.waiting = WaitingRoom(superlink)

    async def serve(self, request: Request, device: Device) -> bool:
        """Answer a request, and return whether the connection stays open.

        Raises:
            BadRequestError: it is none of a device's calls, or too large.
        """
        name = request.path.removeprefix(_PREFIX)
        if name not in _CALLS or name == request.path:
            raise BadRequestError(404, "There is no such call.")
        if request.method != "POST":
            raise BadRequestError(405, "Calls are posted.")
        asked = request.headers
        request = replace(request, headers=self.nodes.completed(asked))
        signed_at = signature_time(request.headers)
        if signed_at is None:
            return await _respond(device, _UNAUTHORIZED)
        device.has_signed()
        call = Call(name, request, signed_at, self.nodes.get(request.headers[KEY]))
        self._check(call)
        size = max(request.length, _ANSWER_BYTES.get(name, 0))
        async with self._budget.hold(request.headers[KEY], size) as hold:
            call.body = await device.connection.body(request.length)
            answer = await self._ask(call)
            hold.keep(len(answer.content))
            if call.node is not None:
                device.belongs_to(call.node)
                answer = await self._wait(call, call.node, answer, device)
            known = call.node is not None and answer.status == 200
            few = answered(asked, answer.headers, known=known)
            stays = await _respond(device, replace(answer, headers=few))
        brought = name == _PULL and answer.content
        device.account.note(MESSAGES if brought else KIND_OF_CALL.get(name, WAITING))
        return stays

    def _check(self, call: Call) -> None:
        """Refuse what may not be read.

        Raises:
            BadRequestError: it is too large, or of a sender that is not known.
        """
        length, node = call.request.length, call.node
        if length > MAX_REQUEST_BYTES:
            raise BadRequestError(413, "The request is too large.")
        if node is None:
            if call.name not in _FIRST_CALLS or length > MAX_STRANGER_BYTES:
                raise BadRequestError(503, "The sender is not known yet.")
        elif call.name in ("push-messages", "push-object") and not node.may_upload(
            length, self._reply_bytes
        ):
            raise BadRequestError(413, "The reply is too large.")

    async def _ask(self, call: Call) -> Answer:
        """Return the SuperLink's answer, and learn from it who a key belongs to."""
        key, node = call.request.headers[KEY], call.node
        if call.name == _PULL and node is not None and node.message:
            # It has fetched nothing since it was told of this message: the answer was lost.
            return Answer(200, node.message, _PROTOBUF)
        if call.name == "deactivate-node" and node is not None:
            self.waiting.leave(node)
        answer = await self._superlink.call(call.name, call.body, call.request.headers)
        if call.name == "get-fab":
            answer = _compressed(answer, call.request)
        if answer.status == 401:
            self.nodes.forget(key)
            call.node = None
        elif answer.status == 200:
            if node_id := _node_id(call.name, call.body, answer.content):
                call.node = node = self.nodes.accepted(key, node_id)
            if node is not None:
                node.signed(call.signed_at, call.request.headers)
                if call.name == _PULL:
                    if answer.content:
                        node.got_message(answer.content)
                elif call.name != _HEARTBEAT:
                    node.message = b""
                if call.name == "pull-object":
                    node.downloads(len(answer.content))
        return answer

    async def _wait(self, call: Call, node: Node, answer: Answer, device: Device) -> Answer:
        """Hold back an answer that brings nothing."""
        if answer.status != 200:
            return answer
        if call.name == _PULL and not answer.content:
            device.account.note(WAITING)
            message = await self.waiting.wait_for_message(node, call.body, device.connection)
            return message or answer
        if call.name == _HEARTBEAT and answer.content:
            return await self.waiting.keep_alive(node, call.body, device.connection, answer)
        return answer


async def _respond(device: Device, answer: Answer) -> bool:
    return await device.connection.respond(answer.status, answer.content, answer.headers)


def _compressed(answer: Answer, request: Request) -> Answer:
    """Return an app bundle as a SuperNode takes it too: Flower stores it without compression."""
    if answer.status != 200 or b"gzip" not in request.headers.get(b"accept-encoding", b""):
        return answer
    content = gzip.compress(answer.content, mtime=0)
    return Answer(200, content, {**answer.headers, b"content-encoding": b"gzip"})


def _node_id(name: str, body: bytes, answer: bytes) -> int:
    """Return the node id of an accepted call, or 0 if it shows none.

    Read by hand: importing flwr would double this program's memory. An ActivateNodeResponse begins
    with field 1, the id; pull-messages and heartbeats begin with field 1, a Node of which field 1
    is the id.
    """
    if name == "activate-node":
        field = answer
    elif name in (_PULL, _HEARTBEAT) and body[:1] == b"\x0a":
        field = body[2:]
    else:
        return 0
    number = 0
    if field[:1] == b"\x08":
        for place, byte in enumerate(field[1:11]):
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return number
    return 0
