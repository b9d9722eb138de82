"""Pack the model of train messages into one array, in fewer bits if asked, for any strategy.

Down, the tensors that a strategy sends as an ordinary ArrayRecord go out as one flat array in the
``down`` wire dtype. The client's :func:`flower_ist.wire.mod.packed_mod` reads them back, the
ClientApp trains in the tensors' own dtype, and the mod replies with the change, trained - received,
in the ``up`` wire dtype. With ``float32`` both ways it replies with the trained tensors themselves.

Back on the server the change is added to what the strategy sent, in full precision: rounding on the
way down never enters the model, so it cannot accumulate over rounds and needs no correction.
Rounding on the way up is unbiased (``compact``: small), so it averages out over clients and rounds.

In ``compact`` less is sent than either: :mod:`flower_ist.wire.compact`.

Evaluate and query messages pass through unchanged, and so do train messages without arrays.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_ist.blocks import Blocked
from flower_ist.classifier.initial import InitialWeights
from flower_ist.grids.chain import Filter, PerContent, is_train, refused, round_of, with_content
from flower_ist.grids.clients import ClientRegistry
from flower_ist.wire.compact import Directions, Known
from flower_ist.wire.layout import Layout, WireError, layout_to_text
from flower_ist.wire.packing import Codec, pack, pack_blocks, unpackers
from flower_ist.wire.protocol import (
    CANNOT_START,
    CODEC_KEY,
    COMPACT,
    LAYOUT_KEY,
    PACKED_KEY,
    PACKED_STYPE,
    REFUSED_CODE,
    START_KEY,
)
from flower_ist.wire.quantize import check_wire_dtype
from flower_ist.wire.record_tensors import RecordTensors
from flower_ist.wire.records import arrays_in, configs_in
from flower_ist.wire.reported import client_text
from flower_ist.wire.tensor_array import LazyArray

_UNKNOWN_ERROR = 0  # Flower's code; strategies look only at the reason
_NEEDS_MOD = (
    "A packed model needs a ClientApp with mods=[packed_mod]: add it, or leave the filter Packed "
    "out of the chain."
)


@dataclass(frozen=True)
class _Model:
    """The model that a strategy put into a train message.

    Attributes:
        key: name of its ArrayRecord.
        layout: of its tensors.
        tensors: what the strategy sent; a slice is cut out of the model again when it is read.
        at_most: by name, a magnitude that no number sent exceeds, where one is known.
        start: what the client must know of them to read it; empty for nothing.
        known: what both ends know of the reply.
    """

    key: str
    layout: Layout
    tensors: RecordTensors
    at_most: Mapping[str, float]
    start: str
    known: Known


class Packed(Filter):
    """Send a model as one array, and give strategies ordinary replies.

    An invalid reply reaches the strategy as an error with the reason, and with a code by which
    :func:`flower_ist.strategies.judge.judge_reply` distinguishes a refused reply from a client that
    failed. How much memory decoding allocates depends on the message sent, not on the reply.

    Args:
        down: wire dtype of the tensors to the clients, rounded to the nearest.
        up: wire dtype of their changes, rounded stochastically.
        seed: of the stochastic rounding, together with the round in the message's config and the
            client's name.
        registry: gives the clients' names; if None, node ids, which are random, are used.
        initial: the net's initial weights, which ``compact`` does not send to clients that can make
            them (with ``known_of`` in their mod); None if a seed does not make them.
        directions: returns those of the tokens that clients hold with their next message, if any.

    Raises:
        WireError: there is no such wire dtype.
    """

    def __init__(
        self,
        down: str = "float32",
        up: str = "float32",
        *,
        seed: int = 0,
        registry: ClientRegistry | None = None,
        initial: InitialWeights | None = None,
        directions: Callable[[], Directions | None] = lambda: None,
    ) -> None:
        check_wire_dtype(down)
        check_wire_dtype(up)
        self._down = down
        self._up = up
        self._seed = seed
        self._registry = registry or ClientRegistry()
        self._initial = initial if down == COMPACT else None
        self._directions = directions
        self._need_whole: set[int] = set()  # nodes that cannot make the initial weights
        # node id -> model of the message that it has not answered; None: it was sent unchanged
        self._sent: dict[int, _Model | None] = {}

    @property
    def _sends_changes(self) -> bool:
        """Whether replies hold changes; with float32 both ways they hold the tensors."""
        return not self._down == self._up == "float32"

    def down(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Pack the models of train messages.

        Raises:
            WireError: a model cannot be sent in the wire dtype.
        """
        # FedAvg sends the same content to all clients: it is packed once.
        packed = PerContent(partial(self._model, whole=False))
        whole = PerContent(partial(self._model, whole=True))
        for message in messages:
            if is_train(message):
                node_id = message.metadata.dst_node_id
                pack_one = whole if node_id in self._need_whole else packed
                model, record = pack_one(message.content)
                self._sent[node_id] = model
                if model is not None:
                    message = self._addressed(message, model, record)
            yield message

    def up(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Restore the tensors of replies."""
        for reply in replies:
            yield self._restore(reply)

    def exchange(
        self, grid: Grid, messages: Iterable[Message], timeout: float | None
    ) -> Iterator[Message]:
        """Pack, send, and restore the replies' tensors."""
        asked: set[int] = set()

        def noted(messages: Iterable[Message]) -> Iterator[Message]:
            for message in messages:
                if is_train(message):
                    asked.add(message.metadata.dst_node_id)
                yield message

        try:
            for reply in grid.send_and_receive(self.down(noted(messages)), timeout=timeout):
                yield self._restore(reply, asked)
        finally:
            for node_id in asked:  # a late reply is never returned, and a node may never come back
                self._sent.pop(node_id, None)

    def _model(self, content: RecordDict, *, whole: bool) -> tuple[_Model | None, ArrayRecord]:
        """Return the model in a message's content, and the record to send in its place."""
        records = arrays_in(content)
        if not records:
            return None, ArrayRecord()
        if len(records) > 1:
            raise WireError(
                f"A packed train message has one ArrayRecord, but this one has {len(records)}: "
                "leave the filter Packed out of the chain."
            )
        ((key, record),) = records.items()
        layout = {n: (np.dtype(a.dtype), tuple(a.shape)) for n, a in record.items()}
        tensors = RecordTensors(record, layout)
        text, start = "", {}
        if self._initial is not None and not whole:
            start = self._initial.part(layout, _config_of(content)[1])
            text = self._initial.to_text(start)
        known = Known(start, self._directions() if COMPACT in (self._down, self._up) else None)
        most: dict[str, float] = {}
        if self._down == COMPACT:
            array = pack(dict(tensors), layout, COMPACT, known=known)
        else:
            array = pack_blocks(lambda n: tensors.blocked(n).make(), layout, self._down)
            most = {n: b.at_most for n, b in unpackers(array, layout, self._down).items()}
        packed = ArrayRecord({PACKED_KEY: array})
        return _Model(key, layout, tensors, most, text, known.of_reply()), packed

    def _addressed(self, message: Message, model: _Model, record: ArrayRecord) -> Message:
        """Return the message to send in place of a strategy's."""
        content = message.content
        place, given = _config_of(content)
        config = {**given, LAYOUT_KEY: layout_to_text(model.layout)}
        if model.start:
            config[START_KEY] = model.start
        if self._sends_changes:
            name = self._registry.name(message.metadata.dst_node_id)
            entropy = [self._seed, max(0, round_of(message)), zlib.crc32(name.encode())]
            (noise_seed,) = np.random.SeedSequence(entropy).generate_state(1)
            config[CODEC_KEY] = Codec(self._down, self._up, int(noise_seed)).to_text()
        changed: dict[str, ArrayRecord | ConfigRecord] = {
            model.key: record,
            place: ConfigRecord(config),
        }
        return with_content(message, RecordDict({**content, **changed}))

    def _restore(self, reply: Message, asked: Container[int] = ()) -> Message:
        """Return a reply as the strategy would have received it without packing.

        A reply from an ``asked`` node answers a train message, whatever type it claims to be.
        """
        node_id = reply.metadata.src_node_id
        if node_id not in asked and not is_train(reply):
            return reply
        if node_id not in self._sent:
            # That is no fault: the SuperLink or the network may have sent it twice.
            why = "no answer is due from it: it answered twice or was not asked"
            return refused(reply, why, _UNKNOWN_ERROR)
        model = self._sent.pop(node_id)
        if model is None:
            return reply
        try:
            if reply.has_error():
                reason = reply.error.reason or ""
                if CANNOT_START in reason:
                    self._need_whole.add(node_id)
                if PACKED_STYPE not in reason:
                    return reply
                raise WireError(_NEEDS_MOD)
            if not reply.has_content():
                raise WireError("The reply is empty.")
            reply.content = self._restored(reply.content, model)
        except WireError as err:
            # Where the client itself reports an error there is no reply that could be at fault.
            code = _UNKNOWN_ERROR if reply.has_error() else REFUSED_CODE
            return refused(reply, client_text(str(err)), code)  # which may quote the client
        return reply

    def _restored(self, content: RecordDict, model: _Model) -> RecordDict:
        records = arrays_in(content)
        key = model.key if len(records) != 1 else next(iter(records))
        if key not in records:
            raise WireError(
                f"The reply has {len(records)} ArrayRecords and none is called {key!r}."
            )
        if set(records[key]) != {PACKED_KEY}:
            raise WireError(_NEEDS_MOD)
        restored = ArrayRecord()
        unpacked = unpackers(records[key][PACKED_KEY], model.layout, self._up, model.known)
        for name, (dtype, shape) in model.layout.items():
            tensor, change = unpacked[name], None
            if self._sends_changes and dtype.kind == "f":
                sent = Blocked(model.tensors.blocked(name).make, model.at_most.get(name, math.inf))
                tensor, change = sent.plus(tensor), tensor
            if dtype.kind == "f" and not tensor.at_most < float(np.finfo(dtype).max):
                tensor = tensor.measured()
                if not math.isfinite(tensor.at_most):
                    raise WireError(f"{name!r} holds values that are not finite numbers.")
            restored[name] = LazyArray(dtype, shape, tensor, change)
        # One ArrayRecord was sent: an additional one has no reader, and nothing checks it.
        others = {name: record for name, record in content.items() if name not in records}
        return RecordDict({**others, key: restored})


def _config_of(content: RecordDict) -> tuple[str, ConfigRecord]:
    """Return the name of a message's settings, and the settings."""
    configs = configs_in(content)
    place = next(iter(configs), "config")
    return place, configs.get(place) or ConfigRecord()
