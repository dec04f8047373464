"""Probes, metrics and logs say what is so."""

from __future__ import annotations

import io
import json
import logging
import math
import platform
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from extender import logs
from extender.cli import app as cli
from extender.operations import collectors
from extender.operations.collectors.agreement import OBSERVER
from extender.operations.collectors.estimates import ESTIMATES
from extender.operations.collectors.polling import KUBELETS
from extender.operations.families import RENAMED, Family
from extender.operations.metrics import FAMILIES
from extender.operations.reference import describe, metrics_table, settings_table
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, pod

Run = Callable[..., Service]
DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"


def test_ready_waits_for_the_cluster_and_says_so(run_service: Run) -> None:
    source = EmbeddedSource(synced=False)
    service = run_service(source)
    assert service.operations.get("/healthz").status_code == 200
    waiting = service.operations.get("/readyz")
    assert (waiting.status_code, waiting.json()["ready"]) == (503, False)
    assert "told in full" in waiting.json()["reasons"][0]
    assert service.metric("maddpg_synced") == 0
    source.mark_synced()
    assert service.operations.get("/readyz").json() == {"ready": True, "reasons": []}
    assert service.metric("maddpg_synced") == 1


def test_readiness_is_withdrawn_before_the_service_stops(run_service: Run) -> None:
    service = run_service(shutdown_delay_s=0.5)
    names = service.add_nodes(2)
    service.background.stop()
    reasons: list[str] = []
    for _ in range(100):
        reasons = service.operations.get("/readyz").json()["reasons"]
        if reasons:
            break
    assert reasons == ["the service is stopping"]
    assert set(service.prioritize(names)) == set(names), "requests are answered until the delay is over"


def test_operations_on_their_own_port_leave_the_verbs_port(run_service: Run) -> None:
    service = run_service(operations_port=0)
    assert service.background.port != service.background.operations_port
    assert service.operations.get("/healthz").status_code == 200
    assert service.http.get("/healthz").status_code == 404
    assert service.http.get("/metrics").status_code == 404
    assert service.operations.post("/prioritize", json={}).status_code in (404, 405)
    assert service.prioritize(service.add_nodes(1)) == {"node-0": 10}


def test_metrics_follow_what_happens(run_service: Run) -> None:
    service = run_service(range_tolerance=1.0)
    names = service.add_nodes(3)
    service.change(lambda table: table.upsert_node("node-0", 8.0, 32.0, ready=False))
    service.change(lambda table: table.pod_bound("p", "node-1", 20.0, 1.0))
    service.prioritize(names)
    service.post("prioritize", b"{")
    assert service.metric("maddpg_requests_total", verb="prioritize", code="200") == 1
    assert service.metric("maddpg_requests_total", verb="prioritize", code="400") == 1
    assert service.metric("maddpg_request_duration_seconds_count", verb="prioritize") == 2
    assert service.metric("maddpg_decisions_total", scorer="test") == 1
    assert service.metric("maddpg_nodes", ready="true") == 2
    assert service.metric("maddpg_nodes", ready="false") == 1
    assert service.metric("maddpg_pods") == 1
    assert service.metric("maddpg_assumed_placements") == 1
    assert service.metric("maddpg_scored_rows_total") >= 3
    assert service.metric("maddpg_observation_clipped_total", feature="cpu_requested") == 1
    assert service.metric("maddpg_observation_clipped_total", feature="node_speed") == 0
    assert service.metric("maddpg_source_events_total", input="nodes", event="posted") == 3
    assert 0 <= service.metric("maddpg_input_staleness_seconds", input="pods") < 10
    assert math.isnan(service.metric("maddpg_input_staleness_seconds", input="usage"))
    text = service.operations.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    assert "maddpg_policy_info{" in text.text


def test_housekeeping_expires_assumptions_and_old_measurements(run_service: Run) -> None:
    service = run_service(assumed_time_limit_s=0.2, housekeeping_interval_s=0.05)
    names = service.add_nodes(2)
    service.change(lambda table: table.set_usage("node-0", 4.0, 4.0, None, 1.0), "usage")
    service.prioritize(names)
    deadline = time.monotonic() + 5.0
    while service.metric("maddpg_assumed_expired_total") < 1:
        assert time.monotonic() < deadline, "the assumption never expired"
        time.sleep(0.02)
    assert service.metric("maddpg_assumed_placements") == 0
    used = service.change(lambda table: float(table.state.cpu_used[table.rows_of(["node-0"])[0]]))
    assert used == 0.0


