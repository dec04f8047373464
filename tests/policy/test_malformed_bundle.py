"""Whatever stands in a bundle's folder is refused by the name of what is wrong with it, in one short line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from policy import bundle
from policy.bundle import MANIFEST_FILE, MODEL_FILE, load_bundle
from policy.errors import BundleError
from policy.model import read_contents
from tests.policy.states import actor_model, write_bundle

HUGE = 10**400
WEIGHTS = numpy_helper.from_array(np.full((8, 4), 0.1, dtype=np.float32), "weights")


def refused(folder: Path) -> BundleError:
    """Why the bundle is refused; the message is one short line of printable text."""
    with pytest.raises(BundleError) as found:
        load_bundle(folder)
    assert str(found.value).isprintable()
    assert len(str(found.value)) < 1000
    return found.value


VALUES: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": HUGE}),
    ("temperature", {"temperature": -1.0}),
    ("temperature", {"temperature": float("nan")}),
    ("temperature", {"temperature": float("inf")}),
    ("temperature", {"temperature": 1e-300}),
    ("temperature", {"temperature": True}),
    ("name", {"name": ""}),
    ("name", {"name": "a\n" + "b" * 1_000_000}),
    ("name", {"name": "\ud800"}),
    ("name", {"name": "a\x00"}),
    ("opset", {"opset": HUGE}),
    ("opset", {"opset": 13}),
    ("parameters", {"parameters": -1}),
    ("model_sha256", {"model_sha256": "x" * 1_000_000}),
    ("format_version", {"format_version": HUGE}),
    ("features", {"features": [["cpu_requested"] * 1000] * 100}),
    ("feature_ranges", {"feature_ranges": {"cpu_used": [0, HUGE]}}),
    ("feature_ranges", {"feature_ranges": {"cpu_used": [0, 1e39]}}),
    ("feature_ranges", {"feature_ranges": {"cpu_used": [float("nan"), 1]}}),
    ("feature_ranges", {"feature_ranges": {"x" * 1_000_000: [0, 1]}}),
    ("feature_ranges", {"feature_ranges": {"cpu_used": [False, True]}}),
    ("parity", {"parity": {"observations": [[HUGE] * 8], "bids": [[0] * 4]}}),
    ("parity", {"parity": {"observations": [["0"] * 8], "bids": [[0] * 4]}}),
    ("parity", {"parity": {"observations": [[0.0] * 8, [0.0] * 7], "bids": [[0] * 4] * 2}}),
    ("parity", {"parity": {"observations": [[0.0] * 8] * 2, "bids": [[0] * 4]}}),
    ("parity", {"parity": {"observations": [[float("nan")] * 8], "bids": [[0] * 4]}}),
    ("parity", {"parity": {"observations": [[0.0] * 8], "bids": [[float("nan")] * 4]}}),
    ("parity", {"parity": {"observations": [[0.0] * 8] * 10_001, "bids": [[0.0] * 4] * 10_001}}),
    ("parity", {"parity": {"observations": {}, "bids": []}}),
    ("parity", {"parity": {"observations": [[0.0] * 8], "bids": [[0.0] * 4], "more": 1}}),
]


@pytest.mark.parametrize(("field", "changes"), VALUES, ids=lambda value: str(value)[:40])
def test_a_value_that_cannot_be_is_refused_by_its_field(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    folder = write_bundle(tmp_path)
    document = json.loads((folder / MANIFEST_FILE).read_text()) | changes
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    assert refused(folder).field == field


MANIFESTS: dict[str, Callable[[str], bytes]] = {
    "nested deep": lambda _text: b"[" * 100_000,
    "an object nested deep": lambda _text: b'{"a":' * 100_000,
    "no UTF-8": lambda _text: b'{"name": "\xff"}',
    "UTF-16": lambda text: text.encode("utf-16"),
    "half of it": lambda text: text[:200].encode(),
    "nothing": lambda _text: b"",
    "a number of 5,000 digits": lambda text: text.replace('"opset": 17', f'"opset": {"9" * 5000}').encode(),
    "one key twice": lambda text: text.replace('"opset": 17', '"opset": 16, "opset": 17').encode(),
    "one key twice further down": lambda text: text.replace('"bids": ', '"bids": [], "bids": ').encode(),
    "a text": lambda _text: b'"manifest"',
    "a file too large": lambda text: text.encode() + b" " * bundle.MAX_MANIFEST_BYTES,
    "a field with a strange name": lambda text: text.replace('"opset"', f'"{"x" * 100_000}": 1, "opset"').encode(),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_does_not_read_is_refused_as_such(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path)
    manifest = folder / MANIFEST_FILE
    manifest.write_bytes(MANIFESTS[name](manifest.read_text()))
    assert refused(folder).field == "manifest"


def test_a_byte_order_mark_before_the_manifest_is_read_over(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    manifest = folder / MANIFEST_FILE
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert load_bundle(folder).manifest.name == "test"


def circle(path: Path) -> None:
    path.with_name("other").symlink_to(path.name)
    path.symlink_to("other")


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "links in a circle": circle,
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(("file", "field"), [(MANIFEST_FILE, "manifest"), (MODEL_FILE, "model")])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, name: str, file: str, field: str) -> None:
    folder = write_bundle(tmp_path)
    (folder / file).unlink()
    PLACES[name](folder / file)
    assert refused(folder).field == field


def test_a_path_that_can_be_none_is_refused() -> None:
    assert refused(Path("a\0b")).field == "manifest"


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path)
    real = os.open

    def forbidden(path: Path, flags: int) -> int:
        if Path(path).name == MODEL_FILE:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags)

    monkeypatch.setattr(os, "open", forbidden)  # root, as which tests may run, reads every file
    error = refused(folder)
    assert error.field == "model"
    assert "Permission denied" in str(error)


def model(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), kind: int = TensorProto.FLOAT) -> bytes:
    """``h = observation @ weights``, these nodes, and the bids."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "weights"], ["h"]), *nodes],
        "actor",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("bids", kind, ["n", 4])],
        [WEIGHTS, *weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


def node(operator: str, *inputs: str, to: str = "x", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, [*inputs], [to], **attributes)


def constant(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def outside(path: str) -> bytes:
    """An actor whose weights lie in that file."""
    made = onnx.load_from_string(actor_model(np.zeros((8, 4))))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", path), ("offset", "0"), ("length", "128")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


def endless() -> bytes:
    """An actor that loops, practically without an end."""
    names = [("i", TensorProto.INT64), ("c", TensorProto.BOOL), ("y", TensorProto.FLOAT)]
    values = {name: helper.make_tensor_value_info(name, kind, None) for name, kind in names}
    out = [
        helper.make_tensor_value_info("co", TensorProto.BOOL, None),
        helper.make_tensor_value_info("yo", TensorProto.FLOAT, None),
    ]
    steps = [node("Identity", "c", to="co"), node("Identity", "y", to="yo")]
    body = helper.make_graph(steps, "body", list(values.values()), out)
    given = numpy_helper.from_array(np.array(2**62, dtype=np.int64), "most")
    true = numpy_helper.from_array(np.array(True), "true")
    return model(node("Loop", "most", "true", "h", body=body), node("Tanh", "x", to="bids"), weights=(given, true))


def own_function() -> bytes:
    made = onnx.load_from_string(model(node("Tanh", "h", to="bids")))
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [node("Tanh", "a", to="b")], [helper.make_opsetid("", 17)]
    )
    made.functions.append(function)
    return bytes(made.SerializeToString())


TANH = node("Tanh", "x", to="bids")
MODELS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": ("model", lambda: b""),
    "zeros": ("model", lambda: bytes(1000)),
    "names that are no UTF-8": ("model", lambda: _renamed(b"observation")),
    "one such name": ("model", lambda: _renamed(b"observation", 1)),
    "a hidden one": ("model", lambda: _renamed(b"hidden", 1)),
    "half a file": ("model", lambda: actor_model(np.zeros((8, 4)))[:150]),
    "a number without an end": ("model", lambda: b"\x08" + b"\xff" * 20),
    "rows reshaped": ("model", lambda: model(node("Reshape", "h", "s"), TANH, weights=(constant("s", 64, 4),))),
    "rows dropped": (
        "model",
        lambda: model(node("Gather", "h", "first", axis=0), TANH, weights=(constant("first", 0),)),
    ),
    "rows dropped by what they hold": (
        "model",
        lambda: model(
            node("Greater", "h", "h", to="g"), node("NonZero", "g", to="z"), node("GatherND", "h", "z"), TANH
        ),
    ),
    "the first 600 rows": (
        "model",
        lambda: model(node("Slice", "h", "from", "to"), TANH, weights=(constant("from", 0), constant("to", 600))),
    ),
    "the mean of all rows": (
        "model",
        lambda: model(node("ReduceMean", "h", axes=[0]), node("Add", "x", "h", to="y"), node("Tanh", "y", to="bids")),
    ),
    "a draw": ("model", lambda: model(node("RandomNormalLike", "h"), TANH)),
    "a loop": ("model", endless),
    "a tensor of any size": (
        "model",
        lambda: model(
            node("ConstantOfShape", "s", to="b"),
            node("ReduceSum", "b", keepdims=0, to="r"),
            node("Add", "h", "r"),
            TANH,
            weights=(constant("s", 300_000_000),),
        ),
    ),
    "an operator of somebody's": ("model", lambda: model(node("F", "h", domain="own"), TANH)),
    "a function of its own": ("model", own_function),
    "doubles": (
        "model",
        lambda: model(
            helper.make_node("Cast", ["h"], ["x"], to=TensorProto.DOUBLE),
            TANH,
            kind=TensorProto.DOUBLE,
        ),
    ),
    "bids beyond 1": ("model", lambda: model(node("Add", "h", "h", to="bids"))),
    "not a number": ("model", lambda: model(node("Log", "h"), TANH)),
    "another opset than it says": ("opset", lambda: _opset(actor_model(np.zeros((8, 4))), 13)),
    "an opset of the future": ("opset", lambda: _opset(actor_model(np.zeros((8, 4))), 99)),
}


