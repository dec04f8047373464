"""The whole evaluation of policies against baselines: what is played, and which goals the numbers reach.

Every value in the result comes from episodes played here; nothing is copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from policy.scorers import Scorer
from training.evaluation.baselines import baselines
from training.evaluation.oracle import play_oracle
from training.evaluation.protocol import Evaluation, evaluate
from training.evaluation.statistics import Estimate, gap_closed, relative_change
from training.simulator.draws import TEST_SEEDS, FloatArray, episode_seeds
from training.simulator.scenarios import Scenario, load_scenario

GREEDY: Final = "kube-default"
RANDOM: Final = "random"
SLA: Final = "sla_violation_rate"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study plays; the defaults are the frozen suite.

    Attributes:
        episodes: episodes of each scenario and of each load of the sweep.
        scenarios: names, each at its own load.
        loads: offered loads of the sweep over the reference scenario, 10 nodes.
        sizes: other numbers of nodes of the reference scenario -> episodes.
        large_loads: offered loads of the sweep on 100 nodes.
        large_episodes: episodes of each of those.
        large_rivals: how many of the best rules meet the policy on other sizes; kube-default always does.
        arrivals_a_node: on more than 200 nodes, arrivals that count and warm up, for each node; less than the
            scenario's, for time.
        oracle_episodes: episodes the oracle plays; 0 leaves it out.
    """

    episodes: int = 64
    scenarios: tuple[str, ...] = ("reference", "steady", "peak", "burst", "services", "trace", "alike")
    loads: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6)
    sizes: dict[int, int] = field(default_factory=lambda: {50: 12, 200: 4, 1000: 1})
    large_loads: tuple[float, ...] = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
    large_episodes: int = 6
    large_rivals: int = 2
    arrivals_a_node: tuple[int, int] = (20, 8)
    oracle_episodes: int = 16


QUICK: Final = Plan(
    episodes=8,
    scenarios=("reference", "trace"),
    loads=(0.3, 0.5),
    sizes={20: 2},
    large_loads=(0.5,),
    large_episodes=1,
    oracle_episodes=2,
)
"""The same study in a minute, for tests and a first look; its intervals are wide."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what is to be reached.

    Attributes:
        name: what is measured, with scenario and load.
        value: what was measured; None where nothing could be.
        goal: the condition, in words.
        reached: whether it holds.
    """

    name: str
    value: float | None
    goal: str
    reached: bool


@dataclass(slots=True)
class Study:
    """What was played.

    Attributes:
        policy: name of the policy that the goals are about.
        rules: names of the baselines.
        evaluations: label, as ``reference@0.4`` or ``reference-50@0.4`` -> what happened.
        oracle: metric -> value of each episode of the oracle on the first reference episodes; empty without one.
    """

    policy: str
    rules: list[str]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    oracle: dict[str, FloatArray] = field(default_factory=dict)

    def rate(self, label: str, scorer: str) -> float:
        """Mean SLA violation rate."""
        return float(np.nanmean(self.evaluations[label].values[scorer][SLA]))

    def best_rule(self, label: str) -> str:
        """The baseline with the fewest SLA violations there."""
        known = [name for name in self.rules if name in self.evaluations[label].values]
        return min(known, key=lambda name: self.rate(label, name))


def label_of(scenario: Scenario, load: float, nodes: int | None = None) -> str:
    """How a study calls one condition."""
    return f"{scenario.name}{'' if nodes is None else f'-{nodes}'}@{load:g}"


def run_study(
    policies: Sequence[Scorer], plan: Plan | None = None, watch: Callable[[str], None] = lambda _: None
) -> Study:
    """Play the whole plan on test seeds; `watch` is told what comes next.

    Args:
        policies: at least one; the goals are about the first.
        plan: what is played; the frozen suite by default.
        watch: told the label of each condition before it is played.
    """
    plan = plan or Plan()
    rules = baselines()
    everybody = [*policies, *rules]
    study = Study(policies[0].name, [rule.name for rule in rules])
    reference = load_scenario("reference")

    def play(
        scenario: Scenario, load: float, episodes: int, scorers: Sequence[Scorer], nodes: int | None = None
    ) -> None:
        label = label_of(scenario, load, nodes)
        if label not in study.evaluations:
            watch(label)
            sized = scenario if nodes is None else _sized(scenario, nodes, plan)
            study.evaluations[label] = evaluate(scorers, sized, TEST_SEEDS[:episodes], load)

    for name in plan.scenarios:
        scenario = load_scenario(name)
        play(scenario, scenario.load[0], plan.episodes, everybody)
    for load in plan.loads:
        play(reference, load, plan.episodes, everybody)
    usual = label_of(reference, reference.load[0])
    rivals = sorted(rules, key=lambda rule: study.rate(usual, rule.name))[: plan.large_rivals]
    rivals += [rule for rule in rules if rule.name == GREEDY and rule not in rivals]
    few = [*policies, *rivals]
    for nodes, episodes in plan.sizes.items():
        play(reference, reference.load[0], episodes, few, nodes)
    for load in plan.large_loads:
        play(reference, load, plan.large_episodes, few, 100)
    if plan.oracle_episodes:
        watch("oracle")
        seeds = episode_seeds(TEST_SEEDS[: plan.oracle_episodes])
        study.oracle = play_oracle(reference, seeds, reference.load[0], policies[0])
    return study


def _sized(scenario: Scenario, nodes: int, plan: Plan) -> Scenario:
    if nodes <= 200:
        return scenario.resized(nodes)
    counted, warmup = plan.arrivals_a_node
    return replace(scenario.resized(nodes), episode_arrivals=(counted + warmup) * nodes, warmup_arrivals=warmup * nodes)


