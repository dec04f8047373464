"""A scenario of three small nodes with thirty arrivals, and runs on it that take a second: for tests of the learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from training.config import TrainingConfig, parse_config
from training.learning.replay import Batch
from training.simulator.scenarios import FOLDER

NODES = 3
ARRIVALS = 30


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small lose time to threads; imported by every module of the learner's tests."""
    torch.set_num_threads(1)


@pytest.fixture
def quick_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare fewer observations at export; one test compares them all."""
    monkeypatch.setattr("training.export.PARITY_OBSERVATIONS", 200)


def write_scenario(folder: Path) -> Path:
    """The reference scenario, cut to `NODES` of its small nodes and `ARRIVALS` arrivals, as a file.

    Few cores hold few pods, so that pods finish within the short episode and their SLAs are decided.
    """
    document = yaml.safe_load((FOLDER / "reference.yaml").read_text(encoding="utf-8"))
    document |= {"name": "tiny", "nodes": NODES, "episode_arrivals": ARRIVALS, "warmup_arrivals": 2}
    document["node_classes"] = [each for each in document["node_classes"] if each["cores"] <= 8]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def document(folder: Path, **overrides: Any) -> dict[str, Any]:
    """Settings of a run of 60 updates on `write_scenario`'s clusters, as YAML would hold them."""
    scenario = str(write_scenario(folder))
    return {
        "name": "tiny",
        "updates": 60,
        "checkpoint_episodes": 4,
        "arenas": [{"scenario": scenario, "clusters": 4, "replay": 512, "batch": 16, "warmup": 40}],
        "actor": {"hidden": [16, 16]},
        "critic": {"hidden": [16, 16]},
        "selection": {"every_updates": 20, "suites": [{"scenario": scenario, "clusters": 2}]},
        **overrides,
    }


def tiny_config(folder: Path, **overrides: Any) -> TrainingConfig:
    """`document`, validated."""
    return parse_config(document(folder, **overrides))


def random_batch(size: int, nodes: int, seed: int = 0) -> Batch:
    """A batch of random transitions; every node feasible but the first of the first transition."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    feasible = torch.ones(size, nodes, dtype=torch.bool)
    feasible[0, 0] = False
    return Batch(
        observation=uniform(size, nodes, 8),
        measures=uniform(size, nodes, 4),
        feasible=feasible,
        bids=2.0 * uniform(size, nodes, 4) - 1.0,
        placement=torch.randint(1, nodes, (size,), generator=generator),
        reward=-uniform(size, nodes),
        discount=torch.full((size, 1), 0.98),
        next_observation=uniform(size, nodes, 8),
        next_measures=uniform(size, nodes, 4),
        next_feasible=feasible.flip(0),
    )
