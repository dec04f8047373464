"""What is known of each node, and how it is known: speed, evidence, pressure, use. Refuses to change anything.

The columns are taken on the event loop, a page at a time; everything else happens in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from extender.cluster.account import SpeedBasis
from extender.cluster.benchmarks import Benchmarks
from extender.cluster.completed import CompletedPods
from extender.cluster.estimation import LEAST_COMPLETIONS, NodeSpeeds
from extender.cluster.machines import TOLD
from extender.cluster.recollection import Keeper
from extender.cluster.rounds import Rounds
from extender.cluster.source import ClusterSource
from extender.cluster.stats import NodePressure
from extender.cluster.table import UNKNOWN, ClusterTable
from policy.cluster import ClusterState

NO_PSI: Final = "no PSI in this kernel"
ESTIMATED: Final = "estimated from the use"


class MeasuresPressure(Protocol):
    """What asks kubelets: `extender.cluster.kubelets.Kubelets`, as far as it is needed here."""

    pressures: dict[str, NodePressure]
    rounds: Rounds


@runtime_checkable
class KnowsMachines(Protocol):
    """A source that knows how the speed of its nodes is known: `extender.cluster.kubernetes.KubernetesSource`."""

    keeper: Keeper | None

    @property
    def kubelets(self) -> MeasuresPressure | None:
        """What asks kubelets; None where they are not asked."""
        ...

    @property
    def speeds(self) -> NodeSpeeds | None:
        """What is learned of speeds; None before the start."""
        ...

    @property
    def completed(self) -> CompletedPods | None:
        """Takes pods that succeeded; None before the start."""
        ...

    @property
    def benchmarks(self) -> Benchmarks | None:
        """Takes pods that measure nodes; None where nobody wants them."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The latest measurement of a node: cores, GiB, share of time, and the start of its interval; None: there is none.

    Attributes:
        pressure: None where it was not measured.
        by: what measured; None: it does not say.
    """

    cpu: float
    memory: float
    pressure: float | None
    at: float
    by: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some nodes as the table has them, ``[n]``.

    Attributes:
        names, ready, bases, measured: of each.
        state: their rows, copied.
        next: row from which the next page goes on; None: there is none.
        at: when it was taken, seconds since the epoch.
    """

    names: list[str]
    ready: list[bool]
    bases: list[SpeedBasis]
    measured: list[Measured | None]
    state: ClusterState
    next: int | None
    at: float


