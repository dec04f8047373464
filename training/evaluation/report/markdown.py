"""A study on paper: `evaluation.json`, `evaluation.md` and figures. Says where the policy ties or loses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from training.evaluation import tables
from training.evaluation.plan import GREEDY, LARGE
from training.evaluation.protocol import SLA
from training.evaluation.report.document import (
    JSON_FILE,
    METRICS,
    Provenance,
    as_document,
    read_document,
    renewed,
    to_text,
)
from training.evaluation.report.evidence import Evidence
from training.evaluation.report.plots import draw_all
from training.evaluation.study import Study
from training.files import write_text
from training.simulator.episode import METRICS as MEANINGS

MARKDOWN_FILE: Final = "evaluation.md"
FIGURES_FOLDER: Final = "figures"


def write_report(study: Study, folder: Path, provenance: Provenance | None = None) -> list[Path]:
    """Write JSON, Markdown and figures into the folder, which is made if absent; their paths.

    Figures of an earlier report that this one does not draw are removed.
    """
    provenance = provenance or Provenance()
    document = as_document(study, provenance)
    json_path, markdown_path = folder / JSON_FILE, folder / MARKDOWN_FILE
    write_text(json_path, to_text(document))
    figures = draw_all(study, provenance.curves(), folder / FIGURES_FOLDER)
    for old in set((folder / FIGURES_FOLDER).glob("*.png")) - set(figures):
        old.unlink()
    write_text(markdown_path, to_markdown(document, [path.name for path in figures]))
    return [json_path, markdown_path, *figures]


def renew_report(folder: Path, evidence: Evidence) -> list[Path]:
    """Write the report in `folder` with this evidence instead of its own; the paths written.

    No episode is played, and what episodes showed stays, figures too.

    Raises:
        InvalidInputError: there is no report.
    """
    document = renewed(read_document(folder), evidence)
    json_path, markdown_path = folder / JSON_FILE, folder / MARKDOWN_FILE
    lines = markdown_path.read_text(encoding="utf-8").splitlines()
    figures = [line.rpartition("/")[2].rstrip(")") for line in lines if line.startswith("![")]
    write_text(json_path, to_text(document))
    write_text(markdown_path, to_markdown(document, figures))
    return [json_path, markdown_path]


def greedy(document: dict[str, Any]) -> str:
    """Return what `GREEDY` is, with the minor version of the kube-scheduler whose scores it played."""
    version = document["about"].get("kubernetes")
    return GREEDY if version is None else f"{GREEDY}, the default scores of kube-scheduler {version}"


def to_markdown(document: dict[str, Any], figures: Iterable[str]) -> str:
    """The document for people; every number in it is the document's."""
    lines = [
        f"# Evaluation of {document['policy']}",
        "",
        f"Means over held-out test episodes (seeds from {document['about']['first_seed']}) with 95 % bootstrap "
        "intervals; every scorer met the same episodes.",
        f"`greedy` is {greedy(document)}. Labels read scenario-nodes@load; load is offered work over speed-weighted "
        "capacity.",
    ]
    if document["command"]:
        lines += ["", f"    {document['command']}"]
    lines += ["", "## Goals", "", *_goals(document), "", "## At which loads each goal holds", "", *_by_load(document)]
    if "oracle" in document:
        closed, rate = document["oracle"]["gap_closed"], document["oracle"][SLA]
        lines += [
            "",
            "## Oracle",
            "",
            f"A clairvoyant one-step rollout has {_percent(rate)} SLA violations over {rate['seeds']} episodes of "
            f"{document['oracle']['condition']}; the policy closes {_percent(closed)} of the gap between the best rule "
            "and it.",
        ]
    lines += ["", "## Wins, ties and losses", "", *_verdicts(document)]
    if "seeds" in document:
        lines += ["", "## Training seeds", "", *_seeds(document)]
    lines += ["", "## SLA violations against load variance", "", *_trade_off(document)]
    if "highest_load" in document:
        lines += ["", f"## Highest load on {LARGE} nodes", "", *_highest_loads(document)]
    if "evidence" in document:
        lines += ["", "## Speed, scale and parts", "", *_evidence(document["evidence"])]
    lines += ["", "## Figures", ""]
    lines += [f"![{name.removesuffix('.png')}]({FIGURES_FOLDER}/{name})" for name in figures]
    lines += ["", "## Every condition", "", *(f"- `{name}`: {MEANINGS[name]}" for name in METRICS)]
    if "trace" in document:
        trace = document["trace"]
        lines.append(
            f"- `openb` plays {trace['file']} ({trace['pods']} pods, {trace['skipped']} skipped), which does not ship; "
            "`trace` plays a sample of our own making in its shape, which does."
        )
    elif "trace" in document["scenario_versions"]:
        lines.append("- `trace` plays a sample of our own making in the shape of openb, not the data of any cluster.")
    for label, scorers in document["scenarios"].items():
        rows = [
            [scorer, *(_cell(metrics[name]) if name in metrics else "-" for name in METRICS)]
            for scorer, metrics in sorted(scorers.items(), key=lambda item: item[1][SLA]["mean"])
        ]
        episodes = f"{next(iter(scorers.values()))[SLA]['seeds']} episodes."
        lines += ["", f"### {label}", "", *tables.markdown(["scorer", *METRICS], rows), "", episodes]
    return "\n".join(lines) + "\n"


def _goals(document: dict[str, Any]) -> list[str]:
    rows = [
        [goal["name"], "-" if goal["value"] is None else f"{goal['value']:.4g}", goal["goal"], _yes(goal["pass"])]
        for goal in document["goals"]
    ]
    return tables.markdown(["measure", "value", "goal", "reached"], rows)


