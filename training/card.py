"""The model card of an exported policy: how it was trained, what it gives on held-out episodes, its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from policy import heuristics
from policy.scorers import Scorer
from training.config import SuiteConfig, TrainingConfig
from training.learning.selection import suite_name, violation_rate

TEST_SEED: Final = 7_000_000
"""Held-out episodes of the card; neither training nor selection draws from it."""

CARD_SUITES: Final = (
    SuiteConfig(scenario="reference", load=0.3, clusters=64),
    SuiteConfig(scenario="reference", load=0.4, clusters=64),
    SuiteConfig(scenario="reference", load=0.55, clusters=64),
    SuiteConfig(scenario="reference", nodes=50, load=0.4, clusters=16),
    SuiteConfig(scenario="reference", nodes=50, load=0.55, clusters=16),
)
"""What the card reports on: the reference scenario at three loads, and five times its size."""


def held_out_rates(scorer: Scorer, suites: Sequence[SuiteConfig]) -> dict[str, dict[str, float]]:
    """SLA violation rate by suite and scorer: `scorer` and every heuristic, on the same held-out episodes."""
    generator = np.random.default_rng(TEST_SEED)
    scorers: list[Scorer] = [scorer, *heuristics.DETERMINISTIC.values(), heuristics.Random(generator)]
    return {
        suite_name(suite): {each.name: violation_rate(each, suite, TEST_SEED) for each in scorers} for suite in suites
    }


def render_card(config: TrainingConfig, training: dict[str, Any], rates: dict[str, dict[str, float]]) -> str:
    """The card's text; ``{parameters}``, ``{parity}``, ``{bytes}`` and ``{sha256}`` are left for the export to fill in.

    Args:
        config: of the run.
        training: provenance: ``command``, ``updates``, ``seconds``, ``best``.
        rates: as `held_out_rates` gives them.
    """
    arenas = "\n".join(
        f"- {arena.scenario}, {arena.nodes or 'its own number of'} nodes, {arena.clusters} clusters at once, "
        f"share {arena.share:g} of the updates"
        for arena in config.arenas
    )
    best = training["best"]
    chosen = (
        f"chosen at update {best['updates']} of {config.updates} by its mean SLA violation rate relative to "
        f"`expected-speed` on selection episodes (seed {config.selection.seed}): {best['score']:.3f}"
        if best
        else f"the last one, after {training['updates']} updates; no selection suites were configured"
    )
    return f"""# Model card: {config.name}

A shared actor for scheduling pods, one agent per node: eight features in, bids on four criteria out. Exported by
`maddpg-train export`; every number below was measured by it.

| | |
|---|---|
| algorithm | {config.algorithm}, {config.critic.kind} critic{", twin" if config.critic.twin else ""} |
| trained parameters | {{parameters}} |
| file | {{bytes}} bytes, sha256 `{{sha256}}` |
| ONNX Runtime against torch | differs by {{parity}} at most: 10,000 random observations, by 1, 10, 500, 5,000 |
| command | `{training["command"]}` |
| training seed | {config.seed} |
| training time | {training["seconds"] / 60:.1f} min, {config.updates} updates, {training["threads"]} torch threads |
| checkpoint | {chosen} |

## Training data

Simulated clusters only; nothing from a real cluster. Node mixes are drawn anew for every cluster and episode; offered
load is uniform in {config.load.low:g} to {config.load.high:g} of the speed-weighted CPU capacity.

{arenas}

## Held-out results

Share of pods that missed their SLA, in percent, on episodes of seed {TEST_SEED}, which neither training nor selection
meets. Columns are scenario, nodes (where not the scenario's) and offered load. Placement is by highest preference,
ties at random.

{_table(rates)}

{_verdict(config.name, rates)}

## Limits

- One training seed. A claim about the algorithm needs several; `maddpg-train evaluate` gives intervals for this bundle.
- The numbers hold for the simulator, whose constants are published figures or stated assumptions.
- Where nodes are alike, use equals requests and nothing is urgent, there is nothing to win: expect a tie with
kube-default.
- It minimises missed SLAs, so fast nodes are used more than slow ones; load is spread less evenly than by kube-default.
"""


def _table(rates: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(rates.values())))
    lines = ["| policy | " + " | ".join(rates) + " |", "|---|" + "---|" * len(rates)]
    lines += [f"| {name} | " + " | ".join(f"{100 * row[name]:.2f}" for row in rates.values()) + " |" for name in names]
    return "\n".join(lines)


def _verdict(policy: str, rates: dict[str, dict[str, float]]) -> str:
    """Where the policy wins and where it does not, from the table itself."""
    sentences = []
    for suite, row in rates.items():
        rivals = {name: rate for name, rate in row.items() if name != policy}
        best = min(rivals, key=lambda name: rivals[name])
        relation = "below" if row[policy] < rivals[best] else "NOT below"
        sentences.append(f"- {suite}: {relation} the best rule there, {best} ({100 * rivals[best]:.2f} %).")
    return "\n".join(sentences)
