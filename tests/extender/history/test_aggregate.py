"""The report adds up what is known and calls the rest unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from extender.cli import app
from extender.history.aggregate import as_text, performance, summarised
from extender.history.ledger import Counts
from extender.history.outcomes import Outcome
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, pod

Run = Callable[..., Service]


def bound(**facts: Any) -> Outcome:
    values: dict[str, Any] = {"node": "node-0", "bound_at": 1001.0, "bind_s": 1.0, "among_best": True, **facts}
    return Outcome(**values)


DECISIONS = [
    a_decision("a", 1, outcome=bound(bind_s=1.0, restarts=2)),
    a_decision("b", 2, outcome=bound(bind_s=3.0, among_best=False, oom_killed=True)),
    a_decision("c", 3, outcome=bound(bind_s=5.0, among_best=None)),
    a_decision("d", 4, outcome=bound(removed_at=1.0, removed_reason="succeeded", slowdown=3.0, late=True)),
    a_decision("e", 5, outcome=bound(removed_at=1.0, removed_reason="succeeded", slowdown=1.0, late=False)),
    a_decision(
        "i", 5, outcome=bound(removed_at=1.0, removed_reason="succeeded", slowdown=2.0, late=False, inferred=True)
    ),
    a_decision("f", 6, outcome=bound(removed_at=1.0, removed_reason="evicted", late_unknown="it did not finish")),
    a_decision("g", 7, scorer="kube-default", fallback_reason="late", former_failure="unschedulable: 0/3: no room"),
    a_decision("h", 8, outcome=Outcome(failure="expired")),
]


def test_every_figure_is_over_what_is_known() -> None:
    report = summarised(DECISIONS)
    assert (report["decisions"], report["from"], report["to"]) == (9, 1001.0, 1008.0)
    assert report["scorers"] == {"test": 8, "kube-default": 1}
    assert report["fallback_reasons"] == {"late": 1}
    assert report["states"] == {"bound": 3, "succeeded": 3, "evicted": 1, "waiting": 1, "expired": 1}
    assert report["failures"] == {"unschedulable": 1, "expired": 1}
    assert (report["bound"], report["rated"], report["rated_best_share"]) == (7, 6, pytest.approx(5 / 6))
    assert report["bind_s"] == {"p50": 1.0, "p95": pytest.approx(4.4)}
    assert report["latency_ms"]["p50"] == pytest.approx(5.0)
    assert (report["restarts"], report["oom_killed"]) == (2, 1)
    assert (report["late"], report["on_time"], report["lateness_unknown"]) == (1, 2, 1)
    assert (report["lateness_inferred"], report["late_share"]) == (1, pytest.approx(1 / 3))
    assert report["slowdown"] == {"p50": 2.0, "p95": pytest.approx(2.9)}


def test_nothing_known_is_said_as_such() -> None:
    report = performance([], Counts())
    whole = report["remembered"]
    assert [whole[name] for name in ("rated_best_share", "latency_ms", "bind_s", "late_share", "slowdown")] == [
        None
    ] * 5
    assert "on the node rated best: unknown" in as_text(report)


def test_each_scorer_has_its_own_figures() -> None:
    report = performance(DECISIONS, Counts(decisions=9))
    assert report["by_scorer"]["kube-default"] == summarised([DECISIONS[7]])
    assert report["by_scorer"]["test"]["bound"] == 7
    text = as_text(report)
    assert "by kube-default\n" in text
    assert "33.3% of 3, 1 of them inferred; unknown: 1" in text
    assert "since the start: 9 decisions" in text


def test_the_service_reports_as_json_and_the_command_as_text(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    names = service.add_nodes(4)
    for i in range(10):
        service.prioritize(names, pod(f"p{i}"))
    for i in range(8):
        best = service.decision(f"uid-p{i}")["top"][0 if i < 6 else 3]["node"]
        service.change(lambda table, i=i, best=best: table.pod_bound(f"uid-p{i}", best, 0.5, 1.0))
    report = service.operations.get("/v1/report").json()
    assert (report["since_start"]["decisions"], report["remembered"]["bound"]) == (10, 8)
    assert report["remembered"]["rated_best_share"] == 0.75
    assert 0.0 < report["remembered"]["latency_ms"]["p50"] <= report["remembered"]["latency_ms"]["p99"]
    url = service.background.operations_url
    shown = CliRunner().invoke(app, ["report", "--url", url])
    assert (shown.exit_code, "on the node rated best: 75.0% of 8" in shown.output) == (0, True), shown.output
    assert CliRunner().invoke(app, ["report", "--url", url, "--json"]).output.startswith("{")


def test_the_command_says_what_to_do_where_there_is_no_service() -> None:
    refused = CliRunner().invoke(app, ["report", "--url", "http://127.0.0.1:9"])
    assert (refused.exit_code, "is the service running" in refused.output) == (1, True)
