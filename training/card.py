"""The model card of an exported policy: how it was trained, what it gives on held-out episodes, its limits."""

from __future__ import annotations

from typing import Any, Final

from policy.heuristics import NEWEST_KUBERNETES
from training.config import PROXIMAL, ActorConfig, TrainingConfig
from training.evaluation.protocol import SLA
from training.evaluation.suites import VERSUS_FIRST, Results, markdown_table, percent
from training.simulator.conditions import Condition

CARD_SUITES: Final = (
    Condition("reference", 0.3),
    Condition("reference", 0.4),
    Condition("reference", 0.55),
    Condition("reference", 0.4, nodes=50, episodes=16),
    Condition("reference", 0.55, nodes=50, episodes=16),
)
"""What the card reports on: the reference scenario at three loads, and five times its size at two."""


def render_card(config: TrainingConfig, training: dict[str, Any], results: Results) -> str:
    """The card's text; ``{parameters}``, ``{parity}``, ``{bytes}`` and ``{sha256}`` are left for the export to fill in.

    Args:
        config: of the run.
        training: provenance: ``command``, ``updates``, ``seconds``, ``best``.
        results: of the policy, which comes first, and every rule; empty where nothing was played, and the card says so.
    """
    arenas = "\n".join(
        f"- {arena.scenario}, {arena.nodes or 'its own number of'} nodes, {arena.clusters} clusters at once, "
        f"share {arena.share:g} of the updates"
        + (f", machines: {', '.join(each.name for each in arena.node_classes)}" if arena.node_classes else "")
        for arena in config.arenas
    )
    return f"""# Model card: {config.name}

{_actors(config.actor)} for scheduling pods, one agent per node: eight features in, bids on four criteria out.
Exported by `maddpg-train export`; every number below was measured by it.

| | |
|---|---|
| algorithm | {_algorithm(config)} |
| trained parameters | {{parameters}} |
| file | {{bytes}} bytes, sha256 `{{sha256}}` |
| ONNX Runtime against torch | differs by {{parity}} at most: 10,000 random observations, by 1, 10, 500, 5,000 |
| command | `{training["command"]}` |
| training seed | {config.seed} |
| training time | {training["seconds"] / 60:.1f} min, {config.updates} updates, {training["threads"]} torch threads |
| checkpoint | {_checkpoint(config, training)} |

## Training data

Simulated clusters only; nothing from a real cluster. Node mixes are drawn anew for every cluster and episode; offered
load is uniform in {config.load.low:g} to {config.load.high:g} of the speed-weighted CPU capacity.

{arenas}

## Held-out results

{_held_out_section(config.name, results)}

## The full study

`maddpg-train report` plays every scenario, load and size; its report lies beside this card as `evaluation.md`.

<!-- evaluation -->
<!-- /evaluation -->

## Limits

- One training seed. A claim about the algorithm needs several: the report's section on training seeds has them.
- The numbers hold for the simulator, whose constants are published figures or stated assumptions.
- Where nodes are alike, use equals requests and nothing is urgent, there is nothing to win: expect a tie.
- It minimises missed SLAs first, so fast nodes may be used more than slow ones; the study says how even load is.
"""


def _algorithm(config: TrainingConfig) -> str:
    """Return the algorithm and its critic."""
    if config.algorithm in PROXIMAL:
        critic = "one of each node's own observation" if config.algorithm == "ippo" else "set critic"
        return f"{config.algorithm} of BenchMARL, {critic}"
    return f"{config.algorithm}, {config.critic.kind} critic{', twin' if config.critic.twin else ''}"


def _checkpoint(config: TrainingConfig, training: dict[str, Any]) -> str:
    """Which of a run's actors this is, and its selection score."""
    best = training["best"]
    if not best:
        return f"the last one, after {training['updates']} updates; no selection suites were configured"
    between = f", {best['blend']:.0%} of the way there from the initial weights," if "blend" in best else ""
    return (
        f"chosen at update {best['updates']} of {config.updates}{between} by its mean SLA violation rate relative to "
        f"`expected-speed` on selection episodes (seed {config.selection.seed}): {best['score']:.3f}"
    )


def _actors(settings: ActorConfig) -> str:
    """What bids, as the subject of a sentence."""
    bids = "" if settings.criteria == "all" else ", with plain bids (on the constant criterion alone),"
    if settings.kind == "shared":
        return f"A shared actor{bids}"
    edges = ", ".join(f"{boundary:g}" for boundary in settings.speed_classes)
    return f"{len(settings.speed_classes) + 1} actors{bids}, by class of node speed (boundaries at {edges}),"


def _held_out_section(policy: str, results: Results) -> str:
    if not results:
        return "None were played at export."
    return f"""Share of pods that missed their SLA, in percent, with 95 % bootstrap intervals over episodes, on test
seeds, which neither training nor selection meets. Columns are scenario, nodes (where not the scenario's) and offered
load. Placement is by highest preference, ties at random. kube-default gives the default scores of kube-scheduler
{NEWEST_KUBERNETES}.

{markdown_table(results)}

Against the best rule of each column, paired by episode:

{_verdict(policy, results)}"""


def _verdict(policy: str, results: Results) -> str:
    """Where the policy wins and where it does not: paired differences to the best rule, intervals without 0 decide."""
    sentences = []
    for suite, scorers in results.items():
        rivals = {name: metrics[SLA] for name, metrics in scorers.items() if name != policy}
        best = min(rivals, key=lambda name: rivals[name].value)
        gain = scorers[best][VERSUS_FIRST]
        relation = "below" if gain.low > 0.0 else "above" if gain.high < 0.0 else "not distinguishable from"
        sentences.append(
            f"- {suite}: {relation} the best rule, {best}; that rule less this policy: {percent(gain)} points."
        )
    return "\n".join(sentences)
