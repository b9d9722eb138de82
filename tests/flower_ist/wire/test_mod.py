"""The packed array, the mod, and what a message really takes on the wire."""

from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_ist.wire.layout import WireError, layout_from_text, layout_of, layout_to_text
from flower_ist.wire.mod import packed_mod
from flower_ist.wire.packing import Codec, pack, unpack
from flower_ist.wire.protocol import CODEC_KEY, LAYOUT_KEY, PACKED_KEY, PACKED_STYPE
from flower_ist.wire.record_tensors import decode
from flower_ist.wire.size import payload_bytes, round_trip, wire_bytes

TENSORS = {
    "a": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    "b": np.array([7, 8], np.float32),
}


def message(content: RecordDict) -> Message:
    return Message(content, dst_node_id=5, message_type="train")


def packed_message(tensors: dict[str, np.ndarray]) -> Message:
    layout = layout_of(tensors)
    config = ConfigRecord({"server-round": 1, LAYOUT_KEY: layout_to_text(layout)})
    arrays = ArrayRecord({PACKED_KEY: pack(tensors, layout)})
    return message(RecordDict({"arrays": arrays, "config": config}))


def test_packed_bytes_by_hand():
    array = pack(TENSORS, layout_of(TENSORS))
    assert array.data == np.arange(1, 9, dtype="<f4").tobytes()
    assert (array.dtype, array.shape, array.stype) == ("float32", (32,), PACKED_STYPE)


def test_layout_text():
    text = layout_to_text(layout_of(TENSORS))
    assert text == '[["a","<f4",[2,3]],["b","<f4",[2]]]'
    assert layout_from_text(text) == layout_of(TENSORS)


dtypes = st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.int8, np.bool_])


@given(
    st.dictionaries(
        st.text(max_size=8),
        dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4))),
        max_size=5,
    )
)
def test_pack_and_unpack_any_tensors(tensors):
    layout = layout_from_text(layout_to_text(layout_of(tensors)))
    found = unpack(pack(tensors, layout), layout)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == np.ascontiguousarray(tensor).tobytes()


@pytest.mark.parametrize(
    "text", ["", "[", "5", "[5]", '[["a","O",[1]]]', '[["a","<f4",[-1]]]', '[["a","zz",[1]]]']
)
def test_layouts_that_are_refused(text):
    with pytest.raises(WireError, match="layout"):
        layout_from_text(text)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (Array("float32", (28,), PACKED_STYPE, b"\0" * 28), "28 bytes instead of 32"),
        (Array("float64", (32,), PACKED_STYPE, b"\0" * 32), "dtype is float64 instead of float32"),
        (Array("float32", (32,), "numpy.ndarray", b"\0" * 32), "of kind 'numpy.ndarray'"),
    ],
)
def test_packed_arrays_that_are_refused(array, problem):
    with pytest.raises(WireError, match=problem):
        unpack(array, layout_of(TENSORS))


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"a": TENSORS["a"]}, "the slice that was sent has"),
        ({**TENSORS, "b": TENSORS["a"]}, r"'b' came back as float32\[2, 3\]"),
        ({**TENSORS, "b": TENSORS["b"].astype(np.float64)}, r"'b' came back as float64\[2\]"),
    ],
)
def test_replies_that_cannot_be_packed(tensors, problem):
    with pytest.raises(WireError, match=problem):
        pack(tensors, layout_of(TENSORS))


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """Serialize an array, with another shape in the header if one is given."""
    stream = BytesIO()
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": shape or array.shape,
    }
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def test_decode_does_not_believe_the_inner_header():
    """The header asks for 4 TB: it is read, and refused before anything is allocated."""
    bomb = Array("float32", (2,), "numpy.ndarray", npy(TENSORS["b"], shape=(10**12,)))
    with pytest.raises(WireError, match="hold float32"):
        decode(bomb, np.dtype(np.float32), (2,))


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x93NUMPY\1\0\xff\xff{", npy(TENSORS["a"])])
def test_decode_refuses_damaged_data(data):
    with pytest.raises(WireError):
        decode(Array("float32", (2,), "numpy.ndarray", data), np.dtype(np.float32), (2,))


def test_decode_reads_what_flower_writes():
    for tensor in (TENSORS["a"], np.asfortranarray(TENSORS["a"]), np.array(3.0, np.float16)):
        found = decode(Array(tensor), tensor.dtype, tensor.shape)
        assert np.array_equal(found, tensor)


def context() -> Context:
    return Context(0, 5, {}, RecordDict(), {})


def test_mod_gives_the_app_ordinary_arrays_and_packs_its_reply():
    seen = {}

    def app(incoming: Message, _: Context) -> Message:
        arrays = incoming.content.array_records["arrays"]
        seen.update({name: array.numpy() for name, array in arrays.items()})
        seen["config"] = dict(incoming.content.config_records["config"])
        trained = ArrayRecord({name: Array(array.numpy() * 2) for name, array in arrays.items()})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=incoming)

    answer = packed_mod(packed_message(TENSORS), context(), app)
    assert seen.pop("config") == {"server-round": 1}
    assert {n: t.tolist() for n, t in seen.items()} == {n: t.tolist() for n, t in TENSORS.items()}
    packed = answer.content.array_records["arrays"]
    assert list(packed) == [PACKED_KEY]
    assert packed[PACKED_KEY].data == np.arange(2, 17, 2, dtype="<f4").tobytes()


