"""What a study plays: conditions, episodes and seeds. Nothing is played here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from training.simulator.conditions import Condition
from training.simulator.deviations import MEMORY, PHYSICS, find_scenario
from training.simulator.draws import TEST_SEEDS
from training.simulator.scenarios import Scenario, load_scenario

STUDY_SEEDS: Final = TEST_SEEDS[10_000:]
"""The episodes of a study. The first test seeds were looked at while the scenarios were calibrated and the rules tried,
and model cards report on them; nobody has looked at these before the policy was chosen."""

LARGE: Final = 100
"""Nodes of the sweep for the highest load."""

TRACE_FILE_SCENARIO: Final = "openb"
"""How the trace scenario is called when it plays a file given by the caller instead of the sample that ships."""

GREEDY: Final = "kube-default"
RANDOM: Final = "random"
REFERENCE: Final = "reference"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study plays; the defaults are the frozen suite."""

    episodes: int = 128  # episodes of each scenario and of each load of the sweep
    # names, each at its own load
    scenarios: tuple[str, ...] = (REFERENCE, "steady", "peak", "burst", "services", "trace", "alike", "unseen")
    # offered loads of the sweep over the reference scenario, 10 nodes
    loads: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    further_episodes: int = 48  # episodes of each variant, and of each load with other knowledge
    # variants of the reference scenario, each at its loads
    variants: tuple[tuple[str, float], ...] = (
        *(("urgent", load) for load in (0.25, 0.4)),
        *((name, 0.4) for name in ("first-look", "three", *PHYSICS)),
    )
    # offered loads of the variants whose pods use more memory than they request
    memory_loads: tuple[float, ...] = (0.2, 0.4, 0.6)
    memory_episodes: int = 16  # episodes of each of those
    # other numbers of nodes of the reference scenario -> episodes
    sizes: dict[int, int] = field(default_factory=lambda: {50: 12, 200: 4, 1000: 2})
    # offered loads of the sweep on `LARGE` nodes
    large_loads: tuple[float, ...] = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
    large_episodes: int = 12  # episodes of each of those
    best_rivals: int = 3  # how many of the best rules on ten nodes meet the policy on other sizes, besides `rivals`
    # rules that meet the policy on every size
    rivals: tuple[str, ...] = (GREEDY, RANDOM, "expected-speed", "sufficient-speed", "static-weights")
    # on more than 200 nodes, arrivals that count and warm up, for each node; less than the scenario's, for time
    arrivals_a_node: tuple[int, int] = (20, 8)
    oracle_episodes: int = 32  # episodes the oracle plays; 0 leaves it out
    # what the reference scenario is played with besides the labels, names of `training.simulator.knowledge`
    told: tuple[str, ...] = ("learned", "unlabelled", "bare")
    told_loads: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6)  # at these loads


QUICK: Final = Plan(
    episodes=4,
    scenarios=(REFERENCE, "unseen"),
    loads=(0.3, 0.5),
    further_episodes=2,
    variants=(("urgent", 0.4),),
    memory_loads=(),
    told=("learned",),
    told_loads=(0.4,),
    sizes={20: 2},
    large_loads=(0.4, 0.6),
    large_episodes=1,
    oracle_episodes=2,
)
"""The same study in about a minute, for a first look; its intervals are wide."""


def usual_label() -> str:
    """The condition of every headline: the reference scenario at its own load."""
    return Condition(REFERENCE, load_scenario(REFERENCE).load[0]).label


def small_conditions(plan: Plan, trace: Path | None = None) -> list[Condition]:
    """Every scenario, load of the sweep and kind of knowledge, the usual one first; the caller's trace as `openb`."""
    reference = load_scenario(REFERENCE)
    found = [Condition(reference, reference.load[0], episodes=plan.episodes)]
    scenarios = [load_scenario(name) for name in plan.scenarios]
    if trace is not None:
        sample = load_scenario("trace")
        arrivals = replace(sample.arrivals, trace=str(trace))
        scenarios.append(replace(sample, name=TRACE_FILE_SCENARIO, arrivals=arrivals))
    found += [Condition(scenario, scenario.load[0], episodes=plan.episodes) for scenario in scenarios]
    found += [Condition(reference, load, episodes=plan.episodes) for load in plan.loads]
    few = plan.further_episodes
    found += [Condition(reference, load, episodes=few, told=told) for told in plan.told for load in plan.told_loads]
    found += [Condition(find_scenario(name), load, episodes=few) for name, load in plan.variants]
    memory = [find_scenario(name) for name in MEMORY]
    found += [Condition(each, load, episodes=plan.memory_episodes) for each in memory for load in plan.memory_loads]
    return list({condition.label: condition for condition in found}.values())


def large_conditions(plan: Plan) -> list[Condition]:
    """The other sizes of the reference scenario, and the sweep on `LARGE` nodes."""
    reference = load_scenario(REFERENCE)
    usual = reference.load[0]
    others = [
        Condition(_sized(reference, nodes, plan), usual, nodes, episodes) for nodes, episodes in plan.sizes.items()
    ]
    return others + [Condition(reference, load, LARGE, plan.large_episodes) for load in plan.large_loads]


def _sized(scenario: Scenario, nodes: int, plan: Plan) -> Scenario:
    if nodes <= 200:
        return scenario.resized(nodes)
    counted, warmup = plan.arrivals_a_node
    return replace(scenario.resized(nodes), episode_arrivals=(counted + warmup) * nodes, warmup_arrivals=warmup * nodes)
