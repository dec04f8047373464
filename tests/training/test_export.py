"""From a trained actor to a bundle that serving accepts, or to a refusal that leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from policy.actors import Actors
from policy.bundle import MODEL_FILE, load_bundle
from tests.training.tiny_runs import one_thread, quick_parity, tiny_config  # noqa: F401 - fixtures
from training import export
from training.export import ExportError, export_bundle, onnx_model, parity, random_observations
from training.learning.networks import Actor, parameter_count

pytestmark = pytest.mark.usefixtures("quick_parity")
CARD = "# card: {parameters} parameters, {parity}, {bytes} bytes, {sha256}\n"


def spread_actor(hidden: tuple[int, ...] = (256, 256)) -> Actor:
    """An actor whose bids cover [-1, 1], unlike an untrained one's."""
    torch.manual_seed(1)
    actor = Actor(hidden, (0.0, 0.0, 0.5, 0.0))
    torch.nn.init.normal_(actor.head.weight, std=0.2)
    return actor


@pytest.mark.parametrize("hidden", [(256, 256), (16,), (32, 32, 32)], ids=["default", "one-layer", "three-layers"])
def test_onnx_runtime_agrees_with_torch_at_every_size(hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if hidden == (256, 256):
        monkeypatch.setattr(export, "PARITY_OBSERVATIONS", 10_000)
    actor = spread_actor(hidden)
    model = onnx_model(actor)
    assert parity(model, actor) <= 1e-5
    assert Actors(model).bids(random_observations(500, np.random.default_rng(5))).std() > 0.05


def test_parity_notices_a_single_changed_weight() -> None:
    actor = spread_actor((16, 16))
    model = onnx_model(actor)
    with torch.no_grad():
        actor.head.bias[2] += 1e-3
    assert parity(model, actor) > 1e-5


def test_equal_weights_give_equal_bytes() -> None:
    assert onnx_model(spread_actor((16, 16))) == onnx_model(spread_actor((16, 16)))


def test_the_number_of_nodes_is_dynamic_and_names_are_those_of_serving() -> None:
    graph = onnx.load_from_string(onnx_model(spread_actor((16, 16)))).graph
    (given,) = graph.input
    assert (given.name, given.type.tensor_type.shape.dim[0].dim_param) == ("observation", "n")
    assert [value.name for value in graph.output] == ["bids"]


def test_an_exported_bundle_loads_and_answers_as_torch_does(tmp_path: Path) -> None:
    actor, config = spread_actor(), tiny_config(tmp_path, exploration={"temperature": 0.2})
    manifest = export_bundle(actor, config, tmp_path / "bundle", training={"command": "train"}, card=CARD)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest == manifest
    assert manifest.parameters == parameter_count(actor) == 70_148
    assert manifest.temperature == 0.2
    assert manifest.training["config"]["name"] == manifest.name == "tiny"
    assert manifest.training["command"] == "train"
    observations = random_observations(7, np.random.default_rng(2))
    with torch.no_grad():
        expected = actor(torch.from_numpy(observations)).numpy()
    assert np.abs(bundle.actors.bids(observations) - expected).max() <= 1e-5
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert manifest.model_sha256 in card
    assert "70148 parameters" in card
    assert (tmp_path / "bundle" / MODEL_FILE).stat().st_size < 3 * 1024 * 1024


def refused(actor: Actor, folder: Path, message: str) -> None:
    before = sorted(entry.name for entry in folder.iterdir())
    with pytest.raises(ExportError, match=message):
        export_bundle(actor, tiny_config(folder), folder / "bundle", training={}, card=CARD)
    assert sorted(entry.name for entry in folder.iterdir() if entry.name != "tiny.yaml") == before


def test_an_actor_that_onnx_runtime_disagrees_with_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = onnx_model(spread_actor((16, 16)))
    monkeypatch.setattr(export, "onnx_model", lambda _: other)
    torch.manual_seed(2)
    refused(Actor((16, 16), (0.0, 0.0, 0.5, 0.0)), tmp_path, "differ by")


def test_nan_weights_are_not_written(tmp_path: Path) -> None:
    actor = spread_actor((16, 16))
    with torch.no_grad():
        actor.head.weight[0, 0] = torch.nan
    refused(actor, tmp_path, "differ by inf")


def test_a_model_over_3_mb_is_not_written(tmp_path: Path) -> None:
    refused(spread_actor((900, 900)), tmp_path, "over 3145728")


def test_an_existing_bundle_is_replaced_whole(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    export_bundle(spread_actor((16, 16)), config, tmp_path / "bundle", training={}, card=CARD)
    second = export_bundle(spread_actor((24, 24)), config, tmp_path / "bundle", training={}, card=CARD)
    assert load_bundle(tmp_path / "bundle").manifest.model_sha256 == second.model_sha256
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle", "tiny.yaml"]
