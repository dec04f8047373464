"""The checks that a bundle's model must pass: what its file may hold, how it must answer, and what it once answered.

ONNX Runtime runs whatever a file asks for: endless loops, tensors of any size, weights from other files, which the
manifest's hash does not cover. An actor needs none of these, so the file's operators are read before ONNX Runtime sees
it. The field numbers are those of onnx.proto3 (ONNX 1.23), the encoding is
https://protobuf.dev/programming-guides/encoding/; the package onnx is not installed where bundles are served.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.actors import Actors
from policy.criteria import CRITERIA_COUNT
from policy.errors import BundleError
from policy.features import FEATURE_COUNT, HIGH, LOW

PROBES: Final = 512
"""Observations that every model is asked about before it serves."""
MANY_TIMES: Final = 40
"""How often all of them are asked about at once, so that a model is tried with as many rows as a request may name."""
LARGEST_PARITY_ROWS: Final = 10_000
PARITY_TOLERANCE: Final = 1e-4
"""Largest absolute difference between a recorded bid and the same bid on this machine's ONNX Runtime."""

OPERATORS: Final = frozenset(
    # layers
    {"Gemm", "MatMul", "LayerNormalization", "BatchNormalization", "RMSNormalization"}
    # activations
    | {"Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Gelu", "Swish", "Mish", "Sigmoid", "HardSigmoid"}
    | {"HardSwish", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Tanh", "Clip", "ThresholdedRelu"}
    # arithmetic
    | {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Exp", "Log", "Reciprocal", "Erf", "Sign", "Floor"}
    | {"Ceil", "Round", "Min", "Max", "Mean", "Sum"}
    | {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"}
    # choice
    | {"Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or"}
    # columns
    | {"Gather", "Slice", "Split", "Concat", "Pad", "Constant", "Identity", "Cast", "Dropout"}
)
"""Operators that an actor may be made of: they end, and their results are as large as their inputs suggest."""

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _OPSET = range(7)
_PARTS: Final = {
    _MODEL: {7: _GRAPH, 8: _OPSET},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
    _OPSET: {},
}
"""Message -> number of a field that holds another message -> that message."""

_TRAINING_INFO, _FUNCTIONS = 20, 25
_DOMAIN, _VERSION = 1, 2
_OPERATOR, _NODE_DOMAIN = 4, 7
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


@dataclass(slots=True)
class Contents:
    """What stands in an ONNX file.

    Attributes:
        operators: every operator that a node names, those of other domains as ``domain.operator``.
        opset: version of ONNX's own operators; 0 where none is imported.
        external: whether a weight lies in another file.
        functions: whether operators are defined in the file itself.
    """

    operators: set[str] = field(default_factory=set)
    opset: int = 0
    external: bool = False
    functions: bool = False


def check_contents(model: bytes, opset: int) -> None:
    """Refuse a file that is no ONNX model, or one that an actor cannot be.

    Args:
        model: the file.
        opset: what the manifest says of it.

    Raises:
        BundleError: ``model`` or ``opset``.
    """
    found = read_contents(model)
    if not found.operators or not found.opset:
        raise BundleError("model", "actor.onnx holds no graph of ONNX operators; copy the bundle again, whole")
    if found.external:
        raise BundleError(
            "model", "weights lie in other files, which model_sha256 does not cover; export them inside it"
        )
    unknown = sorted(found.operators - OPERATORS)
    if unknown or found.functions:
        names = ", ".join(name[:40] for name in unknown[:5]) or "functions of its own"
        raise BundleError("model", f"it has operators that no actor needs ({names!a}); export it again")
    if found.opset != opset:
        raise BundleError("opset", f"the manifest says {opset!r:.20} and the model has {found.opset}; export it again")


def read_contents(model: bytes) -> Contents:
    """What stands in an ONNX file.

    Raises:
        BundleError: it is not encoded as protobuf.
    """
    contents = Contents()
    waiting: list[tuple[int, memoryview]] = [(_MODEL, memoryview(model))]
    try:
        while waiting:
            kind, message = waiting.pop()
            parts = _PARTS[kind]
            fields: dict[int, int | memoryview] = {}
            for number, value in _fields(message):
                if number in parts and isinstance(value, memoryview):
                    waiting.append((parts[number], value))
                else:
                    fields[number] = value
            _note(contents, kind, fields)
    except ValueError as error:
        raise BundleError("model", "actor.onnx is no ONNX file; copy the bundle again, whole") from error
    return contents


def _note(contents: Contents, kind: int, fields: dict[int, int | memoryview]) -> None:
    """Add what one message says."""
    if kind == _NODE:
        domain, operator = _text(fields.get(_NODE_DOMAIN)), _text(fields.get(_OPERATOR))
        contents.operators.add(operator if domain in ("", "ai.onnx") else f"{domain}.{operator}")
    elif kind == _OPSET and _text(fields.get(_DOMAIN)) in ("", "ai.onnx"):
        version = fields.get(_VERSION, 0)
        contents.opset = version if isinstance(version, int) else 0
    elif kind == _TENSOR:
        contents.external |= bool(fields.get(_DATA_LOCATION)) or _EXTERNAL_DATA in fields
    elif kind == _MODEL:
        contents.functions |= _FUNCTIONS in fields or _TRAINING_INFO in fields


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, memoryview) else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field, an integer or the bytes of anything longer; ValueError if one ends early."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire, length = key & 7, 0
        if key < 8:
            raise ValueError("a field without a number")
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("a wire type that ONNX does not use")
        if at + length > len(message):
            raise ValueError("a field that ends behind its message")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer without an end")


def check_answers(actors: Actors) -> None:
    """Refuse a model that cannot serve.

    It must give four finite bids in [-1, 1] for each row, at the corners and within the observation space, and the same
    for a row however many stand beside it: an agent sees its own node alone, and answers are kept by node.
    """
    corners = np.array(np.meshgrid(*zip(LOW, HIGH, strict=True))).reshape(FEATURE_COUNT, -1).T
    within = np.random.default_rng(0).uniform(LOW, HIGH, (PROBES - len(corners), FEATURE_COUNT))
    probes = np.vstack([corners, within]).astype(np.float32)
    bids = _answer(actors, probes)
    if not np.isfinite(bids).all():
        raise BundleError("model.weights", "the actor answers NaN or infinity; its weights are broken, export it again")
    if np.abs(bids).max() > 1.0:
        raise BundleError("model.outputs", f"a bid is {np.abs(bids).max()}, outside [-1, 1]; end the actor with tanh")
    for chosen in ([0], [PROBES - 1], [1, 0], [*range(0, PROBES, 3)], [*range(PROBES)] * MANY_TIMES):
        difference = float(np.abs(_answer(actors, probes[chosen]) - bids[chosen]).max())
        if not difference <= PARITY_TOLERANCE:
            raise BundleError(
                "model", f"a row's bids differ by {difference:.2g} with the rows beside it; export an actor of one row"
            )


def _answer(actors: Actors, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bids ``[m, 4]``; raises `BundleError` where the model fails, or answers another number of rows."""
    try:
        return actors.bids(observations)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError(
            "model",
            f"it fails to answer {len(observations)} rows with as many ({type(error).__name__}); export it again",
        ) from error


def check_parity(actors: Actors, parity: Mapping[str, Any]) -> None:
    """Refuse a model that does not answer its own recorded observations as it did when it was exported."""
    unknown = parity.keys() ^ {"observations", "bids"}
    if unknown:
        raise BundleError("parity", f"has or lacks {short(min(unknown))}; give observations and bids, and nothing else")
    observations = _matrix(parity["observations"], "observations", FEATURE_COUNT)
    expected = _matrix(parity["bids"], "bids", CRITERIA_COUNT)
    if len(observations) != len(expected):
        raise BundleError(
            "parity",
            f"there are {len(observations)} observations and bids for {len(expected)}; export the bundle again",
        )
    difference = float(np.abs(_answer(actors, observations) - expected).max())
    if not difference <= PARITY_TOLERANCE:
        raise BundleError(
            "parity",
            f"bids differ by {difference:.2g} from those recorded (limit {PARITY_TOLERANCE}); export again",
        )


def _matrix(rows: Any, name: str, width: int) -> NDArray[np.float32]:
    """Recorded vectors, ``[m, width]``."""
    if not isinstance(rows, list) or not 0 < len(rows) <= LARGEST_PARITY_ROWS:
        raise BundleError("parity", f"{name} are no 1 to {LARGEST_PARITY_ROWS} rows; export the bundle again")
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or inf in map(number, row):
            raise BundleError(
                "parity",
                f"row {at} of {name} is {short(row)}; give {width} finite numbers, or export the bundle again",
            )
    return np.array(rows, dtype=np.float32)


_LARGEST: Final = float(np.finfo(np.float32).max)
"""As a float of Python, which compares with integers of any length."""


def number(value: Any) -> float:
    """Return a number of JSON as a float; infinity where it is no number, or too large for a float32."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        return inf
    return float(value)


_REPR: Final = reprlib.Repr()
_REPR.maxstring = 80


def short(value: object) -> str:
    """Return a value as messages show it: in one line of ASCII, however large it is."""
    return ascii(value[:80]) if isinstance(value, str) else ascii(_REPR.repr(value))[1:-1]
