"""The time before an episode, in which a cluster learns what nobody tells it: by the estimators that serve, unchanged.

Each cluster runs other pods of the same templates on the same machines, placed by kube-default, until every node has
completed as many batch pods as asked for. Their CPU time goes to `policy.completions`, their run time to
`policy.durations`, and the one over the other to `policy.slowdowns`. Speeds are fitted whenever the evidence has
doubled, and once more at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import REFERENCE_SPEED
from policy.completions import SpeedEvidence
from policy.durations import TemplateDurations
from policy.errors import InvalidInputError
from policy.heuristics import by_name
from policy.slowdowns import Slowdowns
from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.knowledge import Knowledge, Told, draw_told
from training.simulator.nodes import draw_nodes
from training.simulator.scenarios import Scenario
from training.simulator.simulation import Simulator
from training.simulator.ties import best_nodes, drawn_node

LONGEST: Final = 10
"""Arrivals per node, for each completion asked for and as many more, after which a warm-up ends in any case."""

_OTHER: Final = np.uint64(0x5EED0F0E11DA7A5E)
"""Makes the seeds of the warm-up's pods from those of the episode."""


@dataclass(frozen=True, slots=True)
class History:
    """Batch pods that completed, in order, ``[pods]`` each."""

    row: NDArray[np.int64]  # cluster
    node: NDArray[np.int64]
    template: NDArray[np.int64]  # as `training.simulator.pod_templates.template_of` counts
    cpu_s: FloatArray  # CPU time, seconds
    run_s: FloatArray  # time from binding to end, seconds
    at: FloatArray  # when it ended, seconds
    used: FloatArray  # CPU use over capacity of its node then


def tell(
    scenario: Scenario, seeds: Seeds, load: float | FloatArray | None, known: Knowledge | Sequence[Knowledge]
) -> Told:
    """Return what schedulers are told in the episodes of these seeds, learned where it is to be learned.

    Args:
        scenario: what is simulated, with its number of nodes.
        seeds: of the episodes, uint64 ``[clusters]``.
        load: of the episodes and of the time before, as `Simulator.reset` takes it.
        known: what the clusters show: one for all, or one for each.

    Raises:
        InvalidInputError: there is another number of `known` than of seeds.
    """
    each = [known] * len(seeds) if isinstance(known, Knowledge) else list(known)
    if len(each) != len(seeds):
        raise InvalidInputError(f"known says what {len(each)} clusters show; give one for each of {len(seeds)}")
    told = draw_told(each, seeds, draw_nodes(scenario, seeds).speed)
    learning = [row for row, one in enumerate(each) if one.speed == "learned" or one.urgency == "inferred"]
    wanted = np.array([each[row].completions for row in learning], dtype=np.int64)
    if not wanted.any():
        return told
    rows = np.array(learning, dtype=np.int64)
    some = np.broadcast_to(np.asarray(load, dtype=np.float64), len(seeds))[rows] if load is not None else None
    happened = history(scenario, seeds[rows], some, wanted)
    size = scenario.templates.count * len(scenario.pod_classes)
    told.expected_s = np.zeros((len(seeds), size))
    told.runs = np.zeros((len(seeds), size), dtype=np.int64)
    for place, row in enumerate(learning):
        _learn(told, row, happened, happened.row == place, int(wanted[place]), each[row])
    return told


def history(scenario: Scenario, seeds: Seeds, load: FloatArray | None, wanted: NDArray[np.int64]) -> History:
    """Run the time before the episodes of these seeds, and return what completed.

    Args:
        scenario: what is simulated.
        seeds: of the episodes, uint64 ``[clusters]``.
        load: of each, ``[clusters]``; None draws it.
        wanted: completions per node after which a cluster is done, ``[clusters]``.
    """
    simulator = Simulator(scenario, len(seeds), seeds)
    others = draws.mix(seeds ^ _OTHER)
    simulator.reset(others, load, machines=seeds)
    rule = by_name("kube-default")
    parts: list[tuple[NDArray[Any], ...]] = []
    done = np.zeros((len(seeds), simulator.nodes), dtype=np.int64)
    most = LONGEST * simulator.nodes * (int(wanted.max()) + LONGEST)
    index, decision = np.arange(simulator.nodes), 0
    while (done < wanted[:, None]).any() and decision < most:
        best = best_nodes(rule.preferences(simulator.state, simulator.demand), simulator.feasible, rule.name)
        luck = draws.uniform(others[:, None], Stream.TIES, decision * simulator.nodes + index)
        part = simulator.step(drawn_node(best, luck)).completed
        decision += 1
        if part is not None:
            template = simulator.template_of(part.row, part.number, part.kind, part.work)
            parts.append((part.row, part.node, template, part.cpu_s, part.run_s, part.at, part.used))
            np.add.at(done, (part.row, part.node), 1)
    if not parts:
        none, never = np.zeros(0, dtype=np.int64), np.zeros(0)
        return History(none, none, none, never, never, never, never)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[-2], kind="stable")
    return History(*(column[order] for column in columns))


def _learn(told: Told, row: int, happened: History, mine: NDArray[np.bool_], wanted: int, known_by: Knowledge) -> None:
    """Let one cluster learn from what completed there (`mine`), the first `wanted` on each node."""
    nodes, templates = told.speed.shape[1], told.expected_s.shape[1]
    evidence, durations = SpeedEvidence(nodes=nodes, templates=templates), TemplateDurations(templates=templates)
    names = [f"node-{number}" for number in range(nodes)]
    known, speed, slowdowns = told.speed[row], known_by.speed == "learned", Slowdowns()
    taken, counts, last = 0, [0] * nodes, 0.0
    columns = (happened.node, happened.template, happened.cpu_s, happened.run_s, happened.at, happened.used)
    for node, template, cpu_s, run_s, at, used in zip(*(column[mine].tolist() for column in columns), strict=True):
        if counts[node] == wanted:
            continue
        counts[node] += 1
        taken, last = taken + 1, at
        evidence.completed(names[node], str(template), cpu_s, at)
        slowdowns.completed(names[node], str(template), run_s, cpu_s, at, used)
        durations.completed(str(template), run_s, float(known[node]), at)
        if speed and taken & (taken - 1) == 0:
            known[:] = _speeds(evidence, names, at)
    if speed:
        known[:] = _speeds(evidence, names, last)
    if known_by.throttling:
        known *= [slowdowns.share_left(name, last) for name in names]
    for template in range(templates):
        expected = durations.expected_s(str(template))
        if expected is not None:
            told.expected_s[row, template], told.runs[row, template] = expected.seconds, expected.runs


def _speeds(evidence: SpeedEvidence, names: Sequence[str], at: float) -> list[float]:
    """Speeds as fitted now; a node without an estimate counts as the reference."""
    found = evidence.refit(at).estimates
    return [found[name].speed if name in found else REFERENCE_SPEED for name in names]