def test_mod_leaves_other_messages_alone():
    plain = message(RecordDict({"arrays": ArrayRecord({"a": Array(TENSORS["a"])})}))
    assert packed_mod(plain, context(), lambda m, _: m) is plain


def test_mod_refuses_a_reply_of_another_shape():
    def app(incoming: Message, _: Context) -> Message:
        wrong = ArrayRecord({"a": Array(np.zeros(3, np.float32)), "b": Array(TENSORS["b"])})
        return Message(RecordDict({"arrays": wrong}), reply_to=incoming)

    with pytest.raises(WireError, match="'a' came back as"):
        packed_mod(packed_message(TENSORS), context(), app)


def test_wire_bytes_are_those_of_flowers_objects():
    """Every nested object once, and ids at their widest: at most 60 bytes above this message."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    outgoing = packed_message(TENSORS)
    exact = sum(len(o.deflate()) for o in get_all_nested_objects(outgoing).values())
    assert exact <= wire_bytes(outgoing) <= exact + 60


def test_wire_bytes_do_not_depend_on_random_ids():
    content = RecordDict({"arrays": ArrayRecord({"a": Array(TENSORS["a"])})})
    sizes = {wire_bytes(Message(content, n, "train")) for n in (2, 300, 2**40, 2**64 - 1)}
    assert len(sizes) == 1


def test_payload_bytes():
    assert payload_bytes(packed_message(TENSORS)) == 8 * 4
    plain = ArrayRecord({name: Array(tensor) for name, tensor in TENSORS.items()})
    assert payload_bytes(message(RecordDict({"arrays": plain}))) == 8 * 4


def test_round_trip_keeps_everything():
    outgoing = packed_message(TENSORS)
    back = round_trip(outgoing)
    assert back is not outgoing
    assert back.metadata.dst_node_id == 5
    assert back.content["config"] == outgoing.content["config"]
    found = back.content.array_records["arrays"][PACKED_KEY]
    assert found.data == outgoing.content.array_records["arrays"][PACKED_KEY].data


K4 = {"fc1": (256, 768), "fc2": (256, 256), "fc3": (10, 256)}
# d=768, H=1024, C=10, K=4: 264,704 weights in 522 rows (4,136 groups of at most 64) and 522 biases.
K4_BYTES = {
    "float32": 265_226 * 4,
    "float16": 265_226 * 2,
    "int8": 264_704 + 522 * 2 + 522 * 2,
    "int4": 264_704 // 2 + 4_136 * 2 + 522 * 2,
}


@pytest.mark.parametrize(("dtype", "size"), K4_BYTES.items())
def test_one_slice_at_four_clients_costs_one_percent_more_at_most(dtype, size):
    """In float32: half a percent above its 1,060,904 bytes of weights."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in K4.items():
        tensors[f"{name}.weight"] = rng.random(shape, np.float32)
        tensors[f"{name}.bias"] = rng.random(shape[:1], np.float32)
    layout = layout_of(tensors)
    config = ConfigRecord({"server-round": 1, LAYOUT_KEY: layout_to_text(layout)})
    if dtype != "float32":
        config[CODEC_KEY] = Codec(dtype, dtype, 4_000_000_000).to_text()
    packed = ArrayRecord({PACKED_KEY: pack(tensors, layout, dtype)})
    outgoing = message(RecordDict({"arrays": packed, "config": config}))
    assert payload_bytes(outgoing) == size
    assert wire_bytes(outgoing) <= (1.005 if dtype == "float32" else 1.01) * size

    answer = packed_mod(outgoing, context(), doubling_app())
    assert payload_bytes(answer) == size
    assert wire_bytes(answer) <= 1.01 * size


