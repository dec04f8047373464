"""Policies against rivals on the same held-out episodes: rates and paired differences. Needs no BenchMARL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from policy.scorers import Scorer
from training.evaluation import tables
from training.evaluation.compare import difference
from training.evaluation.plan import STUDY_SEEDS
from training.evaluation.protocol import SLA, evaluate
from training.learning.loop import PROVENANCE
from training.simulator.conditions import Condition

RULES: Final = ("marginal-cost", "kube-default")
"""The rules that the policies meet: the best one, and what clusters have."""

CONDITIONS: Final = (
    *(("labelled", load) for load in (0.2, 0.4, 0.6)),
    ("learned", 0.4),
    ("unlabelled", 0.4),
)
"""What schedulers are told, and the offered load, on scenario `reference`."""


def conditions(episodes: int) -> list[Condition]:
    """Return what is played."""
    return [Condition("reference", load, None, episodes, told) for told, load in CONDITIONS]


def verdicts(
    policies: Sequence[Scorer],
    rivals: Sequence[Scorer],
    played: Sequence[Condition],
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Play every condition once with everybody.

    Args:
        policies: each is compared with every rival.
        rivals: what they are compared with.
        played: the conditions; their episodes are the first of `STUDY_SEEDS`, those of the committed report.
        watch: is told the name of each condition before it is played.

    Returns:
        Condition -> ``rates`` (scorer -> mean, low, high of SLA violations) and ``differences`` (policy less rival, as
        `training.evaluation.compare.Difference` has them, with its verdict).
    """
    found = {}
    for condition in played:
        watch(condition.label)
        evaluation = evaluate([*policies, *rivals], condition, STUDY_SEEDS)
        rates = {each.name: evaluation.mean(each.name, SLA) for each in [*policies, *rivals]}
        pairs = [
            difference(evaluation, policy.name, rival.name, SLA, condition.label)
            for policy in policies
            for rival in rivals
        ]
        found[condition.label] = {
            "episodes": condition.episodes,
            "rates": {name: {"mean": rate.value, "low": rate.low, "high": rate.high} for name, rate in rates.items()},
            "differences": [{**asdict(pair), "verdict": pair.verdict} for pair in pairs],
        }
    return found


def provenance(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of how a policy was trained, without its settings and held-out results."""
    return {name: training[name] for name in (*PROVENANCE, "versions")}


def markdown(document: dict[str, Any]) -> str:
    """Return two tables in percent: everybody's SLA violations, and each policy less each rival."""
    scorers = next(iter(document.values()))["rates"]
    rates = [[name, *(_percent(each["rates"][name]) for each in document.values())] for name in scorers]
    pairs = [(pair["first_name"], pair["second_name"]) for pair in next(iter(document.values()))["differences"]]
    differences = [
        [f"{first} - {second}", *(_points(each["differences"][row]) for each in document.values())]
        for row, (first, second) in enumerate(pairs)
    ]
    header = list(document)
    return "\n".join(
        [
            *tables.markdown(["SLA violations, %", *header], rates),
            "",
            *tables.markdown(["points", *header], differences),
        ]
    )


def _percent(rate: Mapping[str, float]) -> str:
    return tables.percent(rate["mean"], rate["low"], rate["high"])


def _points(pair: dict[str, Any]) -> str:
    """Return a difference in percentage points; bold where the whole interval is on one side."""
    ends = pair["difference"]
    text = f"{100 * ends['value']:+.2f} ({100 * ends['low']:+.2f} to {100 * ends['high']:+.2f})"
    return f"**{text}**" if pair["better"] else text
