"""How long the actor takes, by runtime: ``python -m tests.bench.inference``.

Warm: the same call again at once. Cold: after 32 MB of other memory were written, as between two pods; the weights then
come from memory. Differences are the largest of a bid to ONNX Runtime's with one thread, over 500 random observations.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from policy.actors import Actors
from policy.bundle import MODEL_FILE, shipped_bundle_path
from policy.features import FEATURE_COUNT

Rows = NDArray[np.float32]
Run = Callable[[Rows], Rows]
REPEATS = {1: 200, 10: 200, 500: 40, 5000: 10}
EPSILON = np.float32(1e-5)
"""Of layer normalisation, as torch's default."""


def in_numpy(model: Path) -> Run:
    """The same network: three products, two normalisations, one tanh."""
    weights: dict[str, Any] = {
        each.name: numpy_helper.to_array(each) for each in onnx.load(str(model)).graph.initializer
    }

    def layer(name: str, rows: Rows) -> Rows:
        result: Rows = rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return result

    def normalised(name: str, rows: Rows) -> Rows:
        centred = rows - rows.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + EPSILON)
        result: Rows = np.maximum(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"], 0)
        return result

    def run(rows: Rows) -> Rows:
        hidden = normalised("body.1", layer("body.0", rows))
        hidden = normalised("body.4", layer("body.3", hidden))
        result: Rows = np.tanh(layer("head", hidden))
        return result

    return run


def microseconds(run: Run, rows: Rows, repeats: int, evict: NDArray[np.float64] | None) -> float:
    """Median time of one call."""
    seconds = []
    run(rows)
    for _ in range(repeats):
        if evict is not None:
            evict += 1.0
        started = time.perf_counter()
        run(rows)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1e6


def main() -> None:
    """Print a Markdown table."""
    model = shipped_bundle_path() / MODEL_FILE
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "int8.onnx"
        quantize_dynamic(model, small, weight_type=QuantType.QInt8)
        runs: dict[str, Run] = {
            "ONNX Runtime, 1 thread": Actors(model.read_bytes(), 1).bids,
            "ONNX Runtime, 2 threads": Actors(model.read_bytes(), 2).bids,
            "ONNX Runtime, int8": Actors(small.read_bytes(), 1).bids,
            "numpy": in_numpy(model),
        }
    sample = generator.random((500, FEATURE_COUNT), dtype=np.float32)
    reference = runs["ONNX Runtime, 1 thread"](sample)
    print("| rows | " + " | ".join(runs) + " |")
    print("|---|" + "---|" * len(runs))
    for count, repeats in REPEATS.items():
        rows = generator.random((count, FEATURE_COUNT), dtype=np.float32)
        for label, evict in (("warm", None), ("cold", np.zeros(4_000_000))):
            times = [microseconds(run, rows, repeats, evict) for run in runs.values()]
            print(f"| {count}, {label} | " + " | ".join(f"{each:.0f} us" for each in times) + " |")
    differences = [float(np.abs(run(sample) - reference).max()) for run in runs.values()]
    print("| difference | " + " | ".join(f"{each:.1g}" for each in differences) + " |")


if __name__ == "__main__":
    main()
