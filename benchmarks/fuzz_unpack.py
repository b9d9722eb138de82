"""Fuzz code that reads arrays from the wire: layouts, packed arrays, plain arrays, whole replies.

    python benchmarks/fuzz_unpack.py -max_total_time=600 [any other option of libFuzzer]

It needs atheris (``pip install atheris``), which is not a dependency of the project. An input may
raise the documented error or be read. Anything else, more than 10 s, or more than 2 GiB is a crash.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("Fuzzing needs atheris: pip install atheris, best into a venv of its own.")

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

# Coverage is counted in what is imported here.
with atheris.instrument_imports(include=["flower_ist"]):
    from flower_ist.strategies.judge import BadReply, Expected, judge_reply
    from flower_ist.wire import ans
    from flower_ist.wire._flwr import TaskIdentity
    from flower_ist.wire.layout import CodecError, WireError, layout_from_text
    from flower_ist.wire.packing import SQUEEZED, Codec, unpack
    from flower_ist.wire.protocol import NUMPY_STYPE, PACKED_KEY, PACKED_STYPE
    from flower_ist.wire.quantize import CODECS
    from flower_ist.wire.record_tensors import decode
    from flower_ist.wire.reported import mean_metrics
    from flower_ist.wire.size import payload_bytes
    from flower_ist.wire.squeeze import squeeze

LAYOUT = {"w": (np.dtype(np.float32), (2, 3)), "b": (np.dtype(np.float32), (2,))}
DTYPES = (*CODECS, SQUEEZED)
_LIMITS = ["-rss_limit_mb=2048", "-timeout=10"]
_WIDEST_SHAPE = 6


def one_input(data: bytes) -> None:
    """Read one input: its first byte says as what.

    Raises:
        Exception: anything but the documented errors is a bug.
    """
    kind, rest = data[0] % 6 if data else 0, data[1:]
    try:
        if kind == 0:
            _read_layout(rest)
        elif kind == 1:
            unpack(_claimed_array(rest[1:]), LAYOUT, DTYPES[sum(rest[:1]) % len(DTYPES)])
        elif kind == 2:
            decode(_claimed_array(rest), *LAYOUT["w"])
        elif kind == 3:
            Codec.from_text(rest.decode("utf-8", "surrogateescape"))
        elif kind == 4:
            _judge(rest)
        else:
            size = int.from_bytes(rest[:2], "little")
            if len(ans.decode(rest[2:], size)) != size:
                raise RuntimeError("Fewer or more bytes came back than were due.")
    except (WireError, BadReply, CodecError) as refusal:
        if "\n" in str(refusal) and isinstance(refusal, BadReply):
            raise RuntimeError("A refusal must fit on one line of a log.") from refusal


def _read_layout(data: bytes) -> None:
    """Read a layout, then arrays by it: the text up to a zero byte, the packed bytes behind it."""
    text, _, packed = data.partition(b"\0")
    layout = layout_from_text(text.decode("utf-8", "surrogateescape"))
    dtypes = {str(dtype) for dtype, _ in layout.values()}
    flat = dtypes.pop() if len(dtypes) == 1 else "mixed"
    unpack(Array(flat, (len(packed),), PACKED_STYPE, packed), layout)


def _claimed_array(data: bytes) -> Array:
    """Make an array whose dtype, shape and kind are claims: three lines, then the bytes."""
    dtype, shape, stype, content = (*data.split(b"\n", 3), b"", b"", b"")[:4]
    lengths = tuple(int.from_bytes(shape[i : i + 1], signed=True) for i in range(_WIDEST_SHAPE))
    known = {b"p": PACKED_STYPE, b"n": NUMPY_STYPE}
    return Array(
        dtype.decode("latin-1"),
        lengths[: len(shape)],
        known.get(stype, stype.decode("latin-1")),
        content,
    )


def _judge(data: bytes) -> None:
    """Judge a reply as a strategy does, and count and average what it brings."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    examples = int.from_bytes(data[:9], "little", signed=True)
    loss = float(np.frombuffer(data[9:17].ljust(8, b"\0"), np.float64)[0])
    array = _claimed_array(data[17:])
    name = PACKED_KEY if array.stype == PACKED_STYPE else "w"
    plain = {} if name == PACKED_KEY else {"b": Array(np.ones(2, np.float32))}
    metrics = MetricRecord({"num-examples": max(min(examples, 2**63 - 1), -(2**63)), "loss": loss})
    content = RecordDict({"arrays": ArrayRecord({name: array, **plain}), "metrics": metrics})
    reply = Message(content, dst_node_id=2, message_type="train")
    payload_bytes(reply)
    tensors, _ = judge_reply(reply, Expected(LAYOUT))
    mean_metrics([content], "num-examples")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise RuntimeError("A reply with values that are not finite was taken.")


def seeds() -> list[bytes]:
    """Return inputs that are read without an error, to start from."""
    plain = Array(np.ones((2, 3), np.float32)).data
    return [
        b'\0[["w","<f4",[2,3]],["b","<f4",[2]]]\0' + bytes(32),
        b"\1\0float32\n\x20\np\n" + bytes(32),
        b"\1\2int8\n\x0e\np\n" + bytes(14),
        b"\1\4compact\n\x0e\np\n" + ans.encode(bytes(14)),
        b"\1\4compact\n\x0e\np\n" + ans.encode(b"\1\0\xff\2" * 3 + b"ab"),
        b"\1\5squeezed\n\x20\np\n" + squeeze(bytes(32)),
        b"\2float32\n\2\3\nn\n" + plain,
        b"\3int8 int4 12345",
        b"\5\xe8\3" + ans.encode(bytes(range(250)) * 4),
        b"\5\xe8\3" + ans.encode(b"\1\0\0\xff" * 250),
        b"\5\xe8\3" + ans.encode(b"\1\0\0\xff" * 100 + bytes(600)),
        b"\4\x0a" + bytes(16) + b"float32\n\x20\np\n" + bytes(32),
        b"\4\x0a" + bytes(16) + b"float32\n\2\3\nn\n" + plain,
    ]


def main() -> None:
    """Fuzz until libFuzzer's options say stop."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *_LIMITS, *sys.argv[1:], corpus], one_input)
        atheris.Fuzz()


# Without the usual guard: nothing here is of use to an importer, and `make bench` passes it over.
main()
