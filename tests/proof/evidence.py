"""What the proof publishes: figures with intervals, the raw data behind them, and plots.

Intervals are Student's over blocks, since what happens within a block is not independent; differences are paired by
arrivals.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from tests.bench.report import show
from tests.proof.machines import KINDS
from tests.proof.switchback import LEAST_IDLE, SCHEDULERS, Job, Plan, Record, Request
from tests.proof.work import LIMIT_CORES, SERVICE_BOUND_S
from training.evaluation.statistics import Estimate

THEIRS, OURS = SCHEDULERS
COLOURS: Final = {THEIRS: "#0b6fa4", OURS: "#c1272d"}
Row = dict[str, Any]
T = TypeVar("T", Job, Request)
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
"""What stands between these in the folder's README.md is written by the command."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of each block."""

    name: str
    unit: str
    of: Callable[[Sequence[Job], Sequence[Request]], float]


def _late(jobs: Sequence[Job], _: Sequence[Request]) -> float:
    return 100.0 * float(np.mean([job.late for job in jobs]))


def _slowdown(share: float) -> Callable[[Sequence[Job], Sequence[Request]], float]:
    def of(jobs: Sequence[Job], _: Sequence[Request]) -> float:
        return float(np.quantile([np.inf if job.slowdown is None else job.slowdown for job in jobs], share))

    return of


def _latency(share: float) -> Callable[[Sequence[Job], Sequence[Request]], float]:
    return lambda _, requests: 1000.0 * float(np.quantile([each.latency_s for each in requests], share))


def _waited(jobs: Sequence[Job], _: Sequence[Request]) -> float:
    return 1000.0 * float(np.median([job.bound - job.created for job in jobs if job.bound is not None]))


def _bound_rate(jobs: Sequence[Job], _: Sequence[Request]) -> float:
    times = [job.bound for job in jobs if job.bound is not None]
    return (len(times) - 1) / (max(times) - min(times))


def _request_violations(_: Sequence[Job], requests: Sequence[Request]) -> float:
    return 100.0 * float(np.mean([each.latency_s > SERVICE_BOUND_S for each in requests]))


VIOLATIONS: Final = Measure("SLA violations of Jobs", "%", _late)
MEASURES: Final = (
    VIOLATIONS,
    Measure("slowdown of Jobs, p50", "x", _slowdown(0.5)),
    Measure("slowdown of Jobs, p95", "x", _slowdown(0.95)),
    Measure(f"service requests over {1000 * SERVICE_BOUND_S:.0f} ms", "%", _request_violations),
    Measure("latency of service requests, p50", "ms", _latency(0.5)),
    Measure("latency of service requests, p95", "ms", _latency(0.95)),
    Measure("from creation to a node, p50", "ms", _waited),
    Measure("pods bound", "1/s", _bound_rate),
)


FASTEST: Final = "time alone from the fastest tenth on fast nodes"
BY_FASTEST: Final = Measure(f"{VIOLATIONS.name}, {FASTEST}", "%", _late)
"""As `VIOLATIONS`, but it does not rest on a few rounds before the experiment; it was looked for afterwards."""


def figures(record: Record, predicted: Mapping[str, Estimate]) -> list[Row]:
    """Every figure as {name, value, low, high, unit, goal, pass}."""
    rows = []
    for measure, judged in (*((each, record) for each in MEASURES), (BY_FASTEST, judged_by_fastest(record))):
        by_arm = blocks(judged, measure)
        for arm, values in by_arm.items():
            rows.append(_row(f"{measure.name}, {arm}", _student(values), measure.unit))
        difference = _student([ours - theirs for ours, theirs in zip(by_arm[OURS], by_arm[THEIRS], strict=True)])
        goal = "whole interval below 0" if measure is VIOLATIONS else None
        rows.append(_row(f"{measure.name}, difference", difference, measure.unit, goal, difference.high < 0.0))
    for arm in SCHEDULERS:
        counted = [job for job in record.jobs.values() if job.counted and job.arm == arm]
        rows.append(_row(f"Jobs counted, {arm}", _exactly(len(counted)), "Jobs"))
        for kind in dict.fromkeys(each.name for each in KINDS):
            share = np.mean([record.kinds.get(job.node) == kind for job in counted])
            rows.append(_row(f"Jobs on {kind} nodes, {arm}", _exactly(100.0 * float(share)), "%"))
    rows += [
        _row(f"simulator's prediction of SLA violations, {name}", estimate, "%") for name, estimate in predicted.items()
    ]
    rows += _learned(record)
    enough = (f">= {100.0 * LEAST_IDLE:g}", record.idle >= LEAST_IDLE)
    rows.append(_row("CPU of the machine that nobody used", _exactly(100.0 * record.idle), "%", *enough))
    return rows


