"""Scenarios small enough to compute by hand: nothing hidden, nothing noisy, one class of nodes and pods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.simulator.scenarios import Arrivals, Hidden, Measurement, NodeClass, PodClass, Reward, Scenario
from training.simulator.simulation import Simulator

NODE = NodeClass(name="node", cores=8.0, memory=32.0, speed=1.0, weight=1.0)
POD = PodClass(
    name="pod",
    kind="cpu",
    weight=1.0,
    cpu=(1.0, 1.0),
    memory=(1.0, 1.0),
    duration=100.0,
    duration_sigma=0.0,
    slack=(2.0, 2.0),
    cpu_use=1.0,
    memory_use=1.0,
)


def plain(
    nodes: int = 2,
    node: NodeClass = NODE,
    pods: tuple[PodClass, ...] = (POD,),
    scrape: tuple[float, float] = (30.0, 30.0),
    **changes: Any,
) -> Scenario:
    """A scenario without randomness but for arrival times; `changes` are fields of `Scenario`."""
    scenario = Scenario(
        name="plain",
        version=1,
        description="for tests",
        nodes=nodes,
        load=(4.0, 4.0),  # a pod every 3 s for each node
        episode_arrivals=100,
        warmup_arrivals=0,
        node_classes=(node,),
        pod_classes=pods,
        arrivals=Arrivals(),
        hidden=Hidden(),
        measurement=Measurement(scrape_interval=scrape),
        reward=Reward(),
    )
    return replace(scenario, **changes)


def first_fit(simulator: Simulator) -> NDArray[np.int64]:
    """The first feasible node of each cluster, or -1."""
    feasible = simulator.feasible
    return np.where(feasible.any(axis=1), feasible.argmax(axis=1), -1)


def at_random(simulator: Simulator, generator: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly drawn feasible node of each cluster, or -1."""
    feasible = simulator.feasible
    drawn = np.where(feasible, generator.random(feasible.shape), -1.0).argmax(axis=1)
    return np.where(feasible.any(axis=1), drawn, -1)
