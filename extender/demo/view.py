"""What the demo shows: nodes, the last decisions, and the comparison with kube-default. Draws; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from extender.demo.cluster import SimulatedCluster
from extender.demo.scheduling import Progress

BAR: Final = 12
"""Characters of a bar."""


@dataclass(frozen=True, slots=True)
class Title:
    """What is running, for the header."""

    scorer: str
    url: str
    load: float  # offered work over speed-weighted capacity


def screen(title: Title, ours: SimulatedCluster, usual: SimulatedCluster, progress: Progress) -> RenderableType:
    """Everything, for a terminal of at least 110 columns."""
    minutes, seconds = divmod(int(ours.simulator.now[0]), 60)
    header = Text.assemble(
        ("maddpg-scheduler", "bold"),
        f"  policy {title.scorer}, dashboard {title.url}  load {title.load:g}  simulated time {minutes}:{seconds:02d}"
        "  Ctrl-C ends",
    )
    return Group(header, _comparison(title, ours, usual, progress), _nodes(ours, progress), _decisions(ours, progress))


def figures(ours: SimulatedCluster, usual: SimulatedCluster, progress: Progress) -> list[tuple[str, str, str]]:
    """Name, ours, kube-default: the rows of the comparison."""
    return [
        ("pods arrived", f"{_arrived(ours)}", f"{_arrived(usual)}"),
        ("SLA violations", _share(ours.violations, _arrived(ours)), _share(usual.violations, _arrived(usual))),
        (
            "lateness per pod",
            f"{ours.lateness / max(_arrived(ours), 1):.4f}",
            f"{usual.lateness / max(_arrived(usual), 1):.4f}",
        ),
        ("CPU used now", f"{_used(ours):.0%}", f"{_used(usual):.0%}"),
        ("CPU requested now", f"{_requested(ours):.0%}", f"{_requested(usual):.0%}"),
        ("pods pending", f"{_pending(ours)}", f"{_pending(usual)}"),
        (
            "/prioritize over HTTP, p50 and p99",
            f"{progress.latency_ms(0.5):.2f} and {progress.latency_ms(0.99):.2f} ms",
            "",
        ),
    ]


def _comparison(title: Title, ours: SimulatedCluster, usual: SimulatedCluster, progress: Progress) -> Panel:
    table = Table(box=None, expand=True)
    table.add_column("the same arrivals, two schedulers")
    table.add_column(title.scorer, justify="right", style="green")
    table.add_column("kube-default", justify="right", style="yellow")
    for row in figures(ours, usual, progress):
        table.add_row(*row)
    return Panel(table)


def _nodes(ours: SimulatedCluster, progress: Progress) -> Panel:
    last = progress.recent[0] if progress.recent else None
    table = Table(box=None, expand=True)
    for column in ("node", "speed", "CPU requested", "CPU used, last seen", "pressure", "priority"):
        table.add_column(column, justify="right" if column in ("speed", "pressure", "priority") else "left")
    state = ours.simulator.state
    for row, name in enumerate(ours.names):
        cores = state.cpu_allocatable[0, row]
        chosen = last is not None and last.node == name
        priority = "" if last is None else str(last.priorities.get(name, "does not fit"))
        table.add_row(
            name,
            f"{state.node_speed[0, row]:.1f}",
            _bar(state.cpu_requested[0, row] / cores, "cyan"),
            _bar(state.cpu_used[0, row] / cores, "magenta"),
            f"{state.cpu_pressure[0, row]:.2f}",
            f"{priority} <-" if chosen else priority,
            style="bold green" if chosen else None,
        )
    return Panel(table, title="nodes, with the priorities of the last decision", title_align="left")


def _decisions(ours: SimulatedCluster, progress: Progress) -> Panel:
    table = Table(box=None, expand=True)
    for column in ("pod", "cores", "GiB", "urgency", "placed on", "because of", "kube-default would"):
        table.add_column(column, justify="right" if column in ("cores", "GiB", "urgency") else "left", no_wrap=True)
    speeds = dict(zip(ours.names, ours.simulator.state.node_speed[0], strict=True))
    for placement in progress.recent:
        same = placement.baseline == placement.node
        table.add_row(
            placement.pod,
            f"{placement.cpu:.2f}",
            f"{placement.memory:.1f}",
            f"{placement.urgency:.2f}",
            f"{placement.node} (speed {speeds[placement.node]:.1f})",
            placement.reason,
            "the same" if same else f"{placement.baseline} (speed {speeds[placement.baseline]:.1f})",
        )
    return Panel(table, title="last decisions", title_align="left")


def _bar(share: float, colour: str) -> Text:
    filled = min(BAR, round(share * BAR))
    return Text.assemble(("█" * filled, colour), ("░" * (BAR - filled), "dim"), f" {share:4.0%}")


def _arrived(cluster: SimulatedCluster) -> int:
    return int(cluster.simulator.counts()["arrived"][0])


def _pending(cluster: SimulatedCluster) -> int:
    """Pods in the queue, without the one whose turn it is."""
    return max(int(cluster.simulator.counts()["pending"][0]) - 1, 0)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / max(whole, 1):.1%})"


def _used(cluster: SimulatedCluster) -> float:
    state = cluster.simulator.state
    return float(state.cpu_used.sum() / state.cpu_allocatable.sum())


def _requested(cluster: SimulatedCluster) -> float:
    state = cluster.simulator.state
    return float(state.cpu_requested.sum() / state.cpu_allocatable.sum())
