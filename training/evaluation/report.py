"""A study on paper: `evaluation.json`, `evaluation.md` and figures. Says where the policy ties or loses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from training.evaluation.plots import draw_all
from training.evaluation.statistics import improvement_probability, paired_difference
from training.evaluation.study import SLA, Study, as_document
from training.simulator.metrics import METRICS

JSON_FILE: Final = "evaluation.json"
MARKDOWN_FILE: Final = "evaluation.md"
FIGURES_FOLDER: Final = "figures"
SHOWN: Final = ("reward", SLA, "completion_rate", "lateness", "cpu_used", "cpu_allocated", "load_variance")


def write_report(study: Study, folder: Path) -> list[Path]:
    """Write JSON, Markdown and figures into the folder, which is made if absent; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    document = as_document(study)
    json_path, markdown_path = folder / JSON_FILE, folder / MARKDOWN_FILE
    json_path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    figures = draw_all(study, folder / FIGURES_FOLDER)
    markdown_path.write_text(_markdown(study, document, figures), encoding="utf-8")
    return [json_path, markdown_path, *figures]


def _markdown(study: Study, document: dict[str, Any], figures: list[Path]) -> str:
    lines = [f"# Evaluation of {study.policy}", ""]
    lines += [
        "Means over test episodes with 95 % bootstrap intervals; every scorer met the same episodes.",
        "`greedy` is kube-default.",
        "",
        "## Goals",
        "",
        "| measure | value | goal | reached |",
        "|---|---|---|---|",
    ]
    for goal in document["goals"]:
        value = "-" if goal["value"] is None else f"{goal['value']:.4g}"
        lines.append(f"| {goal['name']} | {value} | {goal['goal']} | {'yes' if goal['pass'] else '**no**'} |")
    if "oracle" in document:
        closed = document["oracle"]["gap_closed"]
        lines += [
            "",
            f"The oracle has {document['oracle']['mean_sla_violation_rate']:.2%} SLA violations over "
            f"{document['oracle']['episodes']} episodes; the policy closes {_share(closed['mean'])} "
            f"[{_share(closed['low'])}, {_share(closed['high'])}] of the gap between the best rule and it.",
        ]
    lines += ["", "## Wins, ties and losses", "", *_verdicts(study), "", "## Metrics", ""]
    lines += [f"- `{name}`: {METRICS[name]}" for name in SHOWN]
    for label, scorers in document["scenarios"].items():
        lines += ["", f"## {label}", "", "| scorer | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
        for scorer, metrics in sorted(scorers.items(), key=lambda item: item[1][SLA]["mean"]):
            cells = " | ".join(_cell(metrics[name]) if name in metrics else "-" for name in SHOWN)
            lines.append(f"| {scorer} | {cells} |")
        seeds = next(iter(scorers.values()))[SLA]["seeds"]
        lines.append(f"\n{seeds} episodes.")
    lines += ["", "## Figures", ""]
    lines += [f"![{path.stem}]({FIGURES_FOLDER}/{path.name})" for path in figures]
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.0%}"


def _cell(entry: dict[str, float]) -> str:
    return f"{entry['mean']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]"


def _verdicts(study: Study) -> list[str]:
    """One line for each condition: the policy against the best rule there, episode by episode."""
    lines = [
        "| condition | best rule | difference in SLA violations | probability of improvement | verdict |",
        "|---|---|---|---|---|",
    ]
    for label, evaluation in study.evaluations.items():
        best = study.best_rule(label)
        ours, theirs = evaluation.values[study.policy][SLA], evaluation.values[best][SLA]
        difference, better = paired_difference(ours, theirs), improvement_probability(ours, theirs)
        verdict = "wins" if difference.high < 0.0 else "loses" if difference.low > 0.0 else "ties"
        lines.append(
            f"| {label} | {best} | {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] "
            f"| {better.value:.2f} [{better.low:.2f}, {better.high:.2f}] | {verdict} |"
        )
    return lines
