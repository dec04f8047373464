"""The simulator: many clusters advance together, one decision each a step. Refuses to choose a node.

A fluid model: between decisions every pod progresses at speed x CPU share x contention of its node. What is true
stands in
`world`, what passes in `fluid`, what waits in `queue`, what schedulers see in `measurement`; this module is the face.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from policy.cluster import NONZERO_CPU, NONZERO_MEMORY, ClusterState, DemandBatch
from policy.errors import InvalidInputError
from training.simulator import contention, draws, episode, fluid, queue
from training.simulator.accounts import Accounts
from training.simulator.draws import FloatArray, Seeds, Stream, cluster_seeds
from training.simulator.knowledge import Knowledge, Told, draw_told
from training.simulator.measurement import draw_measurements, seen_state
from training.simulator.nodes import draw_nodes
from training.simulator.pod_templates import Shown, draw_templates, tell_urgency, template_of
from training.simulator.pods import NOWHERE, Pods
from training.simulator.scenarios import Scenario
from training.simulator.scrape import scrape, strike
from training.simulator.snapshot import Snapshot
from training.simulator.workload import Workload, draw_arrivals, load_workload, nonzero
from training.simulator.world import World

SLOTS_A_NODE: Final = 12
"""Pod slots at the start, for each node. They double when they run out, so this decides speed alone."""

ARRIVALS_AHEAD: Final = 256
"""Pods drawn beyond the episode, and again whenever a cluster has used them up."""


class Simulator:
    """Many clusters at once, in lockstep by decisions, each at its own time.

    Args:
        scenario: what is simulated.
        clusters: how many clusters side by side, >= 1.
        seed: of the first episode, as for `reset`.

    Attributes:
        scenario: as given.
        clusters: as given.
        nodes: nodes of each cluster.

    Raises:
        InvalidInputError: an argument is out of range.
    """

    def __init__(self, scenario: Scenario, clusters: int, seed: int | Seeds = 0) -> None:
        if clusters < 1:
            raise InvalidInputError(f"clusters is {clusters}; give at least 1")
        self.scenario = scenario
        self.clusters = clusters
        self.nodes = scenario.nodes
        self._workload: Workload = load_workload(scenario)
        self._rows = np.arange(clusters)
        self._seed: int | Seeds = seed
        self.reset(seed)

    # ---- episodes

    def reset(
        self,
        seed: int | Seeds | None = None,
        load: float | FloatArray | None = None,
        told: Told | None = None,
        machines: Seeds | None = None,
    ) -> None:
        """Begin a new episode in every cluster; equal seeds and loads give equal episodes.

        Args:
            seed: one number for all clusters, or one for each (uint64 ``[clusters]``); by default the
                one after the last.
            load: offered work over speed-weighted capacity, one or one for each cluster; by default drawn from
                `Scenario.load`.
            told: what schedulers are told, as `training.simulator.warmup.tell` gives it; all by default.
            machines: what each cluster's nodes and templates are drawn from, uint64 ``[clusters]``; its seed by
                default.

        Raises:
            InvalidInputError: seeds have another shape, or a load is not a positive number.
        """
        if seed is None:
            seed = int(np.ravel(self._seed)[0]) + 1
        self._seed = seed
        if isinstance(seed, int | np.integer):
            seeds = cluster_seeds(int(seed), self.clusters)
        else:
            seeds = np.asarray(seed, dtype=np.uint64)
        for name, given in (("seed", seeds), ("machines", machines)):
            if given is not None and given.shape != (self.clusters,):
                raise InvalidInputError(f"{name} has shape {given.shape}; give one number or [{self.clusters}] of them")
        if told is not None and told.speed.shape != (self.clusters, self.nodes):
            raise InvalidInputError(f"told is of clusters {told.speed.shape}; give [{self.clusters}, {self.nodes}]")
        self._world = self._begin(seeds, self._loads(seeds, load), told, seeds if machines is None else machines)
        self._proceed(np.zeros(0, dtype=np.int64))

    def _loads(self, seeds: Seeds, load: float | FloatArray | None) -> FloatArray:
        if load is None:
            low, high = self.scenario.load
            drawn: FloatArray = low + (high - low) * draws.uniform(seeds, Stream.LOAD, 0)
            return drawn
        given = np.asarray(load, dtype=np.float64)
        if given.shape not in ((), (self.clusters,)) or not (np.isfinite(given) & (given > 0.0)).all():
            raise InvalidInputError(f"load is {load}; give one positive number, or [{self.clusters}] of them")
        return np.broadcast_to(given, (self.clusters,)).copy()

    def _begin(self, seeds: Seeds, load: FloatArray, told: Told | None, machines: Seeds) -> World:
        """Empty clusters at time 0."""
        scenario, clusters, classes = self.scenario, self.clusters, len(self.scenario.pod_classes)
        nodes = draw_nodes(scenario, machines)
        if told is None:
            told = draw_told([Knowledge()] * clusters, machines, nodes.speed)
        rate = load * (nodes.cores * nodes.speed).sum(axis=1) / self._workload.mean_work
        drift = draws.normal(seeds[:, None], Stream.WORKLOAD_USE, np.arange(classes)[None, :])
        return World(
            scenario=scenario,
            sensitivities=contention.sensitivities(scenario.pod_classes, scenario.contention.scale),
            seeds=seeds,
            load=load,
            rate=rate,
            now=np.zeros(clusters),
            upcoming=np.zeros(clusters, dtype=np.int64),
            current=np.zeros(clusters, dtype=np.int64),
            queued=np.zeros(clusters, dtype=np.int64),
            workload_state=scenario.hidden.workload_spread * drift,
            table=draw_arrivals(self._workload, seeds, rate, scenario.episode_arrivals + ARRIVALS_AHEAD),
            templates=draw_templates(self._workload, machines),
            told=told,
            nodes=nodes,
            pods=Pods.empty(clusters, max(16, SLOTS_A_NODE * self.nodes)),
            seen=draw_measurements(scenario.measurement, seeds, nodes, told),
            accounts=Accounts.empty(clusters, classes),
        )

    # ---- what a scheduler sees

    @property
    def state(self) -> ClusterState:
        """What is known of every node, columns ``[clusters, n]``: late measurements, and nothing hidden."""
        return seen_state(self._world.nodes, self._world.seen, self._world.told)

    @property
    def demand(self) -> DemandBatch:
        """The pod to be placed now, columns ``[clusters, 1]``."""
        return self._demand

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which nodes take the pod, ``[clusters, n]``; where none does, the only placement is -1."""
        return self._feasible.copy()

    # ---- what an operator would know besides

    @property
    def now(self) -> FloatArray:
        """Seconds since the start of the episode, ``[clusters]``."""
        return self._world.now.copy()

    @property
    def pod_class(self) -> NDArray[np.int64]:
        """Class of the pod to be placed now, ``[clusters]``; schedulers do not see it."""
        return self._world.pods.kind[self._rows, self._world.current]

    @property
    def pod_number(self) -> NDArray[np.int64]:
        """Arrival number of the pod to be placed now, ``[clusters]``."""
        return self._world.pods.number[self._rows, self._world.current]

    @property
    def arrived(self) -> NDArray[np.int64]:
        """Pods that arrived so far, the one to be placed now included, ``[clusters]``."""
        return self._world.accounts.arrived.copy()

    def template_of(
        self, row: NDArray[np.intp], number: NDArray[np.int64], kind: NDArray[np.int64], work: FloatArray
    ) -> NDArray[np.int64]:
        """Return the template of each pod, as `training.simulator.pod_templates.template_of` does, ``[pods]``."""
        world, noise = self._world, self.scenario.templates.noise
        return template_of(world.templates, noise, world.seeds, row, number, kind, work)

    def snapshot(self, cluster: int = 0) -> Snapshot:
        """One cluster as its operator would list it."""
        pods, seen = self._world.pods, self._world.seen
        running = np.flatnonzero(pods.occupied[cluster] & (pods.node[cluster] != NOWHERE))
        return Snapshot(
            pod=pods.number[cluster, running],
            node=pods.node[cluster, running],
            cpu=pods.cpu[cluster, running],
            memory=pods.memory[cluster, running],
            bound_at=pods.bound_at[cluster, running],
            measured_at=float(seen.taken_at[cluster]),
            cpu_used=seen.cpu_used[cluster].copy(),
            memory_used=seen.memory_used[cluster].copy(),
            pressure=None if seen.estimated[cluster] else seen.pressure[cluster].copy(),
        )

    # ---- decisions

    def step(self, placement: NDArray[np.int64]) -> fluid.Passage:
        """Place each cluster's pod, then let time pass until each cluster's next decision.

        Args:
            placement: node row for each cluster, int64 ``[clusters]``; -1 leaves the pod in the queue.

        Raises:
            InvalidInputError: wrong shape, or a node that is not feasible; nothing has changed then.
        """
        chosen = np.asarray(placement)
        if chosen.shape != (self.clusters,) or chosen.dtype.kind not in "iu":
            raise InvalidInputError(f"placement is {chosen.dtype} {chosen.shape}; give integers [{self.clusters}]")
        placed = chosen != NOWHERE
        known = (chosen >= NOWHERE) & (chosen < self.nodes)
        if not known.all() or not self._feasible[self._rows, chosen][placed].all():
            raise InvalidInputError(
                "placement names a node that takes no such pod; choose where `feasible` is True, or -1"
            )
        world = self._world
        if placed.all():
            queue.bind(world, self._rows, chosen)
        else:
            queue.bind(world, self._rows[placed], chosen[placed])
            queue.wait(world, self._rows[~placed])
        return self._proceed(queue.retry(world, np.flatnonzero(world.queued)))

    def _proceed(self, retried: NDArray[np.intp]) -> fluid.Passage:
        """Let time pass until the next pod arrives, but not where a queued pod is tried again at this very moment."""
        world = self._world
        if world.upcoming.max() >= world.table.time.shape[1]:
            world.table = draw_arrivals(
                self._workload, world.seeds, world.rate, world.table.time.shape[1] + ARRIVALS_AHEAD
            )
        until = world.table.time[self._rows, world.upcoming]
        arriving = self._rows
        if len(retried):
            until[retried] = world.now[retried]
            still = np.zeros(self.clusters, dtype=np.bool_)
            still[retried] = True
            arriving = self._rows[~still]
        passage = fluid.advance(world, until)
        before = world.seen.taken_at.copy()
        due = scrape(world)
        strike(world, due, world.now[due] - before[due])
        queue.arrive(world, arriving)
        at = (self._rows, world.current)
        pods = world.pods
        slack = pods.slack[at]
        limited = slack > 0.0
        cpu, memory = pods.cpu[at][:, None], pods.memory[at][:, None]
        urgency = np.where(limited, 1.0 / np.where(limited, slack, 1.0), 0.0)
        if world.told.urgency_missing.any():
            requests = (cpu[:, 0] > 0.0) | (memory[:, 0] > 0.0)
            number, kind, work = pods.number[at], pods.kind[at], pods.work[at]
            template = self.template_of(self._rows, number, kind, work)
            shown = Shown(self.scenario, number, kind, template, requests, slack, work)
            urgency = tell_urgency(world.told, world.templates, world.seeds, shown, urgency)
        self._demand = DemandBatch(
            cpu=cpu,
            memory=memory,
            urgency=urgency[:, None],
            cpu_nonzero=nonzero(cpu, NONZERO_CPU),
            memory_nonzero=nonzero(memory, NONZERO_MEMORY),
        )
        self._feasible = queue.feasible(world, self._demand.cpu, self._demand.memory)
        return passage

    # ---- copies and metrics

    def clone(self, rows: NDArray[np.intp] | None = None) -> Self:
        """An independent copy of this moment, the future's arrivals included: what the oracle rolls forward.

        Args:
            rows: which clusters, in which order; one may be taken several times. All by default.
        """
        taken = self._rows if rows is None else np.asarray(rows)
        twin = object.__new__(type(self))
        twin.scenario, twin.nodes, twin.clusters = self.scenario, self.nodes, len(taken)
        twin._workload = self._workload
        twin._rows = np.arange(len(taken))
        twin._world = self._world.take(taken)
        twin._seed = twin._world.seeds
        twin._demand = self._demand.take(taken)
        twin._feasible = self._feasible[taken]
        return twin

    def metrics(self) -> dict[str, FloatArray]:
        """The metrics of `training.simulator.episode.METRICS` so far, each float64 ``[clusters]``."""
        return episode.measure(self._world)

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Pods by what became of them, int64 ``[clusters]``: arrived = running + pending + finished + failed."""
        return episode.counts(self._world)

    def slowdowns(self) -> NDArray[np.int64]:
        """Units of work done, by class and bin of slowdown, ``[clusters, w, bins]``; see `slowdown_percentile`."""
        return self._world.accounts.slowdowns.copy()

    def projected_violations(self) -> NDArray[np.int64]:
        """Pods that will miss their SLA if their present rate lasts, ``[clusters]``. Hidden from schedulers."""
        return fluid.projected_violations(self._world)

    def potential(self) -> FloatArray:
        """The node reward still to come for pods that run, if their present rate lasts, ``[clusters, n]``. Hidden."""
        return fluid.potential(self._world)

    def undecided(self) -> NDArray[np.int64]:
        """Pods that count in metrics and whose SLA is not decided yet, ``[clusters]``, future arrivals included."""
        scenario = self.scenario
        return scenario.episode_arrivals - scenario.warmup_arrivals - self._world.accounts.resolved
