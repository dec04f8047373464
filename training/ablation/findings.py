"""What the runs show: one row a variant, as JSON, Markdown and a figure. Plays the rules too; trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from policy.errors import InvalidInputError
from training.ablation.runner import Results
from training.ablation.variants import BASE, Variants
from training.evaluation import tables
from training.evaluation.baselines import baselines
from training.evaluation.protocol import SLA, evaluate
from training.evaluation.statistics import crossed_estimate, crossed_improvement, interquartile_mean
from training.evaluation.tables import percent
from training.files import write_json, write_text

RULES: Final = ("sufficient-speed", "expected-speed", "kube-default", "random")
"""Rules played beside the trained policies; a run whose last checkpoint misses more than the last one has diverged."""

CHECKPOINTS: Final = ("selected", "last")
Rates = NDArray[np.float64]


def play_rules(plan: Variants) -> dict[str, Rates]:
    """SLA violation rates ``[episodes]`` of the rules on the plan's episodes."""
    rules = [rule for rule in baselines() if rule.name in RULES]
    played = evaluate(rules, plan.play.condition, plan.play.seeds)
    return {name: played.values[name][SLA] for name in RULES}


def summarise(plan: Variants, results: Results, rules: Mapping[str, Rates]) -> dict[str, Any]:
    """Everything the report says, as JSON holds it.

    Raises:
        InvalidInputError: no episode decided a pod's SLA with every policy.
    """
    played = {
        name: {which: np.array([runs[seed][which] for seed in sorted(runs)], dtype=np.float64) for which in CHECKPOINTS}
        for name, runs in results.items()
    }
    stacked = [table for pair in played.values() for table in pair.values()] + [rates[None] for rates in rules.values()]
    known = np.isfinite(np.concatenate(stacked)).all(axis=0)
    if not known.any():
        raise InvalidInputError("no episode decides a pod's SLA; give play.scenario more episode_arrivals")
    worst = rules[RULES[-1]][known].mean()
    variants: dict[str, Any] = {}
    for variant in plan.variants:
        runs, seeds = results[variant.name], sorted(results[variant.name])
        rates = {which: played[variant.name][which][:, known] for which in CHECKPOINTS}
        variants[variant.name] = {
            "about": variant.about,
            "settings": dict(variant.settings),
            "seeds": seeds,
            SLA: {which: asdict(crossed_estimate(rates[which], interquartile_mean)) for which in CHECKPOINTS},
            "by_seed": {which: [round(float(mean), 6) for mean in rates[which].mean(axis=1)] for which in CHECKPOINTS},
            "improvement_on_base": {
                which: asdict(crossed_improvement(rates[which], played[BASE][which][:, known]))
                for which in CHECKPOINTS
                if variant.name != BASE
            },
            "diverged": [
                seed
                for seed, mean in zip(seeds, rates["last"].mean(axis=1), strict=True)
                if runs[seed]["not_finite"] is not None or mean > worst
            ],
            "actor_parameters": runs[seeds[0]]["parameters"],
            "updates": variant.config.updates,
            "seconds": round(float(np.mean([runs[seed]["seconds"] for seed in seeds])), 1),
        }
    return {
        "play": {
            **plan.play.model_dump(mode="json"),
            "first_seed": plan.play.seeds.start,
            "counted": int(known.sum()),
        },
        "variants": variants,
        "rules": {
            name: {SLA: asdict(crossed_estimate(rates[known], interquartile_mean))} for name, rates in rules.items()
        },
    }


def write_report(document: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``ablations.json``, ``ablations.md`` and ``ablations.png`` into `out`; their paths."""
    paths = [out / f"ablations.{ending}" for ending in ("json", "md", "png")]
    try:
        write_json(paths[0], document)
        write_text(paths[1], markdown(document))
        _draw(document, paths[2])
    except OSError as error:
        raise InvalidInputError(f"--out {out} cannot be written ({error.strerror}); give another folder") from error
    return paths


def markdown(document: Mapping[str, Any]) -> str:
    """The table with what its columns mean."""
    play, variants = document["play"], document["variants"]
    base = variants[BASE]
    rows = []
    for name, each in variants.items():
        improvement = each["improvement_on_base"]
        cells = [f"**{name}**: {each['about']}" if name != BASE else f"**{name}**"]
        for which in CHECKPOINTS:
            chance = "{value:.2f} ({low:.2f}-{high:.2f})".format(**improvement[which]) if improvement else ""
            cells += [percent(**each[SLA][which]), chance]
        diverged = f"{len(each['diverged'])} of {len(each['seeds'])}"
        rows.append([*cells, diverged, f"{each['actor_parameters']:,}"])
    header = ["variant", "selected %", "P", "last %", "P", "diverged", "actor parameters"]
    rules = [[name, percent(**each[SLA])] for name, each in document["rules"].items()]
    line = "\n"
    return f"""# Ablations

{len(variants)} variants, training seeds {", ".join(map(str, base["seeds"]))}, {base["updates"]} updates each. Every
trained policy played the same {play["counted"]} test episodes of `{play["scenario"]}` at load {play["load"]:g}.

SLA violations in percent: interquartile mean over seeds and episodes, with a 95 % bootstrap interval that resamples
both. P is the probability that a run of the variant has fewer violations than a run of the base in an episode that both
met; one half is no difference. *Selected* is the checkpoint that did best on selection seeds, *last* the one the run
ended with. A run has diverged if a loss stopped being finite or its last checkpoint misses more SLAs than random
placement.

{line.join(tables.markdown(header, rows))}

On the same episodes:

{line.join(tables.markdown(["rule", "SLA violations %"], rules))}

![SLA violations by variant](ablations.png)
"""


def _draw(document: Mapping[str, Any], path: Path) -> None:
    """One line a variant: intervals of both checkpoints, with the best rule as a mark."""
    names = list(document["variants"])
    figure = Figure(figsize=(7.0, 1.4 + 0.34 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for offset, which in zip((-0.13, 0.13), CHECKPOINTS, strict=True):
        found = [document["variants"][name][SLA][which] for name in names]
        values = np.array([[100 * each[key] for key in ("value", "low", "high")] for each in found])
        # The percentile interval of a skewed statistic may leave its value out by a hair.
        spread = np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0.0, None)
        axes.errorbar(values[:, 0], np.arange(len(names)) + offset, xerr=spread, fmt="o", capsize=3, label=which)
    rule, rates = next(iter(document["rules"].items()))
    axes.axvline(100 * rates[SLA]["value"], color="grey", linestyle="--", label=rule)
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("SLA violations, % (interquartile mean, 95 % interval)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
