"""What the simulator says of the proof's cluster, played before anybody looks at what came of it.

The scenario has the machines and Jobs of `tests.proof.machines` and `tests.proof.work` in units of a twentieth of a
core and of 32 MiB, since the simulator's requests are in eighths. Its physics stay as they are. Two things differ by
construction: a throttled node's tasks stand still for a share of the time however many there are, where a quota slows
none that fits in it; and no container has to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policy import heuristics
from policy.bundle import load_bundle, shipped_bundle_path
from tests.proof.machines import CORES, KINDS, MEMORY_GIB
from tests.proof.switchback import USAGE_INTERVAL_S, Plan
from tests.proof.work import LIMIT_CORES, SLACK, TEMPLATES
from training.evaluation.protocol import SLA, evaluate
from training.evaluation.statistics import Estimate, estimate, paired_difference
from training.simulator.conditions import Condition
from training.simulator.draws import episode_seeds
from training.simulator.nodes import draw_nodes
from training.simulator.scenarios import Hidden, Measurement, NodeClass, PodClass, Scenario

UNIT_CORES: Final = 0.05
UNIT_MIB: Final = 32.0
EPISODES: Final = 48
USED_MIB: Final = {"copying": 110.0}
"""What a container really holds, where that is more than some 12 MiB."""


def scenario(plan: Plan, nominal_s: Mapping[str, float]) -> Scenario:
    """The cluster, without where which node stands.

    Args:
        plan: of the experiment.
        nominal_s: template -> seconds from creation to the end, alone on a fast node.
    """
    cores, memory = CORES / UNIT_CORES, MEMORY_GIB * 1024.0 / UNIT_MIB
    throttled = [kind for kind in KINDS if kind.cores < CORES]
    speeds = {kind.factor for kind in KINDS}
    classes = tuple(
        NodeClass(f"speed-{1.0 / factor:g}", cores, memory, 1.0 / factor, sum(kind.factor == factor for kind in KINDS))
        for factor in sorted(speeds)
    )
    pods = tuple(
        PodClass(
            name=template.name,
            kind="bandwidth" if template.name in USED_MIB else "cpu",
            weight=template.weight,
            cpu=(round(template.cpu / UNIT_CORES * 8.0) / 8.0,) * 2,
            memory=(float(template.memory.removesuffix("Mi")) / UNIT_MIB,) * 2,
            duration=nominal_s[template.name],
            duration_sigma=0.05,
            slack=SLACK,
            cpu_use=LIMIT_CORES / template.cpu,
            memory_use=USED_MIB.get(template.name, 12.0) / float(template.memory.removesuffix("Mi")),
        )
        for template in TEMPLATES
    )
    arrivals = round(plan.rate * plan.block_s * plan.pairs)
    return Scenario(
        name="proof",
        version=1,
        description="The cluster of make proof.",
        nodes=len(KINDS),
        load=(plan.load, plan.load),
        episode_arrivals=arrivals,
        warmup_arrivals=round(arrivals * plan.dropped_s / plan.block_s),
        node_classes=classes,
        pod_classes=pods,
        hidden=Hidden(
            throttled_share=len(throttled) / len(KINDS), throttled_loss=1.0 - throttled[0].cores / CORES
        ),
        measurement=Measurement(
            scrape_interval=(USAGE_INTERVAL_S, USAGE_INTERVAL_S + 5.0), estimated_pressure_share=1.0
        ),
    )  # fmt: skip


def predict(plan: Plan, nominal_s: Mapping[str, float], completions: int) -> dict[str, Estimate]:
    """SLA violations in percent that the simulator expects under each scheduler, and their difference.

    Args:
        plan: of the experiment.
        nominal_s: as for `scenario`.
        completions: pods per node from which ours has learned at the start.
    """
    made = scenario(plan, nominal_s)
    work = sum(t.weight * nominal_s[t.name] * LIMIT_CORES / UNIT_CORES for t in TEMPLATES)
    capacity = sum(CORES / UNIT_CORES / kind.factor for kind in KINDS)
    load = plan.rate * work / capacity
    policy, rule = load_bundle(shipped_bundle_path()).scorer(), heuristics.by_name("kube-default")
    condition = Condition(made, load, episodes=1, told=f"learned-throttling-{completions}")
    found: dict[str, list[float]] = {policy.name: [], rule.name: []}
    seed = 0
    while len(found[rule.name]) < EPISODES:
        if _same_machines(made, seed):
            played = evaluate([policy, rule], condition, range(seed, seed + 1))
            for name, values in found.items():
                values.append(100.0 * float(played.values[name][SLA][0]))
        seed += 1
    ours, theirs = found.values()
    return {
        "maddpg-scheduler": estimate(ours),
        "kube-scheduler": estimate(theirs),
        "difference": paired_difference(ours, theirs),
    }


def _same_machines(made: Scenario, seed: int) -> bool:
    """Whether an episode draws just the cluster's machines, in any order."""
    nodes = draw_nodes(made, episode_seeds(range(seed, seed + 1)))
    drawn = zip(nodes.speed[0].tolist(), (nodes.throttled[0] > 0.0).tolist(), strict=True)
    return sorted(drawn) == sorted((1.0 / kind.factor, kind.cores < CORES) for kind in KINDS)
