"""A checkpoint's actor as a policy bundle: ONNX, manifest and model card, proven equal to torch before it is written.

The ONNX graph is assembled node by node rather than traced, so equal weights give equal bytes whatever the torch
version.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from policy.actors import INPUT_NAME, OUTPUT_NAME, Actors
from policy.bundle import FORMAT_VERSION, MANIFEST_FILE, MODEL_CARD_FILE, MODEL_FILE, PARITY_ROWS, Manifest, load_bundle
from policy.criteria import CONSTANT, CRITERIA_COUNT, CRITERIA_SETS
from policy.errors import SchedulerError
from policy.features import FEATURE_COUNT, FEATURE_NAMES, FEATURES, HIGH, LOW, SCHEMA_VERSION, schema_fingerprint
from training.config import TrainingConfig
from training.learning.monotone import MonotoneActor, PositiveLinear
from training.learning.networks import SPEED, Actor, AnyActor, ClassActors, parameter_count

OPSET: Final = 17
"""The first opset with LayerNormalization (onnx 1.12); every ONNX Runtime we support reads it."""

IR_VERSION: Final = 8
"""The ONNX file format of opset 17's release."""

PARITY_SIZES: Final = (1, 10, 500, 5000)
PARITY_OBSERVATIONS: Final = 10_000
PARITY_LIMIT: Final = 1e-5
"""Largest absolute difference between a bid by ONNX Runtime and by torch that may be exported."""

MAX_MODEL_BYTES: Final = 3 * 1024 * 1024


class ExportError(SchedulerError):
    """The actor cannot be exported; nothing has been written."""


def onnx_model(actor: AnyActor) -> bytes:
    """The actor as a serialized ONNX model: input ``observation [n, 8]``, output ``bids [n, 4]``, n dynamic.

    With one network for each class of node speed, the graph runs them all and takes each row from its own.
    """
    graph = _Graph()
    if isinstance(actor, ClassActors):
        speed = graph.add(
            "Gather", [INPUT_NAME, graph.constant("speed.column", torch.tensor([SPEED]))], "speed", axis=1
        )
        flow, *others = (_network(graph, member, f"class{number}.") for number, member in enumerate(actor.actors))
        for number, (boundary, faster) in enumerate(zip(actor.boundaries, others, strict=True), start=1):
            edge = graph.constant(f"class{number}.from", boundary.reshape(1))
            reached = graph.add("GreaterOrEqual", [speed, edge], f"class{number}.reached")
            flow = graph.add("Where", [reached, faster, flow], f"class{number}.chosen")
    else:
        flow = _network(graph, actor, "")
    graph.add("Sigmoid" if isinstance(actor, MonotoneActor) else "Tanh", [flow], OUTPUT_NAME)
    return graph.serialized()


class _Graph:
    """Nodes and weights of an ONNX graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def constant(self, name: str, tensor: torch.Tensor) -> str:
        """Keep a tensor under `name`, which is returned."""
        self._weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node whose one output has its `name`, which is returned."""
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def serialized(self) -> bytes:
        """The checked model."""
        graph = helper.make_graph(
            self._nodes,
            "actor",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["n", FEATURE_COUNT])],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n", CRITERIA_COUNT])],
            self._weights,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="maddpg-scheduler",
        )
        onnx.checker.check_model(model, full_check=True)
        result: bytes = model.SerializeToString(deterministic=True)
        return result


def _network(graph: _Graph, actor: Actor | MonotoneActor, prefix: str) -> str:
    """Append one network, from the observation to its unsquashed bids; the name of its output ``[n, 4]``."""
    flow = INPUT_NAME
    layers: list[tuple[str, nn.Module]] = [(f"body.{name}", layer) for name, layer in actor.body.named_children()]
    for plain_name, layer in [*layers, ("head", actor.head)]:
        name = f"{prefix}{plain_name}"
        if isinstance(layer, nn.Linear):
            inputs = [flow, graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)]
            flow = graph.add("Gemm", inputs, name, transB=1)
        elif isinstance(layer, PositiveLinear):
            inputs = [flow, graph.constant(f"{name}.weight", layer.signed), graph.constant(f"{name}.bias", layer.bias)]
            flow = graph.add("Gemm", inputs, name, transB=1)
        elif isinstance(layer, nn.LayerNorm):
            inputs = [flow, graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)]
            flow = graph.add("LayerNormalization", inputs, name, axis=-1, epsilon=layer.eps)
        elif isinstance(layer, nn.ReLU | nn.Tanh):
            flow = graph.add("Relu" if isinstance(layer, nn.ReLU) else "Tanh", [flow], name)
        else:
            raise ExportError(f"layer {name} is a {type(layer).__name__}, which export does not know; add it there")
    if isinstance(actor, Actor) and actor.plain:
        # A bid on the constant criterion alone: zeros before and after it.
        pads = torch.tensor([0, CONSTANT, 0, CRITERIA_COUNT - 1 - CONSTANT])
        flow = graph.add("Pad", [flow, graph.constant(f"{prefix}pads", pads)], f"{prefix}padded")
    return flow


