"""A scenario of four nodes with twenty arrivals, and runs on it that take a second: for the tests of the learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from training.config import TrainingConfig, parse_config
from training.learning.replay import Batch
from training.simulator.scenarios import FOLDER

NODES = 4
ARRIVALS = 20


def write_scenario(folder: Path) -> Path:
    """The reference scenario, cut to `NODES` nodes and `ARRIVALS` arrivals, as a file."""
    document = yaml.safe_load((FOLDER / "reference.yaml").read_text(encoding="utf-8"))
    document |= {"name": "tiny", "nodes": NODES, "episode_arrivals": ARRIVALS, "warmup_arrivals": 2}
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
        "arenas": [{"scenario": scenario, "clusters": 4, "replay": 256, "batch": 16, "warmup": 40}],
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