def _by_load(document: dict[str, Any]) -> list[str]:
    lines_of = document["by_load"]
    labels = list(next(iter(lines_of.values())))
    rows = [
        [name, *(f"{_number(goal['value'])} {_yes(goal['pass'])}" for goal in goals.values())]
        for name, goals in lines_of.items()
    ]
    used = [document["scenarios"][label][document["policy"]].get("cpu_used") for label in labels]
    rows.append(["CPU used", *(_number(entry["mean"]) if entry else "-" for entry in used)])
    return tables.markdown(["measure", *labels], rows)


def _verdicts(document: dict[str, Any]) -> list[str]:
    """One line for each condition: the policy against the best rule there, episode by episode."""
    chance = "probability of improvement"
    header = ["condition", "best rule", "difference in SLA violations", chance, "episodes", "verdict"]
    rows = []
    for label, found in document["verdicts"].items():
        difference, better = found["difference"], found["probability_of_improvement"]
        cells = [found["best_rule"], _cell(difference, "+.4f"), _cell(better, ".2f"), str(difference["seeds"])]
        rows.append([label, *cells, found["verdict"]])
    return tables.markdown(header, rows)


def _seeds(document: dict[str, Any]) -> list[str]:
    conditions = document["seeds"]
    names = list(next(iter(conditions.values()))["sla_violation_rate"])
    rows = []
    for label, found in conditions.items():
        rates = [f"{100 * found['sla_violation_rate'][name]:.2f}" for name in names]
        middle = [_percent(found["interquartile_mean"]), f"{100 * found['spread']:.2f}"]
        best = f"{100 * found['best_rule_rate']:.2f} ({found['best_rule']})"
        rows.append([label, *rates, *middle, best, _yes(found["all_below_best_rule"])])
    lines = [
        "SLA violation rates in percent. The interquartile mean is over seeds and episodes, with a bootstrap within "
        "each seed.",
        "",
        *tables.markdown(["condition", *names, "interquartile mean", "spread", "best rule", "all below it"], rows),
    ]
    for name, bundle in document["bundles"].items():
        if bundle["role"] == "training seed":
            known = {None: "its curve is not known", True: "**diverged**", False: "did not diverge"}[bundle["diverged"]]
            lines += ["", f"{name} (seed {bundle['training_seed']}): {known}."]
    return lines


def _trade_off(document: dict[str, Any]) -> list[str]:
    found = document["trade_off"]
    winners = found["better_than_kube_default_on_both"]
    said = f"Better than {GREEDY} on both, by intervals: {', '.join(winners)}." if winners else "No policy is better."
    rows = [
        [name, f"{point['load_variance']:.4f}", f"{point[SLA]:.4f}"]
        for name, point in sorted(found["points"].items(), key=lambda item: float(item[1]["load_variance"]))
    ]
    return [
        f"On {found['condition']}. {said}",
        "",
        *tables.markdown(["scorer", "load variance", "SLA violations"], rows),
    ]


def _highest_loads(document: dict[str, Any]) -> list[str]:
    found = document["highest_load"]
    loads = found["loads"]
    ratio = found["policy_over_best_rule"]
    ranked = sorted(found["scorers"].items(), key=lambda item: -(item[1]["mean"] or 0.0))
    lines = [
        f"Where SLA violations reach 5 %, linear between loads of {loads[0]:g} to {loads[-1]:g}; {ratio['seeds']} "
        "episodes a load.",
        "",
        *tables.markdown(["scorer", "highest load"], [[name, _load(entry, loads)] for name, entry in ranked]),
    ]
    if ratio["mean"] is not None:
        interval = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
        lines += ["", f"The policy's over the best rule's ({found['best_rule']}): {ratio['mean']:.3f} {interval}."]
    return lines


def _evidence(found: dict[str, Any]) -> list[str]:
    speeds, scale, ablations = found["decisions_per_second"], found["scale"], found["ablations"]
    bound = found["sustainable_load"]
    lines = [
        f"- No scheduler sustains a load above {_cell(bound, '.3f')} on the "
        f"clusters of {bound['nodes']} nodes: an upper bound, with every node at its best use, the least disturbance "
        "between pods and the mean of its decay. A higher load holds only as long as an episode is short.",
    ]
    if speeds:
        listed = ", ".join(f"{speed:,.0f} on {nodes} nodes" for nodes, speed in speeds.items())
        lines.append(f"- The simulator's decisions a second on one core of the machine that reported: {listed}.")
    if scale:
        lines.append(
            f"- A training run of {scale['episodes']:,} episodes, each of 600 arrivals or more, took "
            f"{scale['seconds'] / 60:.1f} minutes."
        )
    if ablations:
        fewest = min(variant["seeds"] for variant in ablations.values())
        lines.append(f"- `maddpg-train ablate` compared {len(ablations)} variants, {fewest} seeds each.")
    return lines


def _load(entry: dict[str, Any], loads: list[float]) -> str:
    if entry["mean"] is None:
        return f"below {loads[0]:g}"
    low = f"below {loads[0]:g}" if entry["low"] is None else f"{entry['low']:.3f}"
    beyond = "at least " if entry["mean"] >= loads[-1] else ""
    return f"{beyond}{entry['mean']:.3f} [{low}, {_number(entry['high'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(entry: dict[str, Any]) -> str:
    if entry["mean"] is None:
        return "an unknown share"
    if entry["low"] is None:
        return f"{100 * entry['mean']:.2f} % (too few episodes for an interval)"
    return f"{100 * entry['mean']:.2f} % [{100 * entry['low']:.2f}, {100 * entry['high']:.2f}]"


def _cell(entry: dict[str, float], form: str = ".4f") -> str:
    return tables.bracketed(entry["mean"], entry["low"], entry["high"], form)


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"
