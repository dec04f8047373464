"""What the chart renders, and what it refuses; no cluster is needed."""

import base64
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cryptography import x509

from extender import configuration
from extender.inspection.scheduler_config import inspect
from extender.operations import tunnel
from extender.settings import Settings
from helm import reference
from tests.chart.helm import (
    CHART,
    CI_VALUES,
    CLUSTER_NAME,
    KUBE_VERSION,
    NAMESPACE,
    RELEASE,
    HelmError,
    Rendering,
    helm,
    merged,
    nested,
    notes,
    template,
)
from tests.control_plane.toolchain import REPOSITORY

VALUES = {value.name: value for value in reference.read_values((CHART / "values.yaml").read_text())}
SERVICE = {"extender": {"mode": "service"}}
CANDIDATE = nested(("extender", "candidate", "persistentVolumeClaim"), "claim")
PROMETHEUS = nested(("extender", "prometheus", "url"), "https://prometheus.monitoring:9090")
BASIC = nested(("extender", "prometheus", "basicAuth"), {"username": "reader", "secret": "a"})
KUBELET = nested(("extender", "kubelet", "enabled"), True)
SECURED = nested(("tls", "operations"), True)
EXISTING = {"mode": "existing", "existing": {"serverSecret": "a", "clientSecret": "b"}}
DEMANDING = nested(("tls",), {"operations": True, "operationsClients": {"required": True}})


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_chart_passes_the_strict_linter(home: Path, values: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values), home=home)


# Where a value shows only in company, what must be set beside it; the longest prefix wins.
COMPANY: dict[str, dict[str, Any]] = {
    "": {},
    "extender.replicas": SERVICE,
    "extender.serviceAccount": SERVICE,
    "extender.serviceAccount.create": merged(SERVICE, nested(("extender", "serviceAccount", "name"), "mine")),
    "extender.podDisruptionBudget": SERVICE,
    "extender.autoscaling": nested(("extender",), {"mode": "service", "autoscaling": {"enabled": True}}),
    "extender.autoscaling.enabled": SERVICE,
    "extender.bundle.subPath": nested(("extender", "bundle", "persistentVolumeClaim"), "claim"),
    "extender.candidate.subPath": CANDIDATE,
    "extender.candidate.use": CANDIDATE,
    "extender.prometheus": PROMETHEUS,
    "extender.prometheus.url": {},
    "extender.prometheus.ca.key": merged(PROMETHEUS, nested(("extender", "prometheus", "ca", "secret"), "ca")),
    "extender.prometheus.token.key": merged(PROMETHEUS, nested(("extender", "prometheus", "token", "secret"), "a")),
    "extender.prometheus.basicAuth.key": merged(PROMETHEUS, BASIC),
    "extender.prometheus.basicAuth.secret": merged(PROMETHEUS, BASIC),
    "extender.prometheus.basicAuth.username": merged(PROMETHEUS, BASIC),
    "extender.prometheus.headers.key": merged(PROMETHEUS, nested(("extender", "prometheus", "headers", "secret"), "a")),
    "extender.kubelet": KUBELET,
    "extender.kubelet.enabled": {},
    "benchmark": nested(("benchmark", "enabled"), True),
    "benchmark.enabled": {},
    "extender.kubelet.ca.key": merged(KUBELET, nested(("extender", "kubelet", "ca", "secret"), "a")),
    "scheduler.enabled": SERVICE,
    "scheduler.serviceAccount.create": nested(("scheduler", "serviceAccount", "name"), "mine"),
    "networkPolicy.callers": SERVICE,
    "networkPolicy.dns": SERVICE,
    "tls": SERVICE,
    "tls.certManager": merged(SERVICE, nested(("tls", "mode"), "certManager")),
    "tls.certManager.issuerRef": merged(
        SERVICE, nested(("tls",), {"mode": "certManager", "certManager": {"issuerRef": {"name": "mine"}}})
    ),
    "tls.existing": merged(
        SERVICE, nested(("tls",), {"mode": "existing", "existing": {"serverSecret": "a", "clientSecret": "b"}})
    ),
    "tls.existing.readerSecret": merged(
        DEMANDING,
        nested(
            ("tls",), {"mode": "existing", "existing": {"serverSecret": "a", "clientSecret": "b", "readerSecret": "c"}}
        ),
    ),
    "tls.operationsClients": DEMANDING,
    "tls.operationsClients.required": SECURED,
    "monitoring.serviceMonitor": nested(("monitoring", "serviceMonitor", "enabled"), True),
    "monitoring.serviceMonitor.enabled": {},
    "monitoring.prometheusRule": nested(("monitoring", "prometheusRule", "enabled"), True),
    "monitoring.prometheusRule.enabled": {},
    "monitoring.dashboard": nested(("monitoring", "dashboard", "enabled"), True),
    "monitoring.dashboard.enabled": {},
}
# Values whose schema asks for a certain form.
OTHER: dict[str, Any] = {
    "imagePullSecrets": [{"name": "pull"}],
    "extender.image.digest": "sha256:" + "0" * 64,
    "extender.settings": {"deadline_ms": 17},
    "extender.bundle.subPath": "some/folder",
    "extender.candidate.subPath": "some/folder",
    "extender.prometheus.url": "http://prometheus:9090",
    "extender.extraEnv": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    "extender.extraVolumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
    "extender.extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "extender.autoscaling.minReplicas": 4,
    "scheduler.image.tag": "v1.36.0",
    "scheduler.image.digest": "sha256:" + "0" * 64,
    "scheduler.leaderElection.leaseDuration": "60s",
    "scheduler.leaderElection.renewDeadline": "12s",
    "scheduler.leaderElection.retryPeriod": "3s",
    "scheduler.extender.httpTimeout": "750ms",
    "scheduler.extraArgs": ["--profiling=false"],
    "tls.certManager.duration": "1440h",
    "tls.certManager.renewBefore": "24h",
    "benchmark.tolerations": [],
    "pods.tolerations": [{"operator": "Exists"}],
    "networkPolicy.callers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    "networkPolicy.observers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    "networkPolicy.apiServerPorts": [8443],
    "networkPolicy.dns.ports": [5300],
    "networkPolicy.dns.peers": [{"namespaceSelector": {}}],
    "networkPolicy.extraEgress": [{"ports": [{"port": 9090}]}],
    "monitoring.serviceMonitor.interval": "1m",
}


