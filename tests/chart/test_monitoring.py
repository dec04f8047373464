"""Alerts and dashboard speak of metrics that the service exposes, and a real Prometheus answers their queries."""

import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.app import create_app
from extender.cluster.table import ClusterTable
from extender.operations.metrics import FAMILIES
from extender.settings import Settings
from tests.chart.conftest import skip_or_raise
from tests.chart.helm import CHART, Rendering, nested, template
from tests.chart.prometheus import prometheus_binary
from tests.control_plane.certificates import Authority
from tests.control_plane.processes import Process, answers_ok, free_ports
from tests.control_plane.toolchain import REPOSITORY, BuildError
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, by_names, pod
from tests.policy.states import write_bundle

EXAMPLES = REPOSITORY / "deploy" / "autoscaling"
MONITORING = REPOSITORY / "deploy" / "monitoring"
RULES = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
RULE_LIST = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule["alert"] for rule in RULE_LIST if "alert" in rule]
AUTOSCALING = {
    "keda": [
        trigger["metadata"]["query"]
        for trigger in yaml.safe_load((EXAMPLES / "keda.yaml").read_text())["spec"]["triggers"]
    ],
    "prometheus-adapter": [
        query
        for rule in yaml.safe_load((EXAMPLES / "prometheus-adapter.yaml").read_text())["rules"]["external"]
        for query in (rule["seriesQuery"], rule["metricsQuery"])
    ],
}
"""Queries of deploy/autoscaling."""
RECORDED = {rule["record"] for rule in RULE_LIST if "record" in rule}
QUERIES = [
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in RULE_LIST),
    *(
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ),
    *((f"{file} {number}", query) for file, queries in AUTOSCALING.items() for number, query in enumerate(queries)),
]
_METRIC = re.compile(r"\bmaddpg[:_][a-z0-9_:]+")
_RATED = re.compile(r"\b(?:rate|irate|increase)\(\s*([a-zA-Z_:][a-zA-Z0-9_:]*)")


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return prometheus_binary("promtool")
    except BuildError as error:
        skip_or_raise(error)


def _exposed(*kinds: str) -> set[str]:
    """The names of all series of these kinds that the service can show."""
    suffixes = {"counter": [""], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + suffix for family in FAMILIES if family.kind in kinds for suffix in suffixes[family.kind]}


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_query_uses_only_metrics_that_exist(name: str, query: str) -> None:
    used = set(_METRIC.findall(query))
    assert used <= _exposed("counter", "gauge", "histogram") | RECORDED, name
    assert used or "up{" in query or query.startswith("vector(")


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_rates_are_taken_of_counters_alone(name: str, query: str) -> None:
    rated = set(_RATED.findall(query))
    assert rated <= _exposed("counter", "histogram"), name
    assert len(rated) > 0 or not re.search(r"\b(rate|irate|increase)\(", query)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_leads_to_its_section_of_the_troubleshooting_page(alert: str) -> None:
    [rule] = [rule for rule in RULE_LIST if rule.get("alert") == alert]
    assert rule["annotations"]["runbook"] == f"docs/troubleshooting.md#{alert.lower()}"
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"\n### {alert}\n" in page


def test_promtool_accepts_the_rules(promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", MONITORING / "rules.yaml"], capture_output=True, text=True)
    assert f"{len(RULE_LIST)} rules found" in done.stdout, done.stderr


def test_rules_raise_the_alerts_that_their_tests_expect(promtool: Path) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"], cwd=MONITORING, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_rule_tests_show_every_alert_raised_and_silent(alert: str) -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    expected = [
        bool(each["exp_alerts"])
        for test in tests
        for each in test.get("alert_rule_test", ())
        if each["alertname"] == alert
    ]
    assert set(expected) == {True, False}  # fmt: skip