def test_logs_are_json_and_carry_nothing_of_the_pod(run_service: Run) -> None:
    stream = io.StringIO()
    service = run_service(source=EmbeddedSource(), enable_bind=True)
    logs.configure("debug", "json", stream)
    secret = pod("web", annotations={"token": "s3cret"})
    secret["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "s3cret"}]
    service.prioritize(service.add_nodes(2), secret)
    body = {"PodName": "web", "PodNamespace": "default", "PodUID": "uid-web", "Node": "node-0"}
    service.post("bind", body)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert any(line["event"] == "bind failed" and line["level"] == "warning" for line in lines)
    assert "s3cret" not in stream.getvalue()
    assert "s3cret" not in json.dumps(service.decision("uid-web"))


def test_logs_of_libraries_are_json_too() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("uvicorn.error").info("hello")
    logging.getLogger("uvicorn.error").debug("unheard")
    [line] = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("hello", "info")


def test_every_setting_and_metric_is_documented_as_it_is() -> None:
    document = DOCUMENT.read_text()
    assert f"\n## Settings\n\n{settings_table()}\n" in document, "run `make reference`"
    assert f"\n## Metrics\n\n{metrics_table()}\n" in document, "run `make reference`"
    assert len(describe()) > 30
    assert "maddpg_fallbacks_total" in metrics_table()


def test_the_tables_are_written_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "operations.md"
    path.write_text("# Run\n\n## Settings\n\n| old |\n\n## Metrics\n\n| old |\n| x |\n\nAnd more.\n")
    done = CliRunner().invoke(cli, ["reference", "--write", str(path)])
    assert (done.exit_code, done.output) == (0, "")
    tables = f"## Settings\n\n{settings_table()}\n\n## Metrics\n\n{metrics_table()}\n"
    assert path.read_text() == f"# Run\n\n{tables}\nAnd more.\n"
    path.write_text("# Run\n")
    refused = CliRunner().invoke(cli, ["reference", "--write", str(path)])
    assert (refused.exit_code, "no table under a heading `## Settings`" in refused.output) == (2, True)


def test_every_part_shows_its_documented_metrics_and_sums_are_counters(run_service: Run, tmp_path: Path) -> None:
    service = run_service(
        EmbeddedSource(on_note=lambda _note: None),
        ledger_path=tmp_path / "ledger.db",
        explain_on_pod="event",
        shadow="least-used",
        experiment="most-allocated",
        tracing_endpoint="http://127.0.0.1:9/v1/traces",
        operations_user_header="X-Forwarded-User",
        operations_proxies=("10.0.0.7",),
    )
    names = service.add_nodes(2)
    service.prioritize(names)
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(service.operations.get("/metrics").text)
        if family.name.startswith("maddpg_") and not family.name.endswith("_created") and family.type != "unknown"
    }
    kinds = {family.name: family.kind for family in FAMILIES if not family.name.startswith("maddpg_tls_")}
    for family in (*KUBELETS, *ESTIMATES, *OBSERVER):  # the source knows neither kubelets nor machines, and we decide
        del kinds[family.name]
    assert {name: family.type for name, family in exposed.items()} == kinds
    for name, family in exposed.items():
        labels = {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples}
        assert labels <= {tuple(sorted(each.labels)) for each in FAMILIES if each.name == name}, name
        assert (family.type == "counter") == name.endswith("_total")


def test_every_family_of_every_part_is_documented() -> None:
    modules = [import_module(each.name) for each in iter_modules(collectors.__path__, f"{collectors.__name__}.")]
    defined = {
        family.name
        for module in modules
        for value in vars(module).values()
        if isinstance(value, tuple)
        for family in value
        if isinstance(family, Family)
    }
    assert defined == {family.name for family in FAMILIES}


def test_renamed_metrics_keep_their_former_names_for_a_release(run_service: Run) -> None:
    service = run_service()
    service.add_nodes(2)
    families = list(text_string_to_metric_families(service.operations.get("/metrics").text))
    former = {family.name: family.samples for family in families if family.type == "unknown"}
    now = {family.name: family.samples for family in families if family.type == "counter"}
    assert {"maddpg_source_events", "maddpg_outcomes"} <= set(former) <= {it.removesuffix("_total") for it in RENAMED}
    for name, samples in former.items():
        assert [(each.labels, each.value) for each in samples] == [(each.labels, each.value) for each in now[name]]
    assert set(RENAMED) <= {family.name for family in FAMILIES}


def test_build_and_process_are_shown(run_service: Run) -> None:
    text = run_service().operations.get("/metrics").text
    build = next(line for line in text.splitlines() if line.startswith("maddpg_build_info{"))
    assert f'version="{metadata.version("maddpg-scheduler")}"' in build
    assert f'python="{platform.python_version()}"' in build
    assert 'onnxruntime="' in build
    assert "\nprocess_resident_memory_bytes " in text
    assert "\npython_gc_collections_total{" in text


def test_a_task_that_fails_shows_in_the_metrics_and_the_service_goes_on(
    run_service: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = run_service(housekeeping_interval_s=0.01)
    table = service.background.app.table

    def broken() -> int:
        raise UnicodeError("s3cret")

    with monkeypatch.context() as patched:
        patched.setattr(table, "expire_assumed", broken)
        service.eventually(lambda: service.metric("maddpg_task_failures_total", task="housekeeping") >= 1)
        service.eventually(lambda: service.metric("maddpg_task_retrying", task="housekeeping") == 1)
    service.eventually(lambda: service.metric("maddpg_task_retrying", task="housekeeping") == 0)
    assert service.metric("maddpg_task_failures_total", task="signals") == 0
