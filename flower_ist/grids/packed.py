"""A Grid that makes train messages small, for any strategy, unchanged.

    strategy -> CompressedGrid -> MeteredGrid -> the grid that Flower gives

Down, the model's tensors go out as one packed array in the ``down`` wire dtype. The client's
:func:`flower_ist.wire.mod.packed_mod` reads them back, the ClientApp trains in the tensors' own
dtype, and the mod answers with the change, trained - received, in the ``up`` wire dtype.

Back here the change is added to what the strategy sent, in full precision: rounding on the way
down never enters the model, so it cannot add up over rounds, and needs no correction there.
Rounding on the way up is unbiased, so it averages out over clients and rounds.

Evaluate and query messages pass as they are, and so does a train message without arrays.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from flower_ist.grids.chain import GridWrapper, is_train, round_of, with_content
from flower_ist.grids.clients import Roster
from flower_ist.grids.metered import MeteredGrid
from flower_ist.wire._flwr import with_metadata
from flower_ist.wire.layout import (
    Codec,
    Layout,
    WireError,
    decode,
    layout_from_text,
    layout_of,
    layout_to_text,
    pack,
    unpack,
)
from flower_ist.wire.protocol import CODEC_KEY, LAYOUT_KEY, PACKED_KEY, PACKED_STYPE, REFUSED_CODE
from flower_ist.wire.quantize import check_wire_dtype
from flower_ist.wire.reported import client_text

_log = logging.getLogger("flwr")
_UNKNOWN_ERROR = 0  # Flower's code; strategies look at the reason only
_NEEDS_MOD = (
    "Wire dtypes other than float32 need a ClientApp with mods=[packed_mod]: add it, or set both "
    "wire dtypes to float32."
)


def compressed(
    grid: Grid,
    down: str,
    up: str,
    *,
    meter: MeteredGrid | None = None,
    seed: int = 0,
    roster: Roster | None = None,
) -> Grid:
    """Return a grid with these wire dtypes: the grid itself if both are ``float32``."""
    if down == up == "float32":
        return grid
    return CompressedGrid(grid, down, up, meter=meter, seed=seed, roster=roster)


@dataclass(frozen=True)
class _Model:
    """What a strategy put into a train message, and the same in the wire dtype.

    Attributes:
        key: name of its ArrayRecord.
        layout: of its tensors.
        tensors: read-only views of what the strategy sent.
        packed: whether the strategy itself had packed them.
        record: what goes out.
    """

    key: str
    layout: Layout
    tensors: Mapping[str, NDArray[Any]]
    packed: bool
    record: ArrayRecord


class CompressedGrid(GridWrapper):
    """Send models in fewer bits, and give strategies ordinary replies.

    A reply that is not as it must be reaches the strategy as an error with the reason, and with a
    code that tells :func:`flower_ist.strategies.judge.judge_reply` a refused reply from a client
    that failed. Decoding allocates what the message that was sent decides, not the reply.

    Args:
        grid: the grid to wrap; one that is, or wraps, a :class:`MeteredGrid` counts what is sent.
        down: wire dtype of the tensors to the clients, rounded to the nearest.
        up: wire dtype of their changes, rounded stochastically.
        meter: counts the grid's bytes; it is told of replies that cannot be read. By default
            ``grid`` itself if it is one.
        seed: of the stochastic rounding, together with the round that the message's config names
            and the client's name.
        roster: names of the clients; node ids, which are random, if None.

    Raises:
        QuantizeError: there is no such wire dtype.
    """

    def __init__(
        self,
        grid: Grid,
        down: str,
        up: str,
        *,
        meter: MeteredGrid | None = None,
        seed: int = 0,
        roster: Roster | None = None,
    ) -> None:
        super().__init__(grid)
        check_wire_dtype(down)
        check_wire_dtype(up)
        self._meter = grid if meter is None and isinstance(grid, MeteredGrid) else meter
        self._down = down
        self._up = up
        self._seed = seed
        self._roster = roster or Roster()
        # node id -> round and model of the message that it has not answered; None: as it was
        self._sent: dict[int, tuple[int, _Model | None]] = {}
        self._warned = False

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Compress train messages, then push them."""
        return self._grid.push_messages(self._compress(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies and restore their tensors."""
        return [self._restore(reply) for reply in self._grid.pull_messages(message_ids)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Compress train messages, send them, and restore the replies' tensors.

        Raises:
            WireError: a model cannot be sent in the wire dtype.
        """
        outgoing = self._compress(messages)
        asked = {message.metadata.dst_node_id for message in outgoing if is_train(message)}
        replies = self._grid.send_and_receive(outgoing, timeout=timeout)
        restored = [self._restore(reply, asked) for reply in replies]
        for node_id in asked:  # a late reply will not be handed out, and a node may never come back
            self._sent.pop(node_id, None)
        return restored

    def _compress(self, messages: Iterable[Message]) -> list[Message]:
        # FedAvg sends one content to all clients: it is quantized once.
        models: dict[int, _Model | None] = {}
        messages = list(messages)  # keeps the contents alive, and so their ids distinct
        outgoing = []
        for message in messages:
            if is_train(message):
                content = message.content
                if id(content) not in models:
                    models[id(content)] = self._model(content)
                model = models[id(content)]
                self._sent[message.metadata.dst_node_id] = (round_of(message), model)
                message = message if model is None else self._addressed(message, model)
            outgoing.append(message)
        return outgoing

    def _model(self, content: RecordDict) -> _Model | None:
        records = content.array_records
        if not records:
            if not self._warned:
                _log.warning("This strategy's train messages hold no arrays: they go as they are.")
            self._warned = True
            return None
        if len(records) > 1:
            raise WireError(
                f"Wire dtypes are for train messages with one ArrayRecord, but this one has "
                f"{len(records)}: set both wire dtypes to float32."
            )
        ((key, record),) = records.items()
        packed = PACKED_KEY in record
        if packed:
            texts = [config.get(LAYOUT_KEY) for config in content.config_records.values()]
            layout = layout_from_text(next(text for text in texts if isinstance(text, str)))
            tensors = unpack(record[PACKED_KEY], layout)
        else:
            tensors = {
                name: decode(array, np.dtype(array.dtype), tuple(array.shape))
                for name, array in record.items()
            }
            layout = layout_of(tensors)
        small = ArrayRecord({PACKED_KEY: pack(tensors, layout, self._down)})
        return _Model(key, layout, tensors, packed, small)

    def _addressed(self, message: Message, model: _Model) -> Message:
        """Return the message that goes out in the place of a strategy's."""
        content = message.content
        name = self._roster.name(message.metadata.dst_node_id)
        entropy = [self._seed, max(0, round_of(message)), zlib.crc32(name.encode())]
        (noise_seed,) = np.random.SeedSequence(entropy).generate_state(1)
        configs = content.config_records
        # The mod looks for the codec where the layout is, if the strategy has packed its tensors.
        place = next(
            (k for k in configs if LAYOUT_KEY in configs[k]), next(iter(configs), "config")
        )
        changed: dict[str, ArrayRecord | ConfigRecord] = {
            model.key: model.record,
            place: ConfigRecord(
                {
                    **configs.get(place, {}),
                    LAYOUT_KEY: layout_to_text(model.layout),
                    CODEC_KEY: Codec(self._down, self._up, int(noise_seed)).to_text(),
                }
            ),
        }
        return with_content(message, RecordDict({**content, **changed}))

    def _restore(self, reply: Message, asked: Container[int] = ()) -> Message:
        """Return a reply as the strategy would have got it without compression.

        A reply of an ``asked`` node answers a train message, whatever type it claims to be.
        """
        node_id = reply.metadata.src_node_id
        if node_id not in asked and not is_train(reply):
            return reply
        if node_id not in self._sent:
            # That is no fault: it may be the SuperLink or the network that has said it twice.
            why = "no answer is due from it: it answered twice or was not asked"
            return _refused(reply, why, _UNKNOWN_ERROR)
        server_round, model = self._sent.pop(node_id)
        if model is None:
            return reply
        try:
            if reply.has_error():
                if PACKED_STYPE not in (reply.error.reason or ""):
                    return reply
                raise WireError(_NEEDS_MOD)
            if not reply.has_content():
                raise WireError("The reply is empty.")
            reply.content = self._restored(reply.content, model)
        except WireError as err:
            # Where the client itself speaks of an error there is no reply that could be at fault.
            code = _UNKNOWN_ERROR if reply.has_error() else REFUSED_CODE
            refused = _refused(reply, str(err), code)
            if self._meter is not None:
                # Flower's own strategies tell nobody whose replies they did not use.
                traffic = self._meter.traffic(server_round)
                traffic.replied.discard(node_id)
                traffic.failures[node_id] = refused.error.reason or ""
            return refused
        return reply

    def _restored(self, content: RecordDict, model: _Model) -> RecordDict:
        records = content.array_records
        key = model.key if len(records) != 1 else next(iter(records))
        if key not in records:
            raise WireError(
                f"The reply has {len(records)} ArrayRecords and none is called {key!r}."
            )
        if set(records[key]) != {PACKED_KEY}:
            raise WireError(_NEEDS_MOD)
        tensors = unpack(records[key][PACKED_KEY], model.layout, self._up)
        for name, change in tensors.items():
            if change.dtype.kind == "f":
                with np.errstate(over="ignore", invalid="ignore"):
                    # Of two arrays without axes numpy makes a number that is no array.
                    tensors[name] = np.asarray(model.tensors[name] + change)
                if not np.isfinite(tensors[name]).all():
                    raise WireError(f"{name!r} holds values that are not finite numbers.")
        if model.packed:
            arrays = {PACKED_KEY: pack(tensors, model.layout)}
        else:
            arrays = {name: Array(tensor) for name, tensor in tensors.items()}
        return RecordDict({**content, key: ArrayRecord(arrays)})


def _refused(reply: Message, reason: str, code: int) -> Message:
    """Return an error in a reply's place. The reason may hold what the client wrote."""
    error = Error(code, client_text(reason))
    return with_metadata(Message(error, reply_to=reply), reply.metadata)