@pytest.mark.parametrize("alert", ALERTS)
def test_rule_tests_notice_a_missing_alert(alert: str, promtool: Path, tmp_path: Path) -> None:
    kept = [
        {**group, "rules": [rule for rule in group["rules"] if rule.get("alert") != alert]} for group in RULES["groups"]
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": kept}))
    (tmp_path / "rules_test.yaml").write_text((MONITORING / "rules_test.yaml").read_text())
    done = subprocess.run([promtool, "test", "rules", "rules_test.yaml"], cwd=tmp_path, capture_output=True)
    assert done.returncode != 0


def _with_monitoring(home: Path) -> Rendering:
    switches = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")}
    return template(home, nested(("monitoring",), switches))


def test_chart_carries_the_same_rules_and_dashboard(home: Path) -> None:
    rendered = _with_monitoring(home)
    assert rendered.one("PrometheusRule")["spec"] == RULES == yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (content,) = rendered.one("ConfigMap", "maddpg-scheduler-dashboard")["data"].values()
    assert json.loads(content) == DASHBOARD == json.loads((MONITORING / "dashboard.json").read_text())


def test_every_scrape_uses_the_name_that_alerts_look_for(home: Path) -> None:
    (endpoint,) = _with_monitoring(home).one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "maddpg-extender"}]
    (scrape,) = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"]
    assert scrape["job_name"] == "maddpg-extender"
    assert 'up{job="maddpg-extender"}' in (CHART / "files" / "rules.yaml").read_text()


Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ask(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """A real Prometheus with the shipped configuration, which has scraped an extender that decided a few times.

    Over TLS with a client certificate, which is demanded, and with a candidate in the shadow and another in an
    experiment: their panels have something to show.
    """
    directory = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    source = EmbeddedSource()
    authority = Authority(directory, "authority")
    pair = authority.issue("extender", "127.0.0.1")
    settings = Settings(
        port=0,
        operations_port=0,
        operations_host="127.0.0.1",
        bundle_path=write_bundle(tmp_path_factory.mktemp("bundle")),
        deadline_ms=2000.0,
        shadow="least-used",
        experiment="most-allocated",
        tls_cert_file=pair.certificate,
        tls_key_file=pair.key,
        operations_tls=True,
        operations_client_ca_file=authority.certificate,
        operations_client_names=("prometheus",),
    )
    reader = authority.issue("prometheus")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(reader.certificate, reader.key)
    background = BackgroundService(create_app(settings, source)).__enter__()
    service = Service(background, source, context)
    names = service.add_nodes(5)
    with closing(service):
        config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        # Debian's build has no discovery through Kubernetes: the target is named instead
        (scrape,) = config["scrape_configs"]
        config["scrape_configs"] = [
            {
                "job_name": scrape["job_name"],
                "scheme": "https",
                "tls_config": {
                    "ca_file": str(authority.certificate),
                    "cert_file": str(reader.certificate),
                    "key_file": str(reader.key),
                },
                "static_configs": [{"targets": [f"127.0.0.1:{background.operations_port}"]}],
            }
        ]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        (directory / "rules.yaml").write_text((MONITORING / "rules.yaml").read_text())
        command = [
            str(prometheus_binary("prometheus")),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        process = Process("prometheus", command, directory, answers_ok(f"http://127.0.0.1:{port}/-/ready"))
        try:
            process.start()
            process.wait()
            query = partial(_query, f"http://127.0.0.1:{port}")
            deadline = time.monotonic() + 30.0
            # a rate needs two scrapes, and a recorded ratio one more evaluation
            for cpu in count(100):
                if all(query(name) for name in RECORDED):
                    break
                assert time.monotonic() < deadline, process.tail()
                service.post("prioritize", by_names(names, pod(f"pod-{cpu}", cpu=f"{cpu}m")))
                service.change(partial(_bind, f"uid-pod-{cpu}", names[cpu % len(names)]))
                time.sleep(0.2)
            yield query
        finally:
            process.stop()


def _bind(uid: str, node: str, table: ClusterTable) -> None:
    table.pod_bound(uid, node, 0.1, 1.0)


def _query(url: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers; an expression that it refuses ends the test."""
    asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.HTTPError as error:
        pytest.fail(f"{expression}: {error.read().decode()}")


def _as_grafana_sends(expression: str) -> str:
    """With the dashboard's variables filled in."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=[panel["title"] for panel in DASHBOARD["panels"]])
def test_prometheus_answers_every_panel_with_data(ask: Query, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert ask(_as_grafana_sends(target["expr"])), target["expr"]


@pytest.mark.parametrize("file", AUTOSCALING)
def test_prometheus_answers_the_queries_of_autoscalers_with_one_number(ask: Query, file: str) -> None:
    for query in AUTOSCALING[file]:
        assert len(ask(query)) == 1, query


@pytest.mark.parametrize("rule", RULE_LIST, ids=[rule.get("alert") or rule["record"] for rule in RULE_LIST])
def test_prometheus_evaluates_every_rule(ask: Query, rule: dict[str, Any]) -> None:
    result = ask(rule["expr"])
    if "record" in rule:
        assert result, "a recording rule over a working extender has a value"
