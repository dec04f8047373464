"""The proof's bookkeeping, on a record made up here: what counts as late, paired intervals, files. No cluster."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.control_plane.access import Manifest
from tests.kind.cluster import ClusterError
from tests.proof import evidence, switchback
from tests.proof.evidence import BY_FASTEST, OURS, THEIRS, VIOLATIONS, figures, markdown, read, write
from tests.proof.machines import KINDS
from tests.proof.switchback import Job, Plan, Record, Request
from tests.proof.work import TEMPLATES, Workload, arrivals, said
from training.evaluation.statistics import Estimate

NODES = {f"w{number}": kind.name for number, kind in enumerate(KINDS)}
PLAN = Plan(pairs=4)


def speed(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "slowdown": 1.0}


def recorded(late: dict[str, list[int]]) -> Record:
    """Ten Jobs in each block, of which so many are late, by arm."""
    record = Record(PLAN, NODES, {"brief": 10.0}, idle=0.4)
    left = {arm: list(values) for arm, values in late.items()}
    for block, arm in enumerate(PLAN.arms):
        count = left[arm].pop(0)
        for number in range(10):
            taken = 30.0 if number < count else 10.0
            record.jobs[f"{block}-{number}"] = Job(
                block,
                arm,
                "brief",
                2.0,
                10.0,
                True,
                100.0 + number,
                100.1 + number,
                "w0",
                101.0,
                100.0 + number + taken,
            )
        record.requests += [Request(block, arm, "w0", 1.0, 0.01 * number, True) for number in range(10)]
    nodes = [
        {"node": name, "speed": speed(1.0 / kind.factor), "pressure": {"source": "psi"}}
        for name, kind in zip(NODES, KINDS, strict=True)
    ]
    record.nodes = [{"block": 0, "nodes": nodes}]
    return record


def test_a_job_is_late_after_its_slack_or_if_it_never_ends() -> None:
    made = Job(0, OURS, "brief", 2.0, 10.0, True, 100.0)
    assert made.late
    made.ended = 120.0
    assert (made.slowdown, made.late) == (2.0, False)
    made.ended = 120.1
    assert made.late
    given_up = Job(0, OURS, "brief", 2.0, 10.0, True, 100.0, given_up=110.0)
    assert (given_up.slowdown, given_up.late) == (1.0, True)


def test_a_job_that_never_ends_leaves_every_figure_a_number() -> None:
    record = recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]})
    stuck = next(job for job in record.jobs.values() if job.counted)
    stuck.given_up, stuck.ended = stuck.created + 400.0, None
    json.dumps(figures(record, {}), allow_nan=False)


@pytest.mark.parametrize(("used", "enough"), [(89.0, True), (96.0, False)])
def test_a_machine_with_little_cpu_to_spare_ends_a_run_early_and_misses_its_goal(used: float, enough: bool) -> None:
    record = recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]})
    record.idle = 1.0 - used / 100.0
    row = next(row for row in figures(record, {}) if row["name"] == "CPU of the machine that nobody used")
    assert (row["goal"], row["pass"]) == (">= 10", enough)
    if enough:
        switchback._enough(record.idle)
    else:
        with pytest.raises(ClusterError, match=r"4\.0% of the machine's CPU"):
            switchback._enough(record.idle)


def test_differences_are_paired_and_have_students_interval() -> None:
    rows = figures(recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]}), {})
    found = {row["name"]: row for row in rows}
    assert found[f"SLA violations of Jobs, {THEIRS}"]["value"] == pytest.approx(50.0)
    difference = found["SLA violations of Jobs, difference"]
    values = np.array([-30.0, -30.0, -30.0, -40.0])
    half = 3.18245 * values.std(ddof=1) / 2.0
    assert difference["value"] == pytest.approx(-32.5)
    assert (difference["low"], difference["high"]) == pytest.approx((-32.5 - half, -32.5 + half), rel=1e-4)
    assert difference["pass"] is True
    assert found["service requests over 40 ms, difference"]["goal"] is None
    tied = figures(recorded({THEIRS: [4, 5, 2, 5], OURS: [5, 2, 3, 1]}), {})
    assert next(row for row in tied if row["name"] == "SLA violations of Jobs, difference")["pass"] is False


def test_learned_and_true_speeds_stand_on_one_scale() -> None:
    found = {row["name"]: row for row in figures(recorded({THEIRS: [1] * 4, OURS: [1] * 4}), {})}
    for name, kind in NODES.items():
        learned, true = found[f"learned speed of {name} ({kind})"], found[f"true speed of {name} ({kind})"]
        assert learned["value"] == pytest.approx(true["value"])
        assert learned["low"] < true["value"] < learned["high"]


def test_raw_data_figures_and_page_are_written(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"before\n{evidence.BEGIN}\nold\n{evidence.END}\nafter\n")
    record = recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]})
    rows = write(record, {"difference": Estimate(-3.0, -4.0, -2.0)}, tmp_path)
    assert json.loads((tmp_path / "proof.json").read_text()) == rows
    with gzip.open(tmp_path / "jobs.csv.gz", "rt") as file:
        jobs = list(csv.DictReader(file))
    assert len(jobs) == 80
    assert {each["arm"] for each in jobs} == {THEIRS, OURS}
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert markdown(rows) in page
    assert "old" not in page
    assert (tmp_path / "proof.png").stat().st_size > 10_000


def test_what_was_written_is_judged_again_as_it_was(tmp_path: Path) -> None:
    record = recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]})
    rows = write(record, {}, tmp_path)
    kept = read(tmp_path)
    assert list(kept.jobs.values()) == list(record.jobs.values())
    assert (kept.plan, kept.kinds, kept.requests, kept.nodes) == (PLAN, NODES, record.requests, record.nodes)
    assert figures(kept, {}) == rows


def test_violations_by_the_fastest_jobs_do_not_rest_on_what_was_measured_before() -> None:
    record = recorded({THEIRS: [4, 5, 6, 5], OURS: [1, 2, 3, 1]})
    for job in record.jobs.values():
        job.nominal_s = 40.0  # measured while the cluster was still busy with itself
    found = {row["name"]: row["value"] for row in figures(record, {})}
    assert found[f"{VIOLATIONS.name}, {THEIRS}"] == found[f"{VIOLATIONS.name}, {OURS}"] == 0.0
    assert found[f"{BY_FASTEST.name}, {THEIRS}"] == pytest.approx(50.0)
    assert found[f"{BY_FASTEST.name}, difference"] == pytest.approx(-32.5)


@pytest.mark.parametrize(("one", "other", "same"), [(40.0, 22.0, False), (22.0, 20.8, False), (22.0, 21.5, True)])
def test_times_alone_are_believed_once_they_are_repeated(one: float, other: float, same: bool) -> None:
    assert switchback.agree(one, other) is switchback.agree(other, one) is same


def test_pairs_have_the_same_arrivals_and_others_do_not() -> None:
    first = arrivals((1, 2, 0), PLAN.rate, 400.0)
    assert first == arrivals((1, 2, 0), PLAN.rate, 400.0) != arrivals((1, 2, 1), PLAN.rate, 400.0)
    assert len(first) == pytest.approx(400.0 * PLAN.rate, rel=0.3)
    assert sorted(PLAN.arms) == sorted([THEIRS, OURS] * PLAN.pairs)
    assert all(set(PLAN.arms[at : at + 2]) == {THEIRS, OURS} for at in range(0, 8, 2))


def program(specification: Manifest) -> str:
    """What the only container of these pods runs."""
    (container,) = specification["template"]["spec"]["containers"]
    return str(container["command"][-1])


def test_jobs_of_a_template_are_one_template_to_whoever_looks() -> None:
    workload = Workload("image", {"w1": 2.5}, {template.name: 1000.0 for template in TEMPLATES})
    one, other = (workload.job(f"brief-{number}", TEMPLATES[0], schedulerName="x")["spec"] for number in (1, 2))
    assert one == other
    assert "'w1': 2.5" in program(one)
    compile(program(one), "job", "exec")
    compile(program(workload.service("service", schedulerName="x")["spec"]), "service", "exec")
    assert said({"status": {"containerStatuses": [{"state": {"running": {}}}]}}) is None