class Inventory:
    """Describes nodes.

    Args:
        table: what is known of the cluster.
        source: fills it.
        clock: seconds since the epoch.
    """

    def __init__(self, table: ClusterTable, source: ClusterSource, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._source = source if isinstance(source, KnowsMachines) else None
        self._clock = clock

    def take(self, row: int, most: int) -> Page:
        """Take the nodes from this row on; on the event loop."""
        found = self._table.nodes_from(row, most + 1)
        following = found[most][0] if len(found) > most else None
        del found[most:]
        state = self._table.state.take(np.array([place for place, _, _ in found], dtype=np.intp))
        return Page(
            names=[name for _, name, _ in found],
            ready=[account.ready for _, _, account in found],
            bases=[account.basis for _, _, account in found],
            measured=[
                Measured(it.measured_cpu, it.measured_memory, it.measured_pressure, it.measured_at, it.measured_by)
                if it.measured_at > 0.0
                else None
                for _, _, it in found
            ],
            state=state,
            next=following,
            at=self._clock(),
        )

    def take_one(self, name: str) -> Page | None:
        """Take one node; None where it is not known; on the event loop."""
        row = self._table.row_of(name)
        return None if row == UNKNOWN else self.take(row, 1)

    def document(self, page: Page) -> dict[str, Any]:
        """Return a page as JSON: what is learned, and each node. In a thread."""
        return {
            "learning": self._learning(),
            "nodes": [self.node(page, place) for place in range(len(page.names))],
            "next": page.next,
        }

    def node(self, page: Page, place: int) -> dict[str, Any]:
        """Return one node of a page as JSON."""
        name, state, measured = page.names[place], page.state, page.measured[place]
        return {
            "node": name,
            "ready": page.ready[place],
            "speed": self._speed(name, float(state.node_speed[place]), page.bases[place]),
            "allocatable": {
                "cpu": float(state.cpu_allocatable[place]), "memory": float(state.memory_allocatable[place]),
            },
            "requested": {"cpu": float(state.cpu_requested[place]), "memory": float(state.memory_requested[place])},
            "used": {
                "cpu": float(state.cpu_used[place]),
                "memory": float(state.memory_used[place]),
                "measured": None if measured is None else {"cpu": measured.cpu, "memory": measured.memory},
                "age_s": None if measured is None else page.at - measured.at,
                "source": "requests" if measured is None else measured.by,
                "kubelet": self._kubelet(name),
            },
            "pressure": self._pressure(name, float(state.cpu_pressure[place]), measured, page.at),
        }  # fmt: skip

    def _learning(self) -> dict[str, Any] | None:
        """What is learned altogether; None where the source knows nothing of machines."""
        speeds, completed = self._parts()
        if speeds is None:
            return None
        return {
            "refused": speeds.refused or (None if self._kubelets is None else self._kubelets.rounds.trouble),
            "completions": {} if completed is None else dict(completed.counts),
            "evidence": speeds.evidence(),
            "sources": speeds.counts(),
            "estimated": len(speeds.fitted.estimates),
            "unconnected": len(speeds.fitted.unconnected),
            "fit_s": speeds.fit_s,
            "fit_age_s": speeds.fit_age,
        }

    @property
    def _kubelets(self) -> MeasuresPressure | None:
        return None if self._source is None else self._source.kubelets

    def _kubelet(self, name: str) -> str | None:
        """How the last question to a node's kubelet ended; None before the first one, and where they are not asked."""
        return None if self._kubelets is None else self._kubelets.rounds.result_of(name)

    def _parts(self) -> tuple[NodeSpeeds | None, CompletedPods | None]:
        return (None, None) if self._source is None else (self._source.speeds, self._source.completed)

    def _speed(self, name: str, value: float, basis: SpeedBasis) -> dict[str, Any]:
        speeds, _ = self._parts()
        document: dict[str, Any] = {
            "value": value, "low": basis.low, "high": basis.high, "source": basis.source, "class": None,
            "learned": None, "not_learned": None, "slowdown": None, "share_left": basis.share_left,
            "full_at": basis.full_at,
        }  # fmt: skip
        if speeds is None:
            return document
        machine, estimate = speeds.machine(name), speeds.estimate(name)
        if machine is not None:
            document["class"] = machine.node_class or None
        if estimate is not None:
            document["learned"] = asdict(estimate)
        document["not_learned"] = _why_not(speeds, name, basis, self._kubelet(name))
        document["slowdown"] = speeds.slowdown(name)
        return document

    def _pressure(self, name: str, believed: float, measured: Measured | None, now: float) -> dict[str, Any]:
        kubelets = self._kubelets
        found: NodePressure | None = None if kubelets is None else kubelets.pressures.get(name)
        document: dict[str, Any] = {"cpu": believed, "memory": None, "io": None, "source": ESTIMATED, "age_s": None}
        if found is not None:
            document |= {"memory": found.memory, "io": found.io, "age_s": now - found.at}
            document["source"] = "psi" if found.measured else f"{NO_PSI}: {ESTIMATED}"
        elif measured is not None and measured.pressure is not None:
            document |= {"source": "psi", "age_s": now - measured.at}
        elif kubelets is not None:
            document["source"] = f"no answer of its kubelet: {ESTIMATED}"
        return document


def _why_not(speeds: NodeSpeeds, name: str, basis: SpeedBasis, kubelet: str | None) -> str | None:
    """Why a node's speed is not learned; None where it is. `kubelet`: how the last question to its kubelet ended."""
    if basis.source == "completions":
        return None
    if basis.source in TOLD:
        return f"its {basis.source} wins" if basis.source != "setting" else "node_speed_by_instance_type wins"
    if speeds.refused is not None:
        return speeds.refused
    estimate = speeds.estimate(name)
    if estimate is not None:
        return f"{estimate.completions} completions; {LEAST_COMPLETIONS} are needed"
    if name in speeds.fitted.unconnected:
        return "its pods share no template with pods of other nodes"
    if kubelet not in (None, "measured"):
        return f"no CPU times: its kubelet does not answer ({kubelet})"
    return "no completed pods yet"


_FORM: Final = "{:24.24} {:>5} {:>11} {:11} {:>4} {:>4} {:>4} {:>9}"


def as_text(learning: dict[str, Any] | None, nodes: list[dict[str, Any]]) -> str:
    """Nodes as a table of 80 columns, by name, and why nothing is learned where that is so."""
    lines = [_FORM.format("NODE", "SPEED", "95 %", "SOURCE", "PODS", "USE", "REQ", "PRESSURE")]
    for node in sorted(nodes, key=lambda it: str(it["node"])):
        speed, learned, cores = node["speed"], node["speed"]["learned"], node["allocatable"]["cpu"]
        pressure = node["pressure"]
        lines.append(
            _FORM.format(
                node["node"],
                f"{speed['value']:.2f}",
                "-" if speed["low"] is None else f"{speed['low']:.2f}-{speed['high']:.2f}",
                speed["source"],
                "-" if learned is None else str(learned["completions"]),
                f"{node['used']['cpu'] / cores:.0%}",
                f"{node['requested']['cpu'] / cores:.0%}",
                "/".join(
                    "-" if pressure[it] is None else f"{100.0 * pressure[it]:.0f}" for it in ("cpu", "memory", "io")
                ),
            ).rstrip()
        )
    speeds = {it["node"]: it["speed"] for it in nodes if it["speed"].get("share_left", 1.0) < 1.0}
    lines += [
        f"{name}: its pods wait and end late, so {speed['share_left']:.0%} of its speed count"
        + (f", and {full_at:.0%} of its CPU." if (full_at := speed.get("full_at", 1.0)) < 1.0 else ".")
        for name, speed in sorted(speeds.items())
    ]
    lines.append("PODS: completed pods that show the speed. USE, REQ: CPU used and requested.")
    lines.append("PRESSURE: of CPU, memory and I/O, % of time; - where it is not measured.")
    if learning is not None and learning["refused"] is not None:
        lines.append(f"Speeds are not learned: {learning['refused']}.")
    elif learning is not None:
        lines.append(
            f"Learned from {learning['evidence']['kept']} completed pods: {learning['estimated']} nodes; "
            f"{learning['unconnected']} nodes share no template with others."
        )
    return "\n".join(lines)