def random_observations(rows: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Observations ``[rows, 8]`` uniform over the bounds of the feature schema."""
    drawn: NDArray[np.float32] = generator.uniform(LOW, HIGH, (rows, FEATURE_COUNT)).astype(np.float32)
    return drawn


def parity(model: bytes, actor: AnyActor, sizes: Sequence[int] = PARITY_SIZES) -> float:
    """Largest absolute difference between ONNX Runtime's and torch's bids over 10,000 random observations.

    Every observation is asked about once in batches of each of the `sizes`, torch answering in the same batches. The
    first difference beyond `PARITY_LIMIT` is answer enough.
    """
    actors = Actors(model)
    observations = random_observations(PARITY_OBSERVATIONS, np.random.default_rng(0))
    worst = 0.0
    with torch.no_grad():
        for size in sizes:
            for start in range(0, PARITY_OBSERVATIONS, size):
                batch = observations[start : start + size]
                difference = np.abs(actors.bids(batch) - actor(torch.from_numpy(batch)).numpy())
                worst = max(worst, float(difference.max())) if np.isfinite(difference).all() else float("inf")
                if worst > PARITY_LIMIT:
                    return worst
    return worst


def export_bundle(
    actor: AnyActor,
    config: TrainingConfig,
    folder: Path,
    *,
    training: dict[str, Any],
    card: str,
) -> Manifest:
    """Write a policy bundle, whole or not at all.

    Args:
        actor: with trained weights.
        config: of the run; goes into the manifest's provenance.
        folder: of the bundle; its three files are replaced if it exists.
        training: further provenance: command, updates, seconds, selection rates.
        card: text of MODEL_CARD.md; ``{parameters}``, ``{parity}``, ``{bytes}`` and ``{sha256}`` are filled in.

    Raises:
        ExportError: ONNX Runtime disagrees with torch by more than 1e-5, or the model is over 3 MB.
        policy.errors.BundleError: the bundle would be refused at load.
    """
    actor.eval()
    model = onnx_model(actor)
    if len(model) > MAX_MODEL_BYTES:
        raise ExportError(f"the model has {len(model)} bytes, over {MAX_MODEL_BYTES}; choose narrower actor.hidden")
    worst = parity(model, actor)
    if not worst <= PARITY_LIMIT:
        raise ExportError(f"ONNX Runtime and torch differ by {worst:.2g}, over {PARITY_LIMIT}; nothing was written")
    recorded = random_observations(PARITY_ROWS, np.random.default_rng(1))
    with torch.no_grad():
        bids = actor(torch.from_numpy(recorded)).numpy()
    digest = hashlib.sha256(model).hexdigest()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=config.name,
        schema_version=SCHEMA_VERSION,
        schema_sha256=schema_fingerprint(),
        features=list(FEATURE_NAMES),
        criteria=list(CRITERIA_SETS[config.actor.criteria_set].names),
        model_sha256=digest,
        opset=OPSET,
        parameters=parameter_count(actor),
        temperature=config.exploration.temperature,
        training={**training, "config": config.model_dump(mode="json"), "versions": versions()},
        parity={"observations": recorded.tolist(), "bids": bids.tolist()},
        # training clips what it sees to the schema's bounds, so that is what it covers at most
        feature_ranges={feature.name: [feature.low, feature.high] for feature in FEATURES},
    )
    measured = {"parameters": manifest.parameters, "parity": f"{worst:.1e}", "bytes": len(model), "sha256": digest}
    filled = card
    for name, value in measured.items():
        filled = filled.replace(f"{{{name}}}", str(value))
    _write_bundle(
        folder, {MODEL_FILE: model, MANIFEST_FILE: manifest.to_json().encode(), MODEL_CARD_FILE: filled.encode()}
    )
    return manifest


def versions() -> dict[str, str]:
    """Versions of what produced the bundle."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _write_bundle(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files beside `folder`, load them as serving would, and only then move them into place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, content in files.items():
                (staging / name).write_bytes(content)
            load_bundle(staging)
            staging.chmod(0o755)
            folder.mkdir(exist_ok=True)
            for name in files:
                # The manifest goes last but one: until then the old manifest refuses the new model by its hash.
                os.replace(staging / name, folder / name)  # noqa: PTH105 - the atomic one, by its name
        finally:
            shutil.rmtree(staging)
    except OSError as error:
        raise ExportError(
            f"cannot write bundle {folder} ({error.strerror}); check the folder and free space"
        ) from error