def judge(study: Study) -> list[Goal]:
    """Which goals the study's numbers reach, at the loads they are asked for and at every load of the sweep."""
    sweep = [label for label in study.evaluations if label.startswith("reference@")]
    goals: list[Goal] = []
    for label in sweep:
        goals += _against_greedy(study, label)
    for label in study.evaluations:
        best = study.best_rule(label)
        ours, theirs = study.rate(label, study.policy), study.rate(label, best)
        goals.append(
            Goal(f"{label}: SLA violations below the best rule ({best})", ours, f"< {theirs:.4f}", ours < theirs)
        )
    goals += _on_hundred(study)
    if study.oracle:
        goals.append(_gap(study))
    return goals


def _against_greedy(study: Study, label: str) -> list[Goal]:
    evaluation = study.evaluations[label]
    ours, greedy, random = (evaluation.values[name] for name in (study.policy, GREEDY, RANDOM))
    rate = float(np.nanmean(ours[SLA]))
    reward = relative_change(ours["reward"], greedy["reward"]).value
    versus_greedy = relative_change(ours[SLA], greedy[SLA]).value
    versus_random = relative_change(ours[SLA], random[SLA]).value
    done = float(np.nanmean(ours["completion_rate"]))
    allocated = float(np.nanmean(ours["cpu_allocated"]))
    return [
        Goal(f"{label}: reward against kube-default", reward, ">= 0.30", reward >= 0.30),
        Goal(f"{label}: SLA violations", rate, "< 0.03", rate < 0.03),
        Goal(f"{label}: SLA violations against kube-default", versus_greedy, "<= -0.65", versus_greedy <= -0.65),
        Goal(f"{label}: SLA violations against random", versus_random, "<= -0.89", versus_random <= -0.89),
        Goal(f"{label}: completion", done, "> 0.98", done > 0.98),
        Goal(f"{label}: CPU allocated", allocated, "> 0.85", allocated > 0.85),
    ]


def _on_hundred(study: Study) -> list[Goal]:
    loads = {float(label.split("@")[1]): label for label in study.evaluations if label.startswith("reference-100@")}
    if not loads:
        return []
    usual = loads[min(loads)]
    ours, greedy = study.rate(usual, study.policy), study.rate(usual, GREEDY)
    best = study.rate(usual, study.best_rule(usual))

    def highest(name: str) -> float | None:
        held = [load for load, label in loads.items() if study.rate(label, name) < 0.05]
        return max(held) if held else None

    mine = highest(study.policy)
    rules = [found for name in study.rules if name in study.evaluations[usual].values and (found := highest(name))]
    theirs = max(rules) if rules else None
    return [
        Goal(f"{usual}: SLA violations over kube-default's", _over(ours, greedy), "< 0.1", ours < 0.1 * greedy),
        Goal(f"{usual}: SLA violations over the best rule's", _over(ours, best), "< 1/3", ours < best / 3.0),
        Goal(
            "reference-100: highest load with SLA violations under 5 %",
            mine,
            "any, where no rule has one" if theirs is None else f">= {1.2 * theirs:.3g} (1.2 times the best rule's)",
            mine is not None and (theirs is None or mine >= 1.2 * theirs),
        ),
    ]


def _over(ours: float, theirs: float) -> float | None:
    return ours / theirs if theirs > 0.0 else None


def gap(study: Study) -> Estimate:
    """Gap between the best rule and the oracle that the policy closes, on the episodes that the oracle played."""
    label = next(label for label in study.evaluations if label.startswith("reference@"))
    values = study.evaluations[label].values
    best = study.best_rule(label)
    count = len(study.oracle[SLA])
    return gap_closed(values[study.policy][SLA][:count], values[best][SLA][:count], study.oracle[SLA])


def _gap(study: Study) -> Goal:
    closed = gap(study)
    return Goal("gap to the oracle closed", closed.value, ">= 0.5", closed.value >= 0.5)


def as_document(study: Study) -> dict[str, Any]:
    """What is written as `evaluation.json`: scenario -> scorer -> metric -> {mean, low, high, seeds}, and the goals."""
    results: dict[str, Any] = {}
    for label, evaluation in study.evaluations.items():
        results[label] = {}
        for scorer, metrics in evaluation.values.items():
            results[label][scorer] = {
                metric: _entry(evaluation, scorer, metric)
                for metric, values in metrics.items()
                if np.isfinite(values).any()
            }
    document: dict[str, Any] = {
        "policy": study.policy,
        "scenario_versions": {item.scenario.name: item.scenario.version for item in study.evaluations.values()},
        "scenarios": results,
        "goals": [
            {"name": goal.name, "value": _finite(goal.value), "goal": goal.goal, "pass": goal.reached}
            for goal in judge(study)
        ],
    }
    if study.oracle:
        closed = gap(study)
        document["oracle"] = {
            "mean_sla_violation_rate": float(np.nanmean(study.oracle[SLA])),
            "episodes": len(study.oracle[SLA]),
            "gap_closed": {
                "mean": _finite(closed.value),
                "low": _finite(closed.low),
                "high": _finite(closed.high),
            },
        }
    return document


def _finite(value: float | None) -> float | None:
    """None where nothing was measured to divide by: JSON has no NaN."""
    return value if value is not None and np.isfinite(value) else None


def _entry(evaluation: Evaluation, scorer: str, metric: str) -> dict[str, float | int]:
    mean, middle = evaluation.mean(scorer, metric), evaluation.middle(scorer, metric)
    return {
        "mean": mean.value,
        "low": mean.low,
        "high": mean.high,
        "interquartile_mean": middle.value,
        "seeds": int(np.isfinite(evaluation.values[scorer][metric]).sum()),
    }
