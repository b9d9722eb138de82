"""ONNX graphs that need no torch to be made: a head, the resizing of images, and their joining.

    image (B, H, W, 3) uint8 -> pixels (B, 3, S, S) -> token (B, D) -> logits, probabilities (B, C)

The resizing is torch's antialiased one; of a few pixels per 10,000 it differs by one gray value,
where two ways of summing fall on the two sides of a half.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flower_ist.errors import FlowerIstError
from flower_ist.use.head import Head

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 18, 10
_MODES = {"bicubic": "cubic", "bilinear": "linear"}


class ExportError(FlowerIstError):
    """A model cannot be exported as it was asked for."""


def head_graph(head: Head) -> ModelProto:
    """Return token (B, D) float32 -> logits (B, C), probabilities (B, C)."""
    onnx = _onnx()
    nodes, weights = [], []

    def linear(name: str, given: str, weight: NDArray[Any], bias: NDArray[Any]) -> str:
        for array, kind in ((weight, "weight"), (bias, "bias")):
            weights.append(
                onnx.numpy_helper.from_array(np.ascontiguousarray(array), f"{name}.{kind}")
            )
        inputs = [given, f"{name}.weight", f"{name}.bias"]
        nodes.append(onnx.helper.make_node("Gemm", inputs, [name], name=name, transB=1))
        return name

    hidden = "token"
    for number, (weight, bias) in enumerate(head.layers, 1):
        hidden = linear(f"fc{number}", hidden, weight, bias)
        if number < len(head.layers):
            nodes.append(onnx.helper.make_node("Relu", [hidden], [f"{hidden}.relu"]))
            hidden = f"{hidden}.relu"
    if head.skip is not None:
        added = linear("skip", "token", head.skip.weight, head.skip.bias)
        nodes.append(onnx.helper.make_node("Add", [hidden, added], ["logits"]))
    else:
        nodes.append(onnx.helper.make_node("Identity", [hidden], ["logits"]))
    nodes.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    classes = len(head.layers[-1][1])
    outputs = {"logits": ["batch", classes], "probabilities": ["batch", classes]}
    return _model("head", nodes, {"token": ["batch", head.dim]}, outputs, weights)


def resize_graph(size: int, interpolation: str = "bicubic") -> ModelProto:
    """Return image (B, H, W, 3) uint8 -> pixels (B, 3, size, size), whole numbers as float32."""
    onnx = _onnx()
    make, number = onnx.helper.make_node, onnx.TensorProto
    nodes = [
        make("Transpose", ["image"], ["channels.first"], perm=[0, 3, 1, 2]),
        make("Cast", ["channels.first"], ["numbers"], to=number.FLOAT),
        make("Shape", ["numbers"], ["kept.sizes"], start=0, end=2),
        make("Concat", ["kept.sizes", "new.sizes"], ["sizes"], axis=0),
        # PIL's and torch's cubic has the coefficient -0.5 where it is antialiased.
        make(
            "Resize",
            ["numbers", "", "", "sizes"],
            ["resized"],
            mode=_MODES[interpolation],
            antialias=1,
            exclude_outside=1,
            cubic_coeff_a=-0.5,
            coordinate_transformation_mode="half_pixel",
        ),
        make("Round", ["resized"], ["rounded"]),
        make("Clip", ["rounded", "darkest", "brightest"], ["pixels"]),
    ]
    values = {"new.sizes": np.array([size, size]), "darkest": np.float32(0)}
    values["brightest"] = np.float32(255)
    weights = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    outputs = {"pixels": ["batch", 3, size, size]}
    image = {"image": ["batch", "height", "width", 3]}
    return _model("resize", nodes, image, outputs, weights, given=number.UINT8)


def joined(first: ModelProto, second: ModelProto, name: str) -> ModelProto:
    """Return both in one graph; the first's output ``name`` is the second's input."""
    onnx = _onnx()
    prefixed = onnx.compose.add_prefix(first, "before.", rename_inputs=False, rename_outputs=False)
    prefixed.ir_version = second.ir_version = IR_VERSION
    found: ModelProto = onnx.compose.merge_models(prefixed, second, io_map=[(name, name)])
    # Each of the two brings the same import along, and a quantizer wants one.
    versions = {each.domain: each.version for each in found.opset_import}
    del found.opset_import[:]
    found.opset_import.extend(onnx.helper.make_opsetid(*each) for each in versions.items())
    return found


def quantized(model: ModelProto) -> ModelProto:
    """Return it with weights in int8, multiplied in int8: onnxruntime's dynamic quantization."""
    onnx = _onnx()
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise _missing() from None
    stream, silent = io.BytesIO(), logging.root.manager.disable
    # It warns that images are no weights.
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(model, stream, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(silent)
    found: ModelProto = onnx.load_from_string(stream.getvalue())
    return found


def to_bytes(model: ModelProto, about: Mapping[str, str]) -> bytes:
    """Return the file's content, with ``about`` as its metadata; checked to be whole."""
    onnx = _onnx()
    model.producer_name = "flower-ist"
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def runner(content: bytes) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what an exported head does in onnxruntime: tokens (B, D) -> logits (B, C)."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        raise _missing() from None
    session = InferenceSession(content)

    def logits(tokens: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = session.run(["logits"], {"token": tokens})[0]
        return found

    return logits


def _model(
    name: str,
    nodes: list[Any],
    inputs: Mapping[str, list[Any]],
    outputs: Mapping[str, list[Any]],
    weights: list[Any],
    given: int | None = None,
) -> ModelProto:
    onnx = _onnx()
    real = onnx.TensorProto.FLOAT
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        name,
        [value(key, given or real, shape) for key, shape in inputs.items()],
        [value(key, real, shape) for key, shape in outputs.items()],
        weights,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    found: ModelProto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return found


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.compose
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise _missing() from None
    return onnx


def _missing() -> ExportError:
    return ExportError("ONNX files need onnx and onnxruntime: pip install 'flower-ist[export]'.")
