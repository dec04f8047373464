"""Random states and demands, and a small ONNX actor, for the tests of policy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from policy.bundle import FORMAT_VERSION, MANIFEST_FILE, MODEL_FILE, Manifest
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, ClusterState, PodDemand
from policy.criteria import CRITERIA_COUNT, CRITERIA_NAMES
from policy.features import FEATURE_COUNT, FEATURE_NAMES, HIGH, LOW, SCHEMA_VERSION, schema_fingerprint


def requesting(state: ClusterState, cpu: Sequence[float], memory: Sequence[float]) -> ClusterState:
    """The state with pods that say what they request: cores and GiB of each node, ``[n]``."""
    cores, gib = np.array(cpu), np.array(memory)
    return replace(state, cpu_requested=cores, memory_requested=gib, cpu_nonzero=cores, memory_nonzero=gib)


def random_state(generator: np.random.Generator, *shape: int) -> ClusterState:
    """A state whose columns are drawn over realistic ranges, shape `shape`; some nodes have pods without requests."""
    idle = ClusterState.idle(
        generator.choice([4.0, 8.0, 32.0, 96.0], shape),
        generator.choice([16.0, 64.0, 256.0], shape),
        generator.uniform(0.5, 2.0, shape),
    )
    cpu = idle.cpu_allocatable * generator.uniform(0.0, 1.0, shape)
    memory = idle.memory_allocatable * generator.uniform(0.0, 1.0, shape)
    silent = generator.integers(0, 4, shape)
    return replace(
        idle,
        cpu_requested=cpu,
        memory_requested=memory,
        cpu_nonzero=cpu + NONZERO_CPU * silent,
        memory_nonzero=memory + NONZERO_MEMORY * silent,
        cpu_used=idle.cpu_allocatable * generator.uniform(0.0, 1.2, shape),
        memory_used=idle.memory_allocatable * generator.uniform(0.0, 1.0, shape),
        cpu_pressure=generator.uniform(0.0, 1.0, shape),
        memory_unseen=memory * generator.uniform(0.0, 0.2, shape),
        memory_ratio=generator.uniform(0.65, 1.5, shape),
    )


demands = st.builds(
    PodDemand,
    cpu=st.floats(0.0, 64.0),
    memory=st.floats(0.0, 256.0),
    urgency=st.floats(0.0, 1.0),
)
"""Of pods that say what they request."""

silent_demands = st.builds(
    PodDemand,
    cpu=st.sampled_from([0.0, 0.0, 0.05, 2.0]),
    memory=st.sampled_from([0.0, 0.0, 0.25, 8.0]),
    urgency=st.floats(0.0, 1.0),
    cpu_nonzero=st.sampled_from([2.1, 2.2, 2.5]),
    memory_nonzero=st.sampled_from([8.25, 9.0]),
)
"""Of pods of which a container does not say."""


def actor_model(weights: np.ndarray[Any, Any], *, inputs: int = FEATURE_COUNT, outputs: int = CRITERIA_COUNT) -> bytes:
    """Serialized ONNX model ``bids = tanh(observation @ weights)`` with a dynamic first axis."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["observation", "weights"], ["hidden"]),
            helper.make_node("Tanh", ["hidden"], ["bids"]),
        ],
        "actor",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("bids", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_bundle(folder: Path, model: bytes | None = None, seed: int = 7, **changes: Any) -> Path:
    """A bundle in `folder` with weights of that seed, valid unless `changes` to its manifest say otherwise."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(0.0, 0.5, (FEATURE_COUNT, CRITERIA_COUNT)).astype(np.float32)
    observations = generator.uniform(LOW, HIGH, (16, FEATURE_COUNT)).astype(np.float32)
    content = actor_model(weights) if model is None else model
    document = Manifest(
        format_version=FORMAT_VERSION,
        name="test",
        schema_version=SCHEMA_VERSION,
        schema_sha256=schema_fingerprint(),
        features=list(FEATURE_NAMES),
        criteria=list(CRITERIA_NAMES),
        model_sha256=hashlib.sha256(content).hexdigest(),
        opset=17,
        parameters=weights.size,
        temperature=0.1,
        training={"command": "tests"},
        parity={"observations": observations.tolist(), "bids": np.tanh(observations @ weights).tolist()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(replace(document, **changes).to_json())
    return folder