def _renamed(name: bytes, most: int = -1) -> bytes:
    """An actor in which the first letter of a name is no UTF-8, wherever it stands or at the first places alone."""
    content = actor_model(np.full((8, 4), 0.1, dtype=np.float32))
    return content.replace(name, b"\xfb" + name[1:], most)


def _opset(content: bytes, version: int) -> bytes:
    made = onnx.load_from_string(content)
    made.opset_import[0].version = version
    return bytes(made.SerializeToString())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_no_actor_is_refused_before_it_serves(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    field, made = MODELS[name]
    error = refused(write_bundle(tmp_path, made()))
    assert error.field.partition(".")[0] == field
    assert capfd.readouterr() == ("", ""), "what ONNX Runtime has to say is in the error alone"


@pytest.mark.parametrize("place", ["weights.bin", "../../../../etc/passwd", "/etc/passwd"])
def test_weights_in_another_file_are_refused_wherever_it_lies(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(np.zeros((8, 4), dtype=np.float32).tobytes())
    assert refused(write_bundle(tmp_path / "bundle", outside(place))).field == "model"


def test_an_actor_for_each_class_of_speed_is_accepted(tmp_path: Path) -> None:
    speed = numpy_helper.from_array(np.array([5], dtype=np.int64), "column")
    edge = numpy_helper.from_array(np.array([0.0], dtype=np.float32), "edge")
    content = model(
        node("Gather", "observation", "column", axis=1, to="speed"),
        node("GreaterOrEqual", "speed", "edge", to="fast"),
        node("Neg", "h", to="other"),
        node("Where", "fast", "h", "other"),
        TANH,
        weights=(speed, edge),
    )
    observation = [0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5]
    bids = [float(np.tanh(np.float32(0.1) * np.float32(sum(observation))))] * 4
    folder = write_bundle(tmp_path, content, parity={"observations": [observation], "bids": [bids]})
    assert load_bundle(folder).manifest.model_sha256 == hashlib.sha256(content).hexdigest()
    assert read_contents(content).operators == {"MatMul", "Gather", "GreaterOrEqual", "Neg", "Where", "Tanh"}