def _other(value: reference.Value) -> Any:
    """An accepted value that is not the default."""
    if value.name in OTHER:
        return OTHER[value.name]
    default = value.default
    if "enum" in value.narrowed:
        return next(word for word in value.narrowed["enum"] if word != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 5
    if isinstance(default, str):
        return "something-else"
    if isinstance(default, list):
        return [*default, "SomethingElse"]
    return {**default, "something": "else"}


def _company(name: str) -> dict[str, Any]:
    return COMPANY[max((prefix for prefix in COMPANY if name.startswith(prefix)), key=len)]


@pytest.mark.parametrize("name", VALUES)
def test_every_documented_value_changes_what_is_rendered(home: Path, name: str) -> None:
    company = _company(name)
    before = _rendered_before(home, json.dumps(company))
    after = template(home, merged(company, nested(name.split("."), _other(VALUES[name]))))
    assert _comparable(after) != _comparable(before)


def _comparable(rendering: Rendering) -> list[dict[str, Any]]:
    """What is rendered, with how long certificates hold in place of what is drawn anew each time."""
    return [
        each | {"data": _days(each["data"]["tls.crt"])} if each["kind"] == "Secret" else each
        for each in rendering.objects
    ]


def _certificate(encoded: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(encoded))


def _days(certificate: str) -> int:
    found = _certificate(certificate)
    return (found.not_valid_after_utc - found.not_valid_before_utc).days


@cache
def _rendered_before(home: Path, values: str) -> Rendering:
    return template(home, json.loads(values))


OPTIONAL_SETTINGS = {
    "random_seed": 7,
    "ledger_path": "/tmp/decisions.sqlite",
    "tracing_endpoint": "http://collector.monitoring:4318",
    "shadow": "least-used",
    "experiment": "/bundles/next",
    "prometheus_url": "https://prometheus.monitoring:9090",
    "prometheus_ca_file": "/etc/ca/ca.crt",
    "prometheus_token_file": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "prometheus_username": "reader",
    "prometheus_password_file": "/etc/login/password",
    "prometheus_headers_file": "/etc/tenant/headers",
    "kubelet_ca_file": "/etc/kubelets/ca.crt",
    "node_speed_benchmark": "monitoring/benchmark",
    "operations_user_header": "X-Forwarded-User",
}


def test_every_setting_of_the_service_reaches_its_settings_file(home: Path) -> None:
    given: dict[str, Any] = {}
    for name in reference.settings_schema()["properties"]:
        default = Settings.model_fields[name].default
        if default is None:
            given[name] = OPTIONAL_SETTINGS[name]
        elif isinstance(default, dict):
            given[name] = dict.fromkeys(default or ["some-name"], 0.25)
        elif isinstance(default, tuple):
            given[name] = ["10.0.0.7"]
        else:
            given[name] = default
    rendered = template(home, nested(("extender", "settings"), given)).settings()
    assert {name: rendered[name] for name in given} == given


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_service_accepts_the_rendered_settings(home: Path, tmp_path: Path, values: Path) -> None:
    rendered = template(home, files=[values])
    (file,) = [each["data"]["settings.yaml"] for each in rendered.all("ConfigMap") if "settings.yaml" in each["data"]]
    path = tmp_path / "settings.yaml"
    path.write_text(file)
    loaded = configuration.load(path)
    container = rendered.container("extender")
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert (loaded.port, loaded.operations_port) == (ports["verbs"], ports["operations"])
    assert loaded.operations_host == "0.0.0.0,::"
    mode = (yaml.safe_load(values.read_text()).get("extender") or {}).get("mode", "sidecar")
    assert loaded.host == {"sidecar": "127.0.0.1,::1", "service": "0.0.0.0,::"}[mode]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    if loaded.bundle_path is None:
        assert "/etc/maddpg/bundle" not in mounts
    else:
        assert any(loaded.bundle_path.is_relative_to(mount) for mount in mounts)


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_what_kube_scheduler_is_given_suits_what_the_service_is_given(home: Path, tmp_path: Path, values: Path) -> None:
    rendered = template(home, files=[values])
    files = {name: text for each in rendered.all("ConfigMap") for name, text in each["data"].items()}
    for name in ("settings.yaml", "config.yaml"):
        (tmp_path / name).write_text(files.get(name, ""))
    found = list(inspect(tmp_path / "config.yaml", configuration.load(tmp_path / "settings.yaml")))
    left_on = [each for each in found if each.name.endswith(".plugins.score")]
    if "config.yaml" in files:
        assert [each.verdict for each in found if each not in left_on] in ([], ["ok"]), found
        assert bool(left_on) == (values.stem == "small-values")


WRONG = [
    ("/foo", "'foo' not allowed", {"foo": 1}),
    ("/extender", "'replica' not allowed", nested(("extender", "replica"), 1)),
    ("/extender/replicas", "got string, want integer", nested(("extender", "replicas"), "two")),
    ("/extender/replicas", "minimum", nested(("extender", "replicas"), 0)),
    ("/extender/mode", "must be one of", nested(("extender", "mode"), "daemonset")),
    ("/extender/port", "maximum", nested(("extender", "port"), 70_000)),
    ("/extender/image/digest", "does not match pattern", nested(("extender", "image", "digest"), "latest")),
    ("/extender/settings", "'deadline' not allowed", nested(("extender", "settings", "deadline"), 5)),
    ("/extender/settings", "'port' not allowed", nested(("extender", "settings", "port"), 5)),
    ("/extender/settings/deadline_ms", "want number", nested(("extender", "settings", "deadline_ms"), "fast")),
    ("/extender/settings/ledger_size", "minimum", nested(("extender", "settings", "ledger_size"), 0)),
    ("/extender/settings/unknown_node_priority", "maximum", {"extender": {"settings": {"unknown_node_priority": 11}}}),
    ("/extender/bundle/subPath", "does not match pattern", nested(("extender", "bundle", "subPath"), "../elsewhere")),
    ("/extender/prometheus/url", "does not match", nested(("extender", "prometheus", "url"), "https://me:secret@here")),
    ("/extender/image/repository", "pattern", nested(("extender", "image", "repository"), "r.example/x:1.0")),
    ("/extender/image/repository", "pattern", nested(("extender", "image", "repository"), "r.example/x@sha256:00")),
    ("/extender/image/tag", "pattern", nested(("extender", "image", "tag"), "a b")),
    ("/scheduler/image/tag", "pattern", nested(("scheduler", "image", "tag"), "v1.36.2 or so")),
    ("/scheduler/extender/weight", "maximum", nested(("scheduler", "extender", "weight"), 2**61)),
    ("/scheduler/extender/httpTimeout", "pattern", nested(("scheduler", "extender", "httpTimeout"), "0s")),
    ("/scheduler/leaderElection/retryPeriod", "pattern", nested(("scheduler", "leaderElection", "retryPeriod"), "0s")),
    ("/scheduler/name", "not", nested(("scheduler", "name"), "default-scheduler")),
    ("/scheduler/image/tag", "does not match pattern", nested(("scheduler", "image", "tag"), "latest")),
    ("/fullnameOverride", "does not match pattern", {"fullnameOverride": "Abc"}),
    ("/nameOverride", "does not match pattern", {"nameOverride": "A b"}),
    ("/enabled", "want boolean", {"enabled": "yes"}),
    ("/extender/extraEnv/0/value", "want string", nested(("extender", "extraEnv"), [{"name": "A", "value": 1}])),
    ("/networkPolicy/dns/ports/0", "maximum", nested(("networkPolicy", "dns", "ports"), [70_000])),
    ("/scheduler/extender/httpTimeout", "pattern", nested(("scheduler", "extender", "httpTimeout"), "fast")),
    ("/pods/antiAffinity", "must be one of", nested(("pods", "antiAffinity"), "maybe")),
    ("/networkPolicy/apiServerPorts/0", "maximum", nested(("networkPolicy", "apiServerPorts"), [70_000])),
    ("/monitoring/serviceMonitor/interval", "pattern", nested(("monitoring", "serviceMonitor", "interval"), "often")),
]  # fmt: skip


@pytest.mark.parametrize(("path", "why", "values"), WRONG, ids=[f"{path} {why}" for path, why, _ in WRONG])
def test_wrong_value_is_refused_by_its_path(home: Path, path: str, why: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError) as refused:
        template(home, values)
    at = path.rsplit("/", 1)[0] if "not allowed" in why and path == "/foo" else path
    assert f"at '{at}'" in str(refused.value)
    assert why in str(refused.value)


BASIC_SECRET = ("extender", "prometheus", "basicAuth", "secret")
TOKEN_SECRET = ("extender", "prometheus", "token", "secret")
DISAGREEING = [
    ("extender.mode", nested(("scheduler", "enabled"), False)),
    ("extender.autoscaling.enabled", nested(("extender", "autoscaling", "enabled"), True)),
    (
        "extender.autoscaling.minReplicas",
        nested(("extender",), {"mode": "service", "autoscaling": {"minReplicas": 6}}),
    ),
    ("extender.operationsPort", nested(("extender", "operationsPort"), 8888)),
    ("extender.bundle.configMap", nested(("extender", "bundle"), {"configMap": "a", "persistentVolumeClaim": "b"})),
    ("extender.bundle.subPath", nested(("extender", "bundle", "subPath"), "a")),
    (
        "extender.candidate.configMap",
        nested(("extender", "candidate"), {"configMap": "a", "persistentVolumeClaim": "b"}),
    ),
    ("extender.candidate.subPath", nested(("extender", "candidate", "subPath"), "a")),
    ("extender.candidate.use", merged(CANDIDATE, nested(("extender", "settings", "shadow"), "least-used"))),
    (
        "extender.prometheus.ca.configMap",
        merged(PROMETHEUS, nested(("extender", "prometheus", "ca"), {"configMap": "a", "secret": "b"})),
    ),
    ("extender.prometheus.url", nested(("extender", "prometheus", "token", "secret"), "a")),
    ("extender.prometheus.url", nested(("extender", "prometheus", "headers", "secret"), "a")),
    ("extender.prometheus.basicAuth.username", merged(PROMETHEUS, nested(BASIC_SECRET, "a"))),
    ("extender.prometheus.basicAuth.username", merged(merged(PROMETHEUS, BASIC), nested(TOKEN_SECRET, "a"))),
    ("extender.prometheus.url", merged(PROMETHEUS, nested(("extender", "settings", "usage_source"), "none"))),
    ("extender.kubelet.enabled", merged(KUBELET, PROMETHEUS)),
    ("extender.kubelet.enabled", merged(KUBELET, nested(("extender", "settings", "usage_source"), "none"))),
    ("extender.kubelet.ca", merged(PROMETHEUS, nested(("extender", "kubelet", "insecureSkipTLSVerify"), True))),
    ("extender.kubelet.ca", merged(PROMETHEUS, nested(("extender", "kubelet", "ca", "secret"), "a"))),
    (
        "extender.kubelet.ca",
        {"extender": {"kubelet": {"ca": {"secret": "a"}}, "settings": {"usage_source": "metrics-server"}}},
    ),
    (
        "extender.kubelet.ca",
        {"extender": {"kubelet": {"ca": {"secret": "a"}}, "settings": {"kubelet_ca_file": "/a"}}},
    ),
    (
        "extender.kubelet.ca.configMap",
        merged(KUBELET, nested(("extender", "kubelet", "ca"), {"configMap": "a", "secret": "b"})),
    ),
    (
        "extender.kubelet.insecureSkipTLSVerify",
        merged(KUBELET, nested(("extender", "kubelet"), {"insecureSkipTLSVerify": True, "ca": {"secret": "b"}})),
    ),
    (
        "benchmark.enabled",
        {"benchmark": {"enabled": True}, "extender": {"settings": {"node_speed_benchmark": "a/b"}}},
    ),
    ("tls.operations", merged(SECURED, nested(("tls", "mode"), "none"))),
    ("tls.operationsClients.required", nested(("tls", "operationsClients", "required"), True)),
    ("tls.operationsClients.names", merged(SECURED, nested(("tls", "operationsClients", "names"), ["ann"]))),
    ("tls.existing.readerSecret", merged(DEMANDING, nested(("tls",), EXISTING))),
    ("tls.existing.serverSecret", merged(SECURED, nested(("tls", "mode"), "existing"))),
    ("extender.extraEnv", nested(("extender", "extraEnv"), [{"name": "A"}, {"name": "A", "value": "b"}])),
    ("extender.extraEnv", nested(("extender", "extraEnv"), [{"name": "MADDPG_PORT", "value": "1"}])),
    ("imagePullSecrets", {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
    (
        "tls.certManager.renewBefore",
        merged(SERVICE, nested(("tls",), {"mode": "certManager", "certManager": {"renewBefore": "2160h"}})),
    ),
    ("scheduler.leaderElection.renewDeadline", nested(("scheduler", "leaderElection", "renewDeadline"), "15s")),
    ("scheduler.leaderElection.retryPeriod", nested(("scheduler", "leaderElection", "retryPeriod"), "9s")),
    ("extender.settings.prometheus_url", nested(("extender", "settings", "usage_source"), "prometheus")),
    ("tls.existing.serverSecret", merged(SERVICE, nested(("tls", "mode"), "existing"))),
    ("extender.settings.deadline_ms", nested(("extender", "settings", "deadline_ms"), 1000)),
    ("extender.settings.deadline_ms", nested(("scheduler", "extender", "httpTimeout"), "40ms")),
    ("scheduler.extender.filter", {"scheduler": {"extender": {"filter": True}},
                                   "extender": {"settings": {"enable_filter": False}}}),
    ("enabled", {"enabled": False}),
    ("scheduler.serviceAccount.name", nested(("scheduler", "serviceAccount", "create"), False)),
    ("scheduler.serviceAccount.name", nested(("scheduler", "serviceAccount", "name"), "default")),
    ("extender.serviceAccount.name", merged(SERVICE, nested(("extender", "serviceAccount", "create"), False))),
    ("commonLabels", {"commonLabels": {"app.kubernetes.io/name": "x"}}),
    ("pods.labels", {"pods": {"labels": {"app.kubernetes.io/component": "x"}}}),
    ("monitoring.dashboard.labels", {"monitoring": {"dashboard": {"labels": {"app.kubernetes.io/instance": "x"}}}}),
    ("pods.annotations", {"pods": {"annotations": {"checksum/settings": "x"}}}),
    ("extender.port", nested(("extender", "port"), 10259)),
    ("extender.port", nested(("extender", "operationsPort"), 10259)),
    ("extender.extraVolumes", nested(("extender", "extraVolumes"), [{"name": "tmp", "emptyDir": {}}])),
    ("extender.extraVolumes", nested(("extender", "extraVolumes"), [{"name": "a"}, {"name": "a"}])),
    ("extender.extraVolumeMounts", nested(("extender", "extraVolumeMounts"), [{"name": "a", "mountPath": "/tmp/"}])),
    ("scheduler.image.tag", nested(("scheduler", "image", "tag"), "v1.33.9")),
    ("scheduler.image.tag", nested(("scheduler", "image", "tag"), "v1.30")),
    ("scheduler.image.tag", nested(("scheduler", "image", "tag"), "v1.36")),
]  # fmt: skip


@pytest.mark.parametrize(("path", "values"), DISAGREEING, ids=[f"{path} {v}" for path, v in DISAGREEING])
def test_values_that_disagree_are_refused_by_path(home: Path, path: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=rf"{path}: \w+"):
        template(home, values)


def test_scheduler_is_configured_as_the_shipped_configuration_says(home: Path) -> None:
    shipped = yaml.safe_load((REPOSITORY / "deploy" / "scheduler-config.yaml").read_text())
    rendered = template(home).scheduler_configuration()
    # in a pod the ServiceAccount is used, and the lease's times are kube-scheduler's defaults, spelled out
    del shipped["clientConnection"]["kubeconfig"]
    times = {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"}
    assert rendered.pop("leaderElection") == {**shipped.pop("leaderElection"), **times}
    assert rendered == shipped


def test_rights_are_those_of_the_shipped_manifest(home: Path) -> None:
    shipped = [each for each in yaml.safe_load_all((REPOSITORY / "deploy" / "rbac.yaml").read_text()) if each]
    rules = {(each["kind"], each["metadata"]["name"]): each["rules"] for each in shipped if "rules" in each}
    rendered = template(home)
    assert rendered.one("ClusterRole", f"{CLUSTER_NAME}-extender")["rules"] == rules["ClusterRole", "maddpg-extender"]
    assert rendered.one("Role", RELEASE)["rules"] == rules["Role", "maddpg-scheduler-leader-election"]
    binding = template(home, nested(("extender", "settings", "enable_bind"), True))
    more = rules["ClusterRole", "maddpg-extender-bind"]
    assert (
        binding.one("ClusterRole", f"{CLUSTER_NAME}-extender")["rules"]
        == rules["ClusterRole", "maddpg-extender"] + more
    )
    readers = {"operations_bearer": True, "operations_users": ["platform-team"]}
    guarded = template(home, merged(SECURED, {"extender": {"settings": readers}}))
    more = rules["ClusterRole", "maddpg-extender-authentication"]
    role = guarded.one("ClusterRole", f"{CLUSTER_NAME}-extender")
    assert role["rules"] == rules["ClusterRole", "maddpg-extender"] + more
    for form in ("event", "annotation"):
        explaining = template(home, nested(("extender", "settings", "explain_on_pod"), form))
        more = rules["ClusterRole", f"maddpg-extender-{form}"]
        role = explaining.one("ClusterRole", f"{CLUSTER_NAME}-extender")
        assert role["rules"] == rules["ClusterRole", "maddpg-extender"] + more


def _source(name: str) -> dict[str, Any]:
    return nested(("extender", "settings", "usage_source"), name)


METRICS_RIGHT = {"apiGroups": ["metrics.k8s.io"], "resources": ["nodes"], "verbs": ["list"]}
KUBELET_RIGHT = {"apiGroups": [""], "resources": ["nodes/stats"], "verbs": ["get"]}


@pytest.mark.parametrize("mode", ["sidecar", "service"])
@pytest.mark.parametrize(
    ("values", "rights"),
    [
        ({}, [METRICS_RIGHT, KUBELET_RIGHT]),
        (_source("auto"), [METRICS_RIGHT, KUBELET_RIGHT]),
        (KUBELET, [KUBELET_RIGHT]),
        (_source("kubelet"), [KUBELET_RIGHT]),
        (_source("metrics-server"), [METRICS_RIGHT]),
        (PROMETHEUS, []),
        (_source("none"), []),
    ],
    ids=str,
)
def test_what_measures_use_is_asked_by_right_and_let_through(
    home: Path, mode: str, values: dict[str, Any], rights: list[dict[str, Any]]
) -> None:
    rendered = template(home, merged(values, nested(("extender", "mode"), mode)))
    rules = rendered.one("ClusterRole", f"{CLUSTER_NAME}-extender")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list", "watch"]}, *rights]
    policy = rendered.one("NetworkPolicy", RELEASE if mode == "sidecar" else f"{RELEASE}-extender")
    let_through = {"ports": [{"port": 10250, "protocol": "TCP"}]} in policy["spec"]["egress"]
    assert let_through is (KUBELET_RIGHT in rights)
    chosen = {str(KUBELET): "kubelet", str(PROMETHEUS): "prometheus"}.get(str(values))
    named = values.get("extender", {}).get("settings", {}).get("usage_source", "auto")
    assert rendered.settings().get("usage_source", "auto") == (chosen or named)


def test_notes_say_whether_kubelets_answer_where_both_are_asked(home: Path) -> None:
    assert "kubectl maddpg nodes --json" in notes(home)
    assert "kubectl maddpg nodes --json" not in notes(home, _source("metrics-server"))
    assert "kubectl maddpg nodes --json" not in notes(home, PROMETHEUS)


@pytest.mark.parametrize("mode", ["sidecar", "service"])
def test_replicas_find_and_reach_each_other(home: Path, mode: str) -> None:
    observers = nested(("networkPolicy", "observers"), [{"ipBlock": {"cidr": "192.0.2.0/24"}}])
    rendered = template(home, merged(nested(("extender", "mode"), mode), observers))
    service = rendered.one("Service", rendered.settings()["peers"])
    component = "scheduler" if mode == "sidecar" else "extender"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert [each["port"] for each in service["spec"]["ports"]] == [rendered.settings()["operations_port"]]
    selector = service["spec"]["selector"]
    assert selector["app.kubernetes.io/component"] == component
    assert service["metadata"]["labels"]["app.kubernetes.io/component"] == "peers", "Prometheus would scrape it as well"
    policy = rendered.one("NetworkPolicy", RELEASE if mode == "sidecar" else f"{RELEASE}-extender")["spec"]
    assert policy["podSelector"]["matchLabels"] == selector
    (allowed,) = [each for each in policy["ingress"] if each["ports"] == [{"port": "operations"}]]
    assert {"podSelector": {"matchLabels": selector}} in allowed["from"]
    assert {"ports": [{"port": "operations"}], "to": [{"podSelector": {"matchLabels": selector}}]} in policy["egress"]
    assert {"port": 53, "protocol": "UDP"} in [port for each in policy["egress"] for port in each["ports"]], "names"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (nested(("scheduler", "replicas"), 1), False),
        (nested(("extender",), {"mode": "service", "replicas": 1}), False),
        (nested(("extender",), {"mode": "service", "replicas": 1, "autoscaling": {"enabled": True}}), True),
    ],
    ids=["sidecar", "service", "autoscaled"],
)
def test_one_replica_looks_for_no_other(home: Path, values: dict[str, Any], found: bool) -> None:
    rendered = template(home, values)
    assert len(rendered.all("Service")) == 1 + found
    assert ("peers" in rendered.settings()) is found
    policy = rendered.all("NetworkPolicy")[0]["spec"]
    assert any(each["ports"] == [{"port": "operations"}] for each in policy["egress"]) is found
    assert ("Any replica answers for all" in notes(home, values)) is found


def test_authorities_of_kubelets_are_mounted_where_the_setting_says(home: Path) -> None:
    rendered = template(home, nested(("extender", "kubelet", "ca"), {"configMap": "a", "key": "b"}))
    (mount,) = [each for each in rendered.container("extender")["volumeMounts"] if each["name"] == "kubelet-ca"]
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    (volume,) = [each for each in volumes if each["name"] == "kubelet-ca"]
    assert volume["configMap"] == {"name": "a", "items": [{"key": "b", "path": "ca.crt"}]}
    assert rendered.settings()["kubelet_ca_file"] == f"{mount['mountPath']}/ca.crt"


@pytest.mark.parametrize(
    ("cluster", "tag"),
    [
        ("v1.34.4", "v1.34.4"),
        ("v1.36.3-eks-1a2b3c", "v1.36.3"),
        ("v1.36.2-gke.1293000", "v1.36.2"),
        ("v1.35.4+k3s1", "v1.35.4"),
        ("v1.34.3-aliyun.1", "v1.34.3"),
        ("v1.36.0-rc.1", "v1.36.0-rc.1"),
        ("1.37.2", "v1.37.2"),
        ("v1.34", "v1.34.0"),  # as Argo CD gives it
        ("1.36", "v1.36.0"),
    ],
    ids=lambda text: str(text),
)
def test_scheduler_has_the_version_of_the_cluster(home: Path, cluster: str, tag: str) -> None:
    image = template(home, kube_version=cluster).container("kube-scheduler")["image"]
    assert image.endswith(f"/kube-scheduler:{tag}")


def test_digest_of_the_scheduler_stands_for_a_version_that_nobody_knows(home: Path) -> None:
    digest = "sha256:" + "0" * 64
    rendered = template(home, nested(("scheduler", "image"), {"digest": digest, "tag": ""}))
    assert rendered.container("kube-scheduler")["image"] == f"registry.k8s.io/kube-scheduler@{digest}"


@pytest.mark.parametrize("repository", ["r.example:5000/a/b-c", "localhost:5000/x", "name", "R.example/a__b.c"])
def test_the_image_may_be_in_any_registry(home: Path, repository: str) -> None:
    values = nested(("extender", "image"), {"repository": repository, "tag": "1.0_a-B"})
    assert template(home, values).container("extender")["image"] == f"{repository}:1.0_a-B"


def test_cluster_that_is_too_old_is_refused(home: Path) -> None:
    with pytest.raises(HelmError, match=r"chart requires kubeVersion: >=1\.34\.0"):
        template(home, kube_version="v1.33.9")


VERB_SETTINGS = [
    ({}, {"prioritizeVerb", "preemptVerb"}),
    ({"enable_preempt": False}, {"prioritizeVerb"}),
    ({"enable_prioritize": False}, {"preemptVerb"}),
    ({"enable_bind": True}, {"prioritizeVerb", "preemptVerb", "bindVerb"}),
]


@pytest.mark.parametrize(("settings", "verbs"), VERB_SETTINGS, ids=[json.dumps(s) for s, _ in VERB_SETTINGS])
def test_scheduler_calls_the_verbs_that_the_service_answers(
    home: Path, settings: dict[str, bool], verbs: set[str]
) -> None:
    given = nested(("extender", "settings"), settings)
    (extender,) = template(home, given).scheduler_configuration()["extenders"]
    assert {key for key in extender if key.endswith("Verb")} == verbs
    given |= nested(("scheduler", "extender", "filter"), True)
    (extender,) = template(home, given).scheduler_configuration()["extenders"]
    assert {key for key in extender if key.endswith("Verb")} == verbs | {"filterVerb"}
    assert extender["nodeCacheCapable"] is True, "by object, in-tree scores would see empty nodes after /filter"


@pytest.mark.parametrize("values", [{}, SERVICE], ids=["sidecar", "service"])
def test_scheduler_calls_the_extender_where_it_listens(home: Path, values: dict[str, Any]) -> None:
    rendered = template(home, merged(values, nested(("extender", "port"), 9000)))
    (extender,) = rendered.scheduler_configuration()["extenders"]
    assert rendered.settings()["port"] == 9000
    service = rendered.one("Service", f"{RELEASE}-extender")
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    if values:
        assert extender["urlPrefix"] == f"https://{service['metadata']['name']}.{NAMESPACE}.svc:{ports['verbs']}"
    else:
        assert extender["urlPrefix"] == "http://127.0.0.1:9000"
        assert "verbs" not in ports, "what only the pod itself calls is not offered to others"


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_objects_find_each_other(home: Path, values: Path) -> None:
    """Selectors select pods of the chart, mounted ConfigMaps and used ServiceAccounts exist, and names stay apart."""
    rendered = template(home, files=[values])
    theirs = {"policy", "next-policy", "prometheus-ca"}  # ConfigMaps that the values say the user has made
    pods = [each["spec"]["template"] for each in (*rendered.all("Deployment"), *rendered.all("DaemonSet"))]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for each in rendered.all(kind):
            spec = each["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            labels = selector.get("matchLabels", selector)
            assert [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()], each
    maps = {each["metadata"]["name"] for each in rendered.all("ConfigMap")}
    accounts = {each["metadata"]["name"] for each in rendered.all("ServiceAccount")}
    for pod in pods:
        mounted = {volume["configMap"]["name"] for volume in pod["spec"].get("volumes", ()) if "configMap" in volume}
        assert mounted - theirs <= maps
        assert pod["spec"]["serviceAccountName"] in accounts | {"existing", "existing-scheduler"}
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        used = {mount["name"] for each in pod["spec"]["containers"] for mount in each.get("volumeMounts", ())}
        assert volumes == used
    for each in [*rendered.all("ClusterRoleBinding"), *rendered.all("RoleBinding")]:
        assert {subject["name"] for subject in each["subjects"]} <= accounts
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.objects]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_own_pods_are_placed_by_the_default_scheduler(home: Path, values: Path) -> None:
    rendered = template(home, files=[values])
    made = [*rendered.all("Deployment"), *rendered.all("DaemonSet")]
    specs = [each["spec"]["template"]["spec"] for each in made] + [each["spec"] for each in rendered.all("Pod")]
    assert {spec["schedulerName"] for spec in specs} == {"default-scheduler"}


def test_benchmark_runs_as_the_account_that_the_extender_believes_and_gives_way_to_all(home: Path) -> None:
    rendered = template(home, nested(("benchmark",), {"enabled": True, "intervalHours": 24}))
    made = rendered.one("DaemonSet")
    spec = made["spec"]["template"]["spec"]
    name = f"{RELEASE}-benchmark"
    assert rendered.settings()["node_speed_benchmark"] == f"{NAMESPACE}/{name}"
    assert (made["metadata"]["namespace"], made["metadata"]["name"], spec["serviceAccountName"]) == (
        NAMESPACE,
        name,
        name,
    )
    lowest = rendered.one("PriorityClass", spec["priorityClassName"])
    assert (lowest["value"], lowest["preemptionPolicy"]) == (-1_000_000_000, "Never")
    assert spec["automountServiceAccountToken"] is False
    (first,), (again,) = spec["initContainers"], spec["containers"]
    once = ["/usr/bin/python3", "-m", "extender.benchmark", "--out", "/dev/termination-log"]
    assert [*first["command"], *first["args"]] == once
    assert [*again["command"], *again["args"]] == [*once, "--after-s", "86400"]
    bound = {subject["name"] for each in rendered.all("ClusterRoleBinding") for subject in each["subjects"]}
    assert name not in bound, "it needs no right"
    other = template(home, nested(("benchmark",), {"enabled": True, "priorityClassName": "mine"}))
    assert not other.all("PriorityClass")
    assert other.one("DaemonSet")["spec"]["template"]["spec"]["priorityClassName"] == "mine"


def test_longest_names_still_fit(home: Path) -> None:
    rendered = template(home, {**SERVICE, "fullnameOverride": "n" * 40, "benchmark": {"enabled": True}})
    named = [each for each in rendered.objects if each["kind"] != "PriorityClass"]  # up to 253
    assert max(len(each["metadata"]["name"]) for each in named) <= 63


def test_pod_has_time_to_drain_before_it_is_killed(home: Path) -> None:
    values = nested(("extender",), {"mode": "service", "drainSeconds": 20, "settings": {"shutdown_grace_s": 7.5}})
    rendered = template(home, values)
    spec = rendered.one("Deployment", f"{RELEASE}-extender")["spec"]["template"]["spec"]
    assert rendered.container("extender")["lifecycle"]["preStop"] == {"sleep": {"seconds": 20}}
    assert spec["terminationGracePeriodSeconds"] > 20 + 7.5


def test_changed_settings_replace_the_pods(home: Path) -> None:
    def annotations(values: dict[str, Any]) -> dict[str, str]:
        pod = template(home, values).one("Deployment")["spec"]["template"]["metadata"]
        return dict(pod["annotations"])

    plain = annotations({})
    settings = annotations(nested(("extender", "settings", "ledger_size"), 5))
    weight = annotations(nested(("scheduler", "extender", "weight"), 5))
    assert plain["checksum/settings"] != settings["checksum/settings"]
    assert plain["checksum/scheduler"] == settings["checksum/scheduler"]
    assert plain["checksum/settings"] == weight["checksum/settings"]
    assert plain["checksum/scheduler"] != weight["checksum/scheduler"]


def test_notes_say_how_to_schedule_the_first_pod(home: Path) -> None:
    said = notes(home, nested(("scheduler", "name"), "by-policy"))
    assert '"schedulerName": "by-policy"' in said
    assert f"helm -n {NAMESPACE} test {RELEASE}" in said
    assert said.count("NOTE:") == 1
    assert "nobody publishes the image maddpg-scheduler/extender:" in said
    assert "NOTE" not in notes(home, nested(("extender", "image", "repository"), "registry.example/extender"))


def test_notes_say_how_to_see_what_was_observed(home: Path) -> None:
    observing = {"scheduler": {"enabled": False}, "extender": {"mode": "service", "settings": {"observe": True}}}
    said = notes(home, observing)
    assert "changes nothing" in said
    assert "  kubectl maddpg report\n" in said
    assert "extenders:" not in said


def test_notes_say_how_to_ask_the_service(home: Path) -> None:
    for values in ({}, SERVICE):
        assert "  kubectl maddpg why POD\n" in notes(home, values)
    said = notes(home, SECURED)
    assert "  kubectl maddpg why POD --ca-file ca.crt\n" in said
    assert f"get secret {RELEASE}-client-tls -o jsonpath='{{.data.ca\\.crt}}'" in said


def test_command_line_finds_the_service(home: Path) -> None:
    for values, protocol in (({}, "http"), (SERVICE, "http"), (SECURED, "https"), ({"nameOverride": "x"}, "http")):
        rendered = template(home, values).all("Service")
        found = [each for each in rendered if each["metadata"]["labels"]["app.kubernetes.io/component"] == "extender"]
        (service,) = (msgspec.convert(each, tunnel.Service) for each in found)
        assert service.ours
        assert service.operations is not None
        assert service.operations.app_protocol == protocol
        for secret in template(home, values).all("Secret", f"{RELEASE}-extender-tls"):
            names = _certificate(secret["data"]["tls.crt"]).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            assert service.host in names.value.get_values_for_type(x509.DNSName)


def test_notes_say_what_a_provider_makes_of_the_priority_class_without_a_quota(home: Path) -> None:
    without = nested(("pods", "criticalQuota"), 0)
    assert "pods.priorityClassName" in notes(home, without)
    assert not template(home, without).all("ResourceQuota")
    assert "pods.priorityClassName" not in notes(home)


def test_notes_without_a_scheduler_hold_its_configuration(home: Path) -> None:
    values = merged(SERVICE, nested(("scheduler", "enabled"), False))
    said = notes(home, values)
    begin, end = said.index("  profiles:"), said.index("A kube-scheduler on the host's network")
    snippet = yaml.safe_load(said[begin:end])
    whole = template(home, SERVICE).scheduler_configuration()
    assert snippet == {key: whole[key] for key in ("profiles", "extenders")}
    assert not template(home, values).all("Deployment", RELEASE)


def test_notes_warn_of_calls_in_plain_http(home: Path) -> None:
    plain = merged(SERVICE, nested(("tls", "mode"), "none"))
    open_to_all = notes(home, merged(plain, nested(("networkPolicy", "enabled"), False)))
    assert "plain HTTP" in open_to_all
    assert "nothing limits that" in open_to_all
    assert "plain HTTP" in notes(home, plain)
    assert "nothing limits that" not in notes(home, plain)
    assert "plain HTTP" not in notes(home, SERVICE)


TLS_MODES: dict[str, dict[str, Any]] = {
    "selfSigned": {"mode": "selfSigned"},
    "certManager": {"mode": "certManager"},
    "existing": {"mode": "existing", "existing": {"serverSecret": "a", "clientSecret": "b", "clientNames": ["c"]}},
}


PLACES: dict[str, dict[str, Any]] = {"service": SERVICE, "sidecar": SECURED}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tls", TLS_MODES.values(), ids=TLS_MODES)
def test_both_sides_mount_and_use_the_certificates_that_the_mode_makes(
    home: Path, tls: dict[str, Any], place: str
) -> None:
    rendered = template(home, merged(PLACES[place], {"tls": tls}))
    mounted: dict[str, str] = {}
    for name in ("extender", "kube-scheduler"):
        apart = name == "extender" and place == "service"
        deployment = rendered.one("Deployment", f"{RELEASE}-extender" if apart else RELEASE)
        secrets = {
            each["name"]: each["secret"]["secretName"]
            for each in deployment["spec"]["template"]["spec"]["volumes"]
            if "secret" in each
        }
        for mount in rendered.container(name)["volumeMounts"]:
            if mount["name"] in secrets:
                mounted[secrets[mount["name"]]] = mount["mountPath"]
    made = {each["metadata"]["name"] for each in rendered.all("Secret")}
    made |= {each["spec"]["secretName"] for each in rendered.all("Certificate")}
    assert mounted.keys() <= made | ({"a", "b"} if tls["mode"] == "existing" else set())
    server, client = mounted.values()
    settings = rendered.settings()
    files = [settings[f"tls_{name}_file"] for name in ("cert", "key", "client_ca")]
    assert files == [f"{server}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    (extender,) = rendered.scheduler_configuration()["extenders"]
    assert extender["enableHTTPS"] is True
    files = [extender["tlsConfig"][name] for name in ("certFile", "keyFile", "caFile")]
    assert files == [f"{client}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    for certificate in rendered.all("Certificate"):
        if certificate["spec"]["secretName"] == f"{RELEASE}-extender-tls":
            assert extender["tlsConfig"]["serverName"] in certificate["spec"]["dnsNames"]
        if certificate["spec"]["secretName"] == f"{RELEASE}-client-tls":
            assert settings["tls_client_names"] == [certificate["spec"]["commonName"]]


def test_whoever_asks_the_operations_port_follows_it_to_tls(home: Path) -> None:
    def askers(values: dict[str, Any]) -> tuple[set[str], dict[str, Any], list[str]]:
        monitored = nested(("monitoring", "serviceMonitor", "enabled"), True)
        rendered = template(home, merged(monitored, values))
        container = rendered.container("extender")
        probes = {container[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "liveness", "readiness")}
        (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
        return probes, endpoint, rendered.one("Pod", f"{RELEASE}-test")["spec"]["containers"][0]["args"][1:]

    probes, endpoint, asked = askers({})
    assert (probes, endpoint["scheme"], "tlsConfig" in endpoint) == ({"HTTP"}, "http", False)
    assert asked == [f"http://{RELEASE}-extender.{NAMESPACE}.svc:8889"]
    probes, endpoint, asked = askers(SECURED)
    assert (probes, endpoint["scheme"]) == ({"HTTPS"}, "https")
    host = f"{RELEASE}-extender.{NAMESPACE}.svc"
    authority = {"secret": {"name": f"{RELEASE}-client-tls", "key": "ca.crt"}}
    assert endpoint["tlsConfig"] == {"serverName": host, "ca": authority}
    assert asked == [f"https://{host}:8889", "/etc/client-tls"]
    assert template(home, SECURED).settings()["operations_tls"] is True
    probes, endpoint, asked = askers(DEMANDING)
    assert probes == {"HTTPS"}
    reader = f"{RELEASE}-reader-tls"
    assert endpoint["tlsConfig"] == {
        "serverName": host,
        "ca": authority,
        "cert": {"secret": {"name": reader, "key": "tls.crt"}},
        "keySecret": {"name": reader, "key": "tls.key"},
    }
    assert asked == [f"https://{host}:8889", "/etc/client-tls", "/etc/reader-tls"]


@pytest.mark.parametrize("mode", ["selfSigned", "certManager", "existing"])
def test_readers_show_a_certificate_where_it_is_demanded(home: Path, mode: str) -> None:
    given = {"mode": mode, "operationsClients": {"names": ["ann"]}}
    if mode == "existing":
        given["existing"] = {"serverSecret": "a", "clientSecret": "b", "readerSecret": "c"}
    values = merged(DEMANDING, nested(("tls",), given))
    rendered = template(home, values)
    settings = rendered.settings()
    assert settings["operations_client_ca_file"] == settings["tls_client_ca_file"] == "/etc/maddpg/tls/ca.crt"
    name, secret = f"{RELEASE}-reader", "c" if mode == "existing" else f"{RELEASE}-reader-tls"
    assert settings["operations_client_names"] == (["ann"] if mode == "existing" else [name, "ann"])
    volumes = {
        each["name"]: each["secret"]["secretName"] for each in rendered.one("Pod", f"{RELEASE}-test")["spec"]["volumes"]
    }
    assert volumes == {"tls": "b" if mode == "existing" else f"{RELEASE}-client-tls", "reader-tls": secret}
    assert f"get secret {secret} -o jsonpath='{{.data.tls\\.key}}'" in notes(home, values)
    assert "--ca-file ca.crt --cert-file tls.crt --key-file tls.key" in notes(home, values)
    if mode == "selfSigned":
        found = rendered.one("Secret", secret)["data"]
        issued = _certificate(found["tls.crt"])
        assert issued.subject.rfc4514_string() == f"CN={name}"
        issued.verify_directly_issued_by(
            _certificate(rendered.one("Secret", f"{RELEASE}-extender-tls")["data"]["ca.crt"])
        )
    if mode == "certManager":
        uses = {
            each["spec"]["secretName"]: each["spec"]["usages"]
            for each in rendered.all("Certificate")
            if "usages" in each["spec"]
        }
        assert uses[secret] == ["digital signature", "client auth"]
        assert uses[f"{RELEASE}-extender-tls"][-1] == "client auth", "replicas show it to each other"


def test_prometheus_is_asked_with_what_is_mounted_and_nothing_of_it_is_in_a_configmap(home: Path) -> None:
    values = nested(
        ("extender", "prometheus"),
        {
            "url": "https://prometheus.monitoring:9090",
            "ca": {"secret": "authority", "key": "bundle.pem"},
            "basicAuth": {"username": "reader", "secret": "password"},
            "headers": {"secret": "tenant", "key": "all"},
        },
    )
    rendered = template(home, values)
    settings = rendered.settings()
    assert (settings["usage_source"], settings["prometheus_url"]) == (
        "prometheus",
        "https://prometheus.monitoring:9090",
    )
    assert [each["resources"] for each in rendered.one("ClusterRole", f"{CLUSTER_NAME}-extender")["rules"]] == [
        ["nodes", "pods"]
    ], "nothing is asked of metrics-server"
    files = {}
    volumes = {each["name"]: each for each in rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    for mount in rendered.container("extender")["volumeMounts"]:
        source = volumes[mount["name"]].get("secret", {})
        for item in source.get("items", ()):
            files[f"{mount['mountPath']}/{item['path']}"] = (source["secretName"], item["key"])
    assert files == {
        settings["prometheus_ca_file"]: ("authority", "bundle.pem"),
        settings["prometheus_password_file"]: ("password", "password"),
        settings["prometheus_headers_file"]: ("tenant", "all"),
    }
    assert settings["prometheus_username"] == "reader"
    token = template(home, merged(PROMETHEUS, nested(TOKEN_SECRET, "reader")))
    volumes = {each["name"]: each for each in token.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    assert volumes["prometheus-token"]["secret"]["items"] == [{"key": "token", "path": "token"}]
    assert token.settings()["prometheus_token_file"] == "/etc/maddpg/prometheus-token/token"


def test_prometheus_is_asked_by_name_and_password_and_with_headers(home: Path) -> None:
    values = nested(
        ("extender", "prometheus"),
        {
            "url": "https://prometheus.monitoring:9090",
            "basicAuth": {"username": "reader", "secret": "login", "key": "pw"},
            "headers": {"secret": "tenant"},
        },
    )
    rendered = template(home, values)
    settings = rendered.settings()
    assert settings["prometheus_username"] == "reader"
    volumes = {each["name"]: each for each in rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    files = {
        f"{mount['mountPath']}/{item['path']}": (volumes[mount["name"]]["secret"]["secretName"], item["key"])
        for mount in rendered.container("extender")["volumeMounts"]
        for item in volumes[mount["name"]].get("secret", {}).get("items", ())
    }
    assert files == {
        settings["prometheus_password_file"]: ("login", "pw"),
        settings["prometheus_headers_file"]: ("tenant", "headers"),
    }


@pytest.mark.parametrize("use", ["shadow", "experiment"])
def test_candidate_is_mounted_where_its_setting_says(home: Path, use: str) -> None:
    values = {"persistentVolumeClaim": "policies", "subPath": "bundles/next", "use": use}
    rendered = template(home, nested(("extender", "candidate"), values))
    (mount,) = [each for each in rendered.container("extender")["volumeMounts"] if each["name"] == "candidate"]
    assert rendered.settings()[use] == f"{mount['mountPath']}/bundles/next"
    volumes = rendered.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    (volume,) = [each for each in volumes if each["name"] == "candidate"]
    assert volume["persistentVolumeClaim"] == {"claimName": "policies", "readOnly": True}
    assert not {"shadow", "experiment"} - {use} & rendered.settings().keys()


@pytest.mark.parametrize("values", [{}, merged(SERVICE, nested(("tls", "mode"), "none"))], ids=["sidecar", "none"])
def test_nothing_of_tls_is_rendered_where_it_is_not_used(home: Path, values: dict[str, Any]) -> None:
    rendered = template(home, values)
    assert not rendered.all("Secret")
    assert "tls_cert_file" not in rendered.settings()
    (extender,) = rendered.scheduler_configuration()["extenders"]
    assert extender.keys().isdisjoint({"enableHTTPS", "tlsConfig"})


def test_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
    assert KUBE_VERSION.startswith("v1.37.")


PAGES = [*(REPOSITORY / "docs" / f"{name}.md" for name in ("install", "upgrade", "autoscaling")), CHART / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_documentation_names_only_values_that_exist(page: Path) -> None:
    groups = "|".join(sorted({name.split(".")[0] for name in VALUES if "." in name}))
    named = set(re.findall(rf"`((?:{groups})\.[A-Za-z_.]*[A-Za-z])", page.read_text()))
    settings = {f"extender.settings.{name}" for name in reference.settings_schema()["properties"]}
    # keys of a Secret of type kubernetes.io/tls look like values of the chart's `tls`
    known = VALUES.keys() | settings | {"tls.crt", "tls.key"}
    assert {name for name in named if not any(each == name or each.startswith(f"{name}.") for each in known)} == set()
    assert named, "the pattern finds what the page names"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_documentation_links_only_to_files_that_exist(page: Path) -> None:
    text = page.read_text()
    linked = {page.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)}
    shown = {REPOSITORY / path for path in re.findall(r"\b((?:docs|deploy|helm)/[\w./-]*\w)", text)}
    assert [path for path in linked | shown if not path.exists()] == []
