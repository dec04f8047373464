"""Everything true of many clusters at one moment, schedulers' knowledge included: plain arrays, clusters first."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.simulator.accounts import Accounts
from training.simulator.draws import FloatArray, Seeds
from training.simulator.knowledge import Told
from training.simulator.measurement import Measurements
from training.simulator.nodes import Nodes
from training.simulator.pod_templates import Templates
from training.simulator.pods import Pods
from training.simulator.scenarios import Scenario
from training.simulator.workload import ArrivalTable


@dataclass(slots=True)
class World:
    """The moment a simulator is at. Every array in it, nested ones too, has the leading axis ``[clusters]``."""

    scenario: Scenario
    sensitivities: FloatArray  # loss to interference by victim and neighbour class, ``[w, w]``; belongs to the scenario
    seeds: Seeds  # the seed of each cluster's episode
    load: FloatArray  # offered work over speed-weighted capacity
    rate: FloatArray  # mean arrivals a second
    now: FloatArray  # seconds since the start
    upcoming: NDArray[np.int64]  # number of the next pod to arrive
    current: NDArray[np.int64]  # slot of the pod to be decided on
    queued: NDArray[np.int64]  # pods pending, the current one included
    workload_state: FloatArray  # logarithm of each class's use over its mean, ``[clusters, w]``
    table: ArrivalTable  # the pods of the episode
    templates: Templates  # which of them are alike
    told: Told  # what schedulers are told
    nodes: Nodes
    pods: Pods
    seen: Measurements  # the last measurements
    accounts: Accounts  # what happened so far

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return len(self.now)

    @property
    def rows(self) -> NDArray[np.int64]:
        """``0 .. clusters - 1``: the row of every cluster."""
        return np.arange(len(self.now))

    @property
    def size(self) -> tuple[int, int]:
        """Nodes of each cluster, and classes of pods."""
        return self.nodes.base_use.shape[1], self.nodes.base_use.shape[2]

    def is_measured(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pods, by order of arrival, count in metrics; same shape."""
        return (numbers >= self.scenario.warmup_arrivals) & (numbers < self.scenario.episode_arrivals)

    def take(self, rows: NDArray[np.intp]) -> World:
        """An independent copy of the given clusters, in that order; a row may be taken several times."""
        copy = _take(self, rows)
        lanes = self.nodes.base_use.shape[1] * self.nodes.base_use.shape[2]
        copy.pods.lane = copy.pods.lane % lanes + np.arange(len(rows))[:, None] * lanes
        return copy


T = TypeVar("T")


def _take(part: T, rows: NDArray[np.intp]) -> T:
    """`part`, a dataclass of arrays, with every array indexed by `rows`."""
    values: dict[str, Any] = {}
    for item in fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Scenario) or item.name == "sensitivities":
            values[item.name] = value
        elif is_dataclass(value):
            values[item.name] = _take(value, rows)
        else:
            values[item.name] = value[rows]
    return type(part)(**values)