def blocks(record: Record, measure: Measure) -> dict[str, list[float]]:
    """The measure of each counted block, by arm, in the order of the pairs."""
    found: dict[str, list[float]] = {arm: [] for arm in SCHEDULERS}
    for number, arm in enumerate(record.plan.arms):
        jobs = [job for job in record.jobs.values() if job.block == number and job.counted]
        requests = [each for each in record.requests if each.block == number and each.counted]
        found[arm].append(measure.of(jobs, requests))
    return found


def judged_by_fastest(record: Record) -> Record:
    """The record with each template's time alone replaced by the tenth percentile of its Jobs' times on fast nodes."""
    taken: dict[str, list[float]] = {template: [] for template in record.nominal_s}
    for job in record.jobs.values():
        if job.ended is not None and record.kinds.get(job.node) == "fast":
            taken[job.template].append(job.ended - job.created)
    nominal = {**record.nominal_s, **{name: float(np.quantile(each, 0.1)) for name, each in taken.items() if each}}
    jobs = {name: replace(job, nominal_s=nominal[job.template]) for name, job in record.jobs.items()}
    return replace(record, nominal_s=nominal, jobs=jobs)


def _learned(record: Record) -> list[Row]:
    """Learned speeds at the end beside the true ones, both over their geometric mean, and what pressure was seen."""
    seen = {each["node"]: each for each in record.nodes[-1]["nodes"] if each["node"] in record.kinds}
    truth = {name: 1.0 / kind.factor for name, kind in zip(sorted(record.kinds), KINDS, strict=True)}
    mean = float(np.exp(np.mean(np.log(list(truth.values())))))
    scale = float(np.exp(np.mean(np.log([each["speed"]["value"] for each in seen.values()]))))
    rows = []
    for name, each in sorted(seen.items()):
        speed, kind = each["speed"], record.kinds[name]
        learned = [speed[key] if speed[key] is None else speed[key] / scale for key in ("value", "low", "high")]
        rows.append(_row(f"learned speed of {name} ({kind})", Estimate(*learned), "x"))
        rows.append(_row(f"true speed of {name} ({kind})", _exactly(truth[name] / mean), "x"))
        if speed["slowdown"] is not None:
            rows.append(_row(f"run time per CPU time on {name} ({kind})", _exactly(speed["slowdown"]), "x"))
    measured = [each["pressure"] for at in record.nodes for each in at["nodes"] if each["pressure"]["source"] == "psi"]
    rows.append(_row("nodes at the end of blocks whose kernel measured pressure", _exactly(len(measured)), "nodes"))
    return rows


def _student(values: Sequence[float]) -> Estimate:
    """Mean with its 95 % interval."""
    mean, size = float(np.mean(values)), len(values)
    if size < 2:
        return Estimate(mean, float("-inf"), float("inf"))
    half = float(stats.t.ppf(0.975, size - 1) * np.std(values, ddof=1) / np.sqrt(size))
    return Estimate(mean, mean - half, mean + half)


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _row(name: str, found: Estimate, unit: str, goal: str | None = None, passed: bool = True) -> Row:
    low, high = (None, None) if found.low == found.high else (found.low, found.high)
    value = {"name": name, "value": found.value, "low": low, "high": high, "unit": unit}
    return {**value, "goal": goal, "pass": None if goal is None else passed}


