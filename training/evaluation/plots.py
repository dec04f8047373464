"""Figures of a study, drawn without a display. They show what the JSON holds and compute nothing new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.protocol import PERCENTILES, Evaluation
from training.evaluation.study import GREEDY, RANDOM, SLA, Study

mpl.use("Agg")

SIZE: Final = (7.0, 4.2)
DPI: Final = 110
THRESHOLDS: Final = np.linspace(0.0, 0.5, 101)


def draw_all(study: Study, folder: Path) -> list[Path]:
    """Write every figure that the study has data for; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = next(label for label in study.evaluations if label.startswith("reference@"))
    shown = _shown(study, usual)
    paths = [
        _save(_sweep(study, "reference@", shown), folder / "load-sweep.png"),
        _save(_trade_off(study, usual), folder / "trade-off.png"),
        _save(_profile(study.evaluations[usual], shown), folder / "performance-profile.png"),
        _save(_slowdowns(study.evaluations[usual], shown), folder / "slowdown-by-class.png"),
    ]
    large = [label for label in study.evaluations if label.startswith("reference-100@")]
    if large:
        names = [name for name in shown if name in study.evaluations[large[0]].values]
        paths.append(_save(_sweep(study, "reference-100@", names), folder / "load-sweep-100.png"))
    return paths


def draw_learning_curves(runs: Mapping[str, Sequence[tuple[float, float]]], path: Path, ylabel: str) -> Path:
    """Write one line for each training run, of (updates, value) points."""
    figure, axes = _axes("Learning", "updates", ylabel)
    for name, points in runs.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _shown(study: Study, label: str) -> list[str]:
    """The policy, the best two rules, kube-default and random: more lines than that nobody reads."""
    rules = sorted(study.rules, key=lambda name: study.rate(label, name))[:2]
    return list(dict.fromkeys([study.policy, *rules, GREEDY, RANDOM]))


def _axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _sweep(study: Study, prefix: str, names: Sequence[str]) -> Figure:
    labels = sorted((item for item in study.evaluations if item.startswith(prefix)), key=_load)
    figure, axes = _axes(
        f"SLA violations by load ({prefix[:-1]})", "offered load / speed-weighted capacity", "SLA violations"
    )
    for name in names:
        means = [study.evaluations[label].mean(name, SLA) for label in labels]
        loads = [_load(label) for label in labels]
        axes.plot(loads, [mean.value for mean in means], marker="o", label=name)
        axes.fill_between(loads, [mean.low for mean in means], [mean.high for mean in means], alpha=0.15)
    axes.legend(fontsize=8)
    return figure


def _load(label: str) -> float:
    return float(label.split("@")[1])


def _trade_off(study: Study, label: str) -> Figure:
    figure, axes = _axes(f"SLA violations against load variance ({label})", "load variance", "SLA violations")
    for name in study.evaluations[label].values:
        point = (study.evaluations[label].mean(name, "load_variance"), study.evaluations[label].mean(name, SLA))
        marker = "o" if name in study.rules else "*"
        axes.scatter(point[0].value, point[1].value, marker=marker, s=40 if marker == "o" else 140)
        axes.annotate(name, (point[0].value, point[1].value), fontsize=7, xytext=(4, 4), textcoords="offset points")
    return figure


def _profile(evaluation: Evaluation, names: Sequence[str]) -> Figure:
    figure, axes = _axes("Performance profile", "SLA violations of an episode, at most", "share of episodes")
    for name in names:
        values: Any = evaluation.values[name][SLA]
        axes.plot(THRESHOLDS, [(values <= limit).mean() for limit in THRESHOLDS], label=name)
    axes.legend(fontsize=8)
    return figure


def _slowdowns(evaluation: Evaluation, names: Sequence[str]) -> Figure:
    figure, axes = _axes("Slowdown by class of pods: median and 95th percentile", "", "slowdown")
    classes = [pod.name for pod in evaluation.scenario.pod_classes]
    width = 0.8 / len(names)
    lower, upper = PERCENTILES
    for number, name in enumerate(names):
        values = evaluation.values[name]
        middle = [float(np.nanmean(values[f"{lower}:{item}"])) for item in classes]
        top = [float(np.nanmean(values[f"{upper}:{item}"])) for item in classes]
        at = np.arange(len(classes)) + number * width
        bars = axes.bar(at, middle, width, label=name)
        axes.vlines(at, middle, top, colors=[bar.get_facecolor() for bar in bars])
    axes.set_xticks(np.arange(len(classes)) + 0.4 - width / 2, classes)
    axes.legend(fontsize=8)
    return figure