def doubling_app():
    def app(incoming: Message, _: Context) -> Message:
        arrays = incoming.content.array_records["arrays"]
        trained = ArrayRecord({name: Array(array.numpy() * 2) for name, array in arrays.items()})
        return Message(RecordDict({"arrays": trained}), reply_to=incoming)

    return app


def coded_message(tensors: dict[str, np.ndarray], codec: str) -> Message:
    layout = layout_of(tensors)
    texts = {LAYOUT_KEY: layout_to_text(layout), CODEC_KEY: codec}
    packed = pack(tensors, layout, codec.split()[0])
    return message(
        RecordDict({"arrays": ArrayRecord({PACKED_KEY: packed}), "config": ConfigRecord(texts)})
    )


def test_quantized_bytes_by_hand():
    """Scales 1 and 2 in bfloat16, then rounded numbers; a bias is float16."""
    tensors = {
        "w": np.array([[127, 3.4], [-254, 8]], np.float32),
        "b": np.array([1, -2], np.float32),
        "n": np.array([300], np.int16),
    }
    array = pack(tensors, layout_of(tensors), "int8")
    numbers = bytes([0x80, 0x3F, 0x00, 0x40]) + bytes([127, 3, 129, 4])
    assert array.data == numbers + np.array([1, -2], "<f2").tobytes() + bytes([44, 1])
    assert (array.dtype, array.shape, array.stype) == ("int8", (14,), PACKED_STYPE)
    found = unpack(array, layout_of(tensors), "int8")
    assert found["w"].tolist() == [[127, 3], [-254, 8]]
    assert found["b"].tolist() == [1, -2]
    assert found["n"].tolist() == [300]


def test_mod_answers_a_coded_message_with_changes():
    """The app doubles what it receives, so the change is what it received: 1 to 6, 7 and 8.

    Of int8 rows the largest number is exact, and the others within one step of max / 127.
    """
    answer = packed_mod(coded_message(TENSORS, "float32 int8 9"), context(), doubling_app())
    packed = answer.content.array_records["arrays"][PACKED_KEY]
    found = unpack(packed, layout_of(TENSORS), "int8")
    assert found["b"].tolist() == [7, 8]
    assert np.abs(found["a"] - TENSORS["a"]).max() <= 6 / 127 * (1 + 2**-7)


def test_changes_are_against_what_was_received():
    """int4 sends 1, 2 and 3 of step 3/7: the app's 2x minus x is the rounded x, not the x."""
    answer = packed_mod(coded_message(TENSORS, "int4 float32 9"), context(), doubling_app())
    packed = answer.content.array_records["arrays"][PACKED_KEY]
    rounded = unpack(pack(TENSORS, layout_of(TENSORS), "int4"), layout_of(TENSORS), "int4")
    found = unpack(packed, layout_of(TENSORS))
    assert {n: t.tolist() for n, t in found.items()} == {n: t.tolist() for n, t in rounded.items()}
    assert found["a"].tolist() != TENSORS["a"].tolist()


def test_rounding_of_changes_follows_the_seed():
    tensors = {"w": np.random.default_rng(1).random((9, 9), np.float32)}
    data = [
        packed_mod(coded_message(tensors, f"int8 int4 {seed}"), context(), doubling_app())
        .content.array_records["arrays"][PACKED_KEY]
        .data
        for seed in (1, 1, 2)
    ]
    assert data[0] == data[1] != data[2]


@pytest.mark.parametrize("codec", ["int8", "int8 int2 5", "int8 int8 x", "int8 int8 5 6"])
def test_codecs_that_are_refused(codec):
    broken = coded_message(TENSORS, "int8 int8 5")
    broken.content["config"][CODEC_KEY] = codec
    with pytest.raises(WireError, match="packed codec"):
        packed_mod(broken, context(), doubling_app())


@pytest.mark.parametrize("up", ["float16", "int8", "int4"])
def test_mod_refuses_to_send_what_is_no_number(up):
    def app(incoming: Message, _: Context) -> Message:
        spoilt = {name: Array(tensor * np.float32(np.nan)) for name, tensor in TENSORS.items()}
        return Message(RecordDict({"arrays": ArrayRecord(spoilt)}), reply_to=incoming)

    with pytest.raises(WireError, match=r"'a' holds values .* cannot be sent as .*learning rate"):
        packed_mod(coded_message(TENSORS, f"int8 {up} 5"), context(), app)


def test_a_layout_without_arrays_is_left_alone():
    empty = message(RecordDict({"config": ConfigRecord({LAYOUT_KEY: "[]"})}))
    assert packed_mod(empty, context(), lambda m, _: m) is empty