def write(record: Record, predicted: Mapping[str, Estimate], folder: Path) -> list[Row]:
    """Write proof.json, the raw data and the plots, print the table, and return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = figures(record, predicted)
    (folder / "proof.json").write_text(json.dumps(rows, indent=1) + "\n")
    about = {
        "plan": asdict(record.plan),
        "arms": record.plan.arms,
        "kinds": record.kinds,
        "nominal_s": record.nominal_s,
        "limit_cores": LIMIT_CORES,
        "idle": record.idle,
    }
    (folder / "plan.json").write_text(json.dumps(about, indent=1) + "\n")
    _table(folder / "jobs.csv.gz", record.jobs.values(), Job)
    _table(folder / "requests.csv.gz", record.requests, Request)
    with gzip.GzipFile(folder / "nodes.jsonl.gz", "wb", mtime=0) as file:
        file.write("".join(json.dumps(each) + "\n" for each in record.nodes).encode())
    _draw(record, folder / "proof.png")
    page = folder / "README.md"
    if page.exists():
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{markdown(rows)}{END}{rest.partition(END)[2]}")
    show("proof", rows, folder / "proof.json")
    return rows


def read(folder: Path) -> Record:
    """The record that `write` left in a folder, its times rounded to a tenth of a millisecond.

    Raises:
        OSError: a file is missing or cannot be read; `filename` says which.
    """
    about = json.loads((folder / "plan.json").read_text())
    record = Record(Plan(**about["plan"]), about["kinds"], about["nominal_s"], idle=about["idle"])
    jobs, requests = (list(csv.DictReader(_lines(folder / f"{name}.csv.gz"))) for name in ("jobs", "requests"))
    record.jobs = {f"{row['template']}-{number}": _typed(row, Job) for number, row in enumerate(jobs)}
    record.requests = [_typed(row, Request) for row in requests]
    record.nodes = [json.loads(line) for line in _lines(folder / "nodes.jsonl.gz")]
    return record


def _typed(row: Mapping[str, str], of: type[T]) -> T:
    """A row of a table as what was written; an empty text is the default of its field."""
    return msgspec.convert({name: text for name, text in row.items() if text}, of, strict=False)


def _lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def markdown(rows: Iterable[Row]) -> str:
    """The figures as a table."""
    lines = ["| figure | value | 95 % interval | goal |", "|---|---|---|---|"]
    for row in rows:
        interval = "" if row["low"] is None else f"{row['low']:.3g} to {row['high']:.3g}"
        verdict = "" if row["goal"] is None else f"{row['goal']}: {'met' if row['pass'] else 'missed'}"
        lines.append(f"| {row['name']} | {row['value']:.3g} {row['unit']} | {interval} | {verdict} |")
    return "\n".join(lines) + "\n"


def _table(path: Path, items: Iterable[Job] | Iterable[Request], of: type[Job] | type[Request]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(of)], lineterminator="\n")
    writer.writeheader()
    for item in items:
        writer.writerow(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(item).items()}
        )
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(text.getvalue().encode())


def _draw(record: Record, path: Path) -> None:
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    by_block, by_slowdown, by_node = figure.subplots(1, 3)
    found = blocks(record, VIOLATIONS)
    for arm, values in found.items():
        by_block.plot(range(1, len(values) + 1), values, marker="o", color=COLOURS[arm], label=arm)
    _label(by_block, "SLA violations of Jobs, %", "pair of blocks", "%")
    by_block.set_ylim(bottom=0.0)
    by_block.set_xticks(range(1, record.plan.pairs + 1))
    for arm, colour in COLOURS.items():
        jobs = [job for job in record.jobs.values() if job.counted and job.arm == arm]
        values = sorted(np.inf if job.slowdown is None else job.slowdown for job in jobs)
        shares = 100.0 * (np.arange(len(values)) + 1.0) / len(values)
        by_slowdown.step(values, shares, where="post", color=colour, label=arm)
        kinds = list(dict.fromkeys(record.kinds.values()))
        counts = [100.0 * np.mean([record.kinds.get(job.node) == kind for job in jobs]) for kind in kinds]
        places = np.arange(len(kinds)) + (0.2 if arm == OURS else -0.2)
        by_node.bar(places, counts, width=0.4, color=colour, label=arm)
        by_node.set_xticks(range(len(kinds)), kinds)
    _label(by_slowdown, "slowdown of Jobs", "time over time alone on a fast node", "Jobs, %")
    by_slowdown.set_xscale("log", base=2)
    _label(by_node, "where Jobs ran", "", "Jobs, %")
    by_block.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _label(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
