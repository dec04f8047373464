"""A bundle is served only if everything in it agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy.bundle import MANIFEST_FILE, MAX_MODEL_BYTES, MODEL_FILE, load_bundle, shipped_bundle_path
from policy.errors import BundleError
from policy.features import FEATURE_COUNT, HIGH, LOW
from tests.policy.states import actor_model, write_bundle


def test_a_whole_bundle_loads_and_answers(tmp_path: Path) -> None:
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    observation = np.random.default_rng(0).uniform(LOW, HIGH, (3, 5, FEATURE_COUNT)).astype(np.float32)
    bids = bundle.actors.bids(observation)
    assert bids.shape == (3, 5, 4)
    assert (np.abs(bids) <= 1.0).all()
    assert bundle.actors.bids(np.empty((0, FEATURE_COUNT), dtype=np.float32)).shape == (0, 4)


def test_a_row_alone_gets_the_bids_it_gets_among_others_in_every_thread() -> None:
    actors = load_bundle(shipped_bundle_path()).actors
    rows = np.random.default_rng(1).uniform(LOW, HIGH, (64, FEATURE_COUNT)).astype(np.float32)
    together = actors.bids(rows)

    def each_alone(_turn: int) -> list[np.ndarray[Any, Any]]:
        return [actors.bids(row[np.newaxis]) for row in rows]

    with ThreadPoolExecutor(4) as pool:
        for alone in pool.map(each_alone, range(8)):
            np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-6)
            assert not np.shares_memory(alone[0], alone[1])


def test_the_shipped_bundle_loads_and_is_small() -> None:
    path = shipped_bundle_path()
    bundle = load_bundle(path)
    assert bundle.manifest.training["command"]
    assert sum(file.stat().st_size for file in path.iterdir()) < 3_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 2),
        ("schema_version", 99),
        ("schema_sha256", "0" * 64),
        ("features", ["cpu_requested"]),
        ("criteria", ["headroom", "balance", "constant", "expected_speed"]),
        ("model_sha256", "0" * 64),
        ("temperature", 0.0),
        ("temperature", "warm"),
        ("name", 3),
        ("opset", True),
        ("parity", {"observations": [], "bids": []}),
        ("parity", {"observations": [[0.0] * 7], "bids": [[0.0] * 4]}),
        ("parity", {"observations": [[0.0] * 8], "bids": [[0.5] * 4]}),
        ("parity", {"bids": [[0.5] * 4]}),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_manifest_that_disagrees_is_refused_with_the_field_named(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(BundleError) as refused:
        load_bundle(write_bundle(tmp_path, **{field: value}))
    assert refused.value.field == field


def drop(field: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / MANIFEST_FILE).read_text())
        del document[field]
        (folder / MANIFEST_FILE).write_text(json.dumps(document))

    return change


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda folder: (folder / MODEL_FILE).unlink(), "model"),
        (lambda folder: (folder / MANIFEST_FILE).unlink(), "manifest"),
        (lambda folder: (folder / MANIFEST_FILE).write_text('{"name": '), "manifest"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("[]"), "manifest"),
        (lambda folder: (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes() + b"x"), "model_sha256"),
        (lambda folder: (folder / MODEL_FILE).write_bytes(b"x" * (MAX_MODEL_BYTES + 1)), "model"),
        (drop("schema_sha256"), "schema_sha256"),
    ],
    ids=["no model", "no manifest", "truncated", "not an object", "changed model", "huge model", "missing field"],
)
def test_a_damaged_bundle_is_refused_with_the_part_named(
    tmp_path: Path, damage: Callable[[Path], object], field: str
) -> None:
    folder = write_bundle(tmp_path)
    damage(folder)
    with pytest.raises(BundleError) as refused:
        load_bundle(folder)
    assert refused.value.field == field


def test_an_unknown_manifest_field_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps({**document, "colour": "red"}))
    with pytest.raises(BundleError, match="colour"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (lambda: b"not a model", "model"),
        (lambda: actor_model(np.zeros((9, 4)), inputs=9), "model.inputs"),
        (lambda: actor_model(np.zeros((8, 5)), outputs=5), "model.outputs"),
        (lambda: actor_model(np.full((8, 4), np.nan)), "model.weights"),
    ],
    ids=["not ONNX", "nine features", "five bids", "NaN weights"],
)
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, model: Callable[[], bytes], field: str) -> None:
    with pytest.raises(BundleError) as refused:
        load_bundle(write_bundle(tmp_path, model()))
    assert refused.value.field == field
