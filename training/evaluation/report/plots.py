"""Figures of a study, drawn without a display. They show what the JSON holds and compute nothing new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.evaluation.plan import GREEDY, LARGE, RANDOM
from training.evaluation.protocol import PERCENTILES, SLA, Evaluation
from training.evaluation.report.curves import Curve
from training.evaluation.report.highest_load import LIMIT, highest_load
from training.evaluation.study import Study

mpl.use("Agg")

SIZE: Final = (7.0, 4.2)
DPI: Final = 110
THRESHOLDS: Final = np.linspace(0.0, 0.5, 101)
POLICY_COLOUR: Final = "#c1272d"
COLOURS: Final = ("#0b6fa4", "#3a9d5d", "#e08e0b", "#6b6b6b", "#8a5fbf", "#3fb8af")
"""Of rules, in order; the policy is red everywhere."""

LABEL_POINTS: Final = 7.0
"""Font size of the trade-off's labels, points."""


def draw_all(study: Study, curves: Mapping[str, Curve | None], folder: Path) -> list[Path]:
    """Write every figure that the study has data for; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = study.evaluations[study.usual]
    shown = _shown(study, study.usual)
    paths = [
        _save(_sweep(study, study.sweep(), shown, "10 nodes"), folder / "load-sweep.png"),
        _save(_trade_off(study), folder / "trade-off.png"),
        _save(_profile(study, usual, shown), folder / "performance-profile.png"),
        _save(_slowdowns(study, usual, shown), folder / "slowdown-by-class.png"),
    ]
    large = study.large_sweep()
    if len(large) > 1:
        names = _shown(study, next(iter(large.values())))
        paths.append(_save(_sweep(study, large, names, f"{LARGE} nodes"), folder / "load-sweep-100.png"))
        paths.append(_save(_highest(study), folder / "highest-load.png"))
    known = {name: curve.scores for name, curve in curves.items() if curve is not None and curve.scores}
    if known:
        paths.append(_save(_learning_curves(known), folder / "learning-curves.png"))
    return paths


def _learning_curves(runs: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """One line for each training run, of (updates, score) points."""
    title, ylabel = "Learning: measured on selection episodes", "SLA violations over expected-speed's"
    figure, axes = _axes(title, "updates", ylabel)
    for name, points in runs.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    axes.axhline(1.0, color="#6b6b6b", linewidth=0.8, linestyle="--")
    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8, ncols=2)
    return figure


def _shown(study: Study, label: str) -> list[str]:
    """The policy, the best three rules, kube-default and random: more lines than that nobody reads."""
    rules = study.rules_at(label)
    return list(dict.fromkeys([study.policy, *rules[:3], *(name for name in (GREEDY, RANDOM) if name in rules)]))


def _colours(study: Study, names: Sequence[str]) -> dict[str, str]:
    rules = [name for name in names if name != study.policy]
    return {study.policy: POLICY_COLOUR, **dict(zip(rules, COLOURS * (len(rules) // len(COLOURS) + 1), strict=False))}


def _axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _sweep(study: Study, sweep: Mapping[float, str], names: Sequence[str], where: str) -> Figure:
    figure, axes = _axes(
        f"SLA violations by load, reference, {where}", "offered load / speed-weighted capacity", "SLA violations"
    )
    colours = _colours(study, names)
    loads = list(sweep)
    for name in names:
        means = [study.evaluations[label].mean(name, SLA) for label in sweep.values()]
        wide = 2.2 if name == study.policy else 1.3
        axes.plot(loads, [mean.value for mean in means], marker=".", label=name, color=colours[name], linewidth=wide)
        low, high = [mean.low for mean in means], [mean.high for mean in means]
        axes.fill_between(loads, low, high, color=colours[name], alpha=0.13, linewidth=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8)
    return figure


def _trade_off(study: Study) -> Figure:
    evaluation = study.evaluations[study.usual]
    figure, axes = _axes(f"SLA violations against load variance, {study.usual}", "load variance", "SLA violations")
    names = [name for name in evaluation.values if "load_variance" in evaluation.values[name]]
    points = [(evaluation.mean(name, "load_variance").value, evaluation.mean(name, SLA).value, name) for name in names]
    for x, y, name in points:
        marker, size, colour = ("*", 110, COLOURS[2]) if name in study.policies else ("o", 26, COLOURS[0])
        axes.scatter(x, y, marker=marker, s=size, color=POLICY_COLOUR if name == study.policy else colour, zorder=3)
    if GREEDY in names:
        axes.axvline(evaluation.mean(GREEDY, "load_variance").value, color="#6b6b6b", linewidth=0.8, linestyle="--")
        axes.axhline(evaluation.mean(GREEDY, SLA).value, color="#6b6b6b", linewidth=0.8, linestyle="--")
    axes.set_xlim(left=0.0, right=1.28 * max(x for x, _, _ in points) + 1e-9)
    axes.set_ylim(bottom=0.0, top=1.1 * max(y for _, y, _ in points) + 1e-9)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    named = [point for point in points if point[2] not in study.seeds]
    alike = [point[:2] for point in points if point[2] in study.seeds]
    if alike:  # one name for all of them: they lie on top of each other, as they should
        x, y = np.mean(alike, axis=0)
        named.append((float(x), float(y), "training seeds"))
    _label(figure, axes, named, points)
    return figure


def _label(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]], drawn: Sequence[tuple[float, float, str]]
) -> None:
    """Name points beside them, each name moved up or down until it covers no other and nothing drawn.

    A line leads from a name that was moved far to its point.
    """
    figure.canvas.draw()  # the layout must be known to measure in pixels
    height, per_letter = LABEL_POINTS * DPI / 72.0 * 1.15, LABEL_POINTS * DPI / 72.0 * 0.56
    scale = figure.dpi / DPI
    pixels = axes.transData.transform([(x, y) for x, y, _ in points]) / scale
    spots = axes.transData.transform([(x, y) for x, y, _ in drawn]) / scale
    marks = [(x - 6.0, y - 6.0, x + 6.0, y + 6.0) for x, y in spots]
    bottom = axes.transAxes.transform((0.0, 0.0))[1] / scale + 2.0
    top = axes.transAxes.transform((0.0, 1.0))[1] / scale - height
    placed: list[tuple[float, float, float, float]] = []
    for number in sorted(range(len(points)), key=lambda index: -pixels[index][1]):
        (x, y), name = pixels[number], points[number][2]
        left = x + 9.0
        others = [*placed, *marks]
        shifts = sorted(np.arange(-180.0, 181.0, 3.0), key=abs)
        right = left + per_letter * len(name)
        free = (
            y - height / 2 + shift
            for shift in shifts
            if bottom <= y - height / 2 + shift <= top
            and not any(_overlap((left, y - height / 2 + shift, right, y + height / 2 + shift), box) for box in others)
        )
        at = next(free, y)
        placed.append((left, at, right, at + height))
        axes.annotate(
            name,
            points[number][:2],
            fontsize=LABEL_POINTS,
            xytext=((left - x) * 72.0 / DPI, (at + height / 2 - y) * 72.0 / DPI),
            textcoords="offset points",
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#6b6b6b", "shrinkA": 0, "shrinkB": 2}
            if abs(at + height / 2 - y) > height
            else None,
        )


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _profile(study: Study, evaluation: Evaluation, names: Sequence[str]) -> Figure:
    figure, axes = _axes(
        f"Performance profile, {study.usual}", "SLA violations of an episode, at most", "share of episodes"
    )
    colours = _colours(study, names)
    for name in names:
        values: Any = evaluation.values[name][SLA]
        wide = 2.2 if name == study.policy else 1.3
        shares = [(values <= limit).mean() for limit in THRESHOLDS]
        axes.plot(THRESHOLDS, shares, label=name, color=colours[name], linewidth=wide)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _slowdowns(study: Study, evaluation: Evaluation, names: Sequence[str]) -> Figure:
    figure, axes = _axes(
        f"Slowdown by class of pods: median (bar) and 95th percentile (line), {study.usual}", "", "slowdown"
    )
    classes = [pod.name for pod in evaluation.scenario.pod_classes]
    width = 0.8 / len(names)
    lower, upper = PERCENTILES
    colours = _colours(study, names)
    for number, name in enumerate(names):
        values = evaluation.values[name]
        middle = [float(np.nanmean(values[f"{lower}:{item}"])) for item in classes]
        top = [float(np.nanmean(values[f"{upper}:{item}"])) for item in classes]
        at = np.arange(len(classes)) + number * width
        axes.bar(at, middle, width, label=name, color=colours[name])
        axes.vlines(at, middle, top, colors=colours[name])
        axes.scatter(at, top, marker="_", s=22, color=colours[name])
    axes.set_xticks(np.arange(len(classes)) + 0.4 - width / 2, classes)
    axes.title.set_fontsize(10)
    axes.set_ylim(top=1.28 * axes.get_ylim()[1])  # room for the legend above the bars
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    return figure


def _highest(study: Study) -> Figure:
    sweep = study.large_sweep()
    figure, axes = _axes(
        f"Highest load with SLA violations under {LIMIT:.0%}, {LARGE} nodes",
        "offered load / speed-weighted capacity",
        "",
    )
    label = next(iter(sweep.values()))
    found = {name: highest_load(study, name) for name in [study.policy, *study.rules_at(label)]}
    names = sorted(found, key=lambda name: found[name].value or 0.0)
    lowest = min(sweep)
    for row, name in enumerate(names):
        highest = found[name]
        text, end, gap = f"none from {lowest:g} on", 0.0, 4
        if highest.value is not None:
            axes.barh(row, highest.value, height=0.6, color=POLICY_COLOUR if name == study.policy else COLOURS[0])
            low, high = highest.low or 0.0, highest.high or highest.value
            axes.plot([low, high], [row, row], color="black", linewidth=1.2)
            text, end, gap = f"{highest.value:.3f}", max(high, highest.value), 5
        axes.annotate(text, (end, row), fontsize=8, va="center", xytext=(gap, 0), textcoords="offset points")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0.0, 1.12 * max(sweep))
    axes.grid(axis="y", visible=False)
    return figure
