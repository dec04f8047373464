"""One ONNX Runtime session: observation to bids. Refuses models whose input or output has another shape."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from policy.criteria import CRITERIA_COUNT
from policy.errors import BundleError
from policy.features import FEATURE_COUNT

INPUT_NAME: Final = "observation"
OUTPUT_NAME: Final = "bids"


class Actors:
    """The actor every agent shares, run for any number of nodes at once. Safe to call from several threads.

    Args:
        model: serialized ONNX model, one float32 input ``observation [n, 8]`` and one float32 output ``bids [n, 4]``.
        threads: ONNX Runtime intra-op threads; one is fastest for a network this small.

    Raises:
        BundleError: the model does not load, or its input or output has another name, type or shape.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # what fails is raised, and told by whoever asked
        try:
            # without a fallback: it prints on stdout, and there is no other provider to fall back to
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            raise BundleError(
                "model", f"ONNX Runtime cannot load actor.onnx ({type(error).__name__}); export it again"
            ) from error
        self._one_row = threading.local()
        _require("model.inputs", self._session.get_inputs(), INPUT_NAME, FEATURE_COUNT)
        _require("model.outputs", self._session.get_outputs(), OUTPUT_NAME, CRITERIA_COUNT)

    def bids(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bids ``[..., n, 4]`` in [-1, 1] for observations ``[..., n, 8]``; no rows in, no rows out."""
        flat = np.ascontiguousarray(observation, dtype=np.float32).reshape(-1, FEATURE_COUNT)
        shape = (*observation.shape[:-1], CRITERIA_COUNT)
        if flat.shape[0] == 0:
            return np.empty(shape, dtype=np.float32)
        if flat.shape[0] == 1:
            return self._bound().bids(flat).reshape(shape)
        result: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: flat})[0]
        return result.reshape(shape)

    def _bound(self) -> _OneRow:
        """The run of one row of this thread."""
        bound: _OneRow | None = getattr(self._one_row, "bound", None)
        if bound is None:
            bound = self._one_row.bound = _OneRow(self._session)
        return bound


class _OneRow:
    """A run of one row into memory that is bound once; used by one thread.

    The network is the smaller part of such a run: to hand values over takes a third of it when caches are cold.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._observation = np.zeros((1, FEATURE_COUNT), dtype=np.float32)
        self._bids = np.zeros((1, CRITERIA_COUNT), dtype=np.float32)
        self._binding = session.io_binding()
        for bind, name, memory in (
            (self._binding.bind_input, INPUT_NAME, self._observation),
            (self._binding.bind_output, OUTPUT_NAME, self._bids),
        ):
            bind(name, "cpu", 0, np.float32, memory.shape, memory.ctypes.data)

    def bids(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bids ``[1, 4]`` for an observation ``[1, 8]``."""
        self._observation[:] = observation
        self._session.run_with_iobinding(self._binding)
        return self._bids.copy()


def _require(field: str, nodes: list[ort.NodeArg], name: str, width: int) -> None:
    """Raise `BundleError` unless there is exactly one float32 tensor called `name` of shape ``[any, width]``."""
    try:
        found = [(node.name[:40], node.type[:40], node.shape[:4]) for node in nodes[:4]]
    except UnicodeDecodeError as error:
        raise BundleError(field, "the model's names are no UTF-8; export it again") from error
    wanted = f"one float32 tensor {name!r} of shape [n, {width}]"
    if len(nodes) != 1 or nodes[0].name != name or nodes[0].type != "tensor(float)":
        raise BundleError(field, f"the model has {found}; export it with {wanted}")
    shape = nodes[0].shape
    if len(shape) != 2 or shape[1] != width or isinstance(shape[0], int):
        raise BundleError(field, f"the model has {found}; export it with {wanted}, n dynamic")
