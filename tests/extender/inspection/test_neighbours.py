"""check-config asks whom the service would ask, and says what would not work with what to do about it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.cluster.rights import REVIEWS, rights
from extender.inspection.finding import Finding
from extender.inspection.neighbours import inspect
from extender.settings import Settings
from tests.extender.cluster.fake_api import NODES, Answer, FakeApi, status
from tests.extender.cluster.test_prometheus import FakePrometheus

REPOSITORY = Path(__file__).parents[3]
IDENTITY = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name}, "status": {"allocatable": {"cpu": "4", "memory": "16Gi"}}}


def measured(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "timestamp": "2026-01-01T00:00:00Z",
        "window": "20s",
        "usage": {"cpu": "1", "memory": "1Gi"},
    }


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    """A cluster of one node that is measured, which grants everything and says who asks."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeApi().running() as server:
        server.put(NODES, "n0", node("n0"))
        server.metrics = {"items": [measured("n0")]}
        version = {"gitVersion": "v1.37.2", "minor": "37+"}
        server.answers["/version"] = lambda: (200, json.dumps(version).encode(), {})
        server.answers[REVIEWS] = granted(True)
        who = {"status": {"userInfo": {"username": "system:serviceaccount:ns:extender"}}}
        server.answers[IDENTITY] = lambda: (201, json.dumps(who).encode(), {})
        yield server


def granted(*answers: bool) -> Callable[[], Answer]:
    """Reviews answered so, one after the other; the last for the rest."""
    left = list(answers)

    def answer() -> Answer:
        allowed = left.pop(0) if len(left) > 1 else left[0]
        return 201, json.dumps({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}).encode(), {}

    return answer


def found(api: FakeApi, tmp_path: Path, user: dict[str, Any] | None = None, **settings: Any) -> dict[str, Finding]:
    every = list(inspect(Settings(kubeconfig=api.kubeconfig(tmp_path, user), **settings)))
    for each in every:
        assert str(each).isprintable()
        assert each.verdict == "ok" or each.fix, each
    return {each.name: each for each in every}


def test_a_cluster_that_serves_has_a_line_for_each_thing_asked(api: FakeApi, tmp_path: Path) -> None:
    told = found(api, tmp_path)
    assert {each.verdict for each in told.values()} == {"ok"}
    assert list(told) == [
        "API server",
        "kubernetes_version",
        "right to list nodes",
        "right to watch nodes",
        "right to list pods",
        "right to watch pods",
        "right to list nodes.metrics.k8s.io",
        "right to get nodes/stats",
        "metrics-server",
    ]
    assert told["API server"].told.endswith("answers, v1.37.2, to system:serviceaccount:ns:extender")
    assert told["metrics-server"].told == "measures 1 nodes"


MORE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "binding": ({"enable_bind": True}, {"right to create pods/binding"}),
    "events": ({"explain_on_pod": "event"}, {"right to create events.events.k8s.io"}),
    "tokens": (
        {"operations_bearer": True, "operations_users": ("a",), "tls_cert_file": "c", "tls_key_file": "k"},
        {"right to create tokenreviews.authentication.k8s.io"},
    ),
    "annotations": ({"explain_on_pod": "annotation"}, {"right to patch pods"}),
}


@pytest.mark.parametrize("name", MORE)
def test_a_setting_that_needs_a_right_has_it_tried(api: FakeApi, tmp_path: Path, name: str) -> None:
    settings, more = MORE[name]
    assert found(api, tmp_path, usage_source="none", **settings).keys() - found(api, tmp_path).keys() == more


def test_the_rights_are_those_that_the_shipped_manifest_grants() -> None:
    manifests = [each for each in yaml.safe_load_all((REPOSITORY / "deploy" / "rbac.yaml").read_text()) if each]
    roles = {each["metadata"]["name"]: each["rules"] for each in manifests if each["kind"] == "ClusterRole"}

    def grants(*names: str) -> set[tuple[str, str, str]]:
        return {
            (verb, group, resource)
            for name in names
            for rule in roles[name]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }

    def needs(**settings: Any) -> set[tuple[str, str, str]]:
        return {(right.verb, right.group, right.resource) for right in rights(Settings(**settings))}

    assert needs() == grants("maddpg-extender")
    assert needs(enable_bind=True) == grants("maddpg-extender", "maddpg-extender-bind")
    readers = {"operations_bearer": True, "operations_users": ["me"], "tls_cert_file": "c", "tls_key_file": "k"}
    assert needs(**readers) == grants("maddpg-extender", "maddpg-extender-authentication")
    for form in ("event", "annotation"):
        assert needs(explain_on_pod=form) == grants("maddpg-extender", f"maddpg-extender-{form}")


def test_a_right_that_is_refused_is_named(api: FakeApi, tmp_path: Path) -> None:
    api.answers[REVIEWS] = granted(True, False, True)
    told = found(api, tmp_path)
    refused = [each for each in told.values() if each.verdict == "failed"]
    assert [each.name for each in refused] == ["right to watch nodes"]
    assert "rbac.yaml" in refused[0].fix


def test_an_api_server_that_reviews_nothing_is_asked_for_the_thing_itself(api: FakeApi, tmp_path: Path) -> None:
    del api.answers[REVIEWS]  # it answers a Status then, as servers that are none of Kubernetes' do
    api.answers["/api/v1/pods"] = lambda: (403, status(403, "Forbidden", "pods is forbidden"), {})
    told = found(api, tmp_path)
    verdicts = {name.removeprefix("right to "): each.verdict for name, each in told.items()}
    assert (verdicts["list nodes"], verdicts["list pods"], verdicts["watch pods"]) == ("ok", "failed", "skipped")


def test_an_api_server_that_cannot_be_reached_fails(api: FakeApi, tmp_path: Path) -> None:
    api.stop()
    told = found(api, tmp_path, usage_source="metrics-server")
    assert (told["API server"].verdict, list(told)) == ("failed", ["API server", "metrics-server"])
    assert told["metrics-server"].verdict == "failed"


def test_credentials_that_are_refused_fail(api: FakeApi, tmp_path: Path) -> None:
    api.accepted_token = "the right one"
    del api.answers["/version"]
    told = found(api, tmp_path, user={"token": "s3cr3t"}, usage_source="none")
    assert told["API server"].verdict == "failed"
    assert "s3cr3t" not in "".join(map(str, told.values()))


def test_an_old_cluster_is_told(api: FakeApi, tmp_path: Path) -> None:
    api.answers["/version"] = lambda: (200, b'{"gitVersion": "v1.30.1", "minor": "30"}', {})
    assert found(api, tmp_path)["API server"].verdict == "warning"


@pytest.mark.parametrize(
    ("minor", "setting", "verdict"),
    [
        ("36", "1.36", "ok"),
        ("36", "1.35", "ok"),
        ("36", "1.37", "warning"),
        ("36", "1.34", "warning"),
        ("40", "1.37", "ok"),
    ],
)
def test_a_setting_for_another_version_is_told(
    api: FakeApi, tmp_path: Path, minor: str, setting: str, verdict: str
) -> None:
    version = {"gitVersion": f"v1.{minor}.0", "minor": minor}
    api.answers["/version"] = lambda: (200, json.dumps(version).encode(), {})
    assert found(api, tmp_path, kubernetes_version=setting)["kubernetes_version"].verdict == verdict


def test_something_else_that_answers_is_told(api: FakeApi, tmp_path: Path) -> None:
    api.answers["/version"] = lambda: (200, b"<html>", {})
    assert found(api, tmp_path)["API server"].verdict == "warning"


@pytest.mark.parametrize(
    "answer",
    [(200, b"<html>"), (200, b"{}"), (302, b""), (404, b"not found"), (500, b""), (503, b"")],
    ids=lambda it: str(it),
)
def test_what_lists_no_nodes_or_pods_fails(api: FakeApi, tmp_path: Path, answer: tuple[int, bytes]) -> None:
    """A web server at the address of the kubeconfig: the service would start, and never be ready."""
    for path in ("/version", "/api/v1/pods"):
        api.answers[path] = lambda: (*answer, {})
    told = found(api, tmp_path)
    assert told["API server"].verdict == "failed"
    assert not [name for name in told if name.startswith("right to")]


def test_a_kubeconfig_that_is_none_fails(tmp_path: Path, api: FakeApi) -> None:
    told = {each.name: each for each in inspect(Settings(kubeconfig=tmp_path / "nowhere", usage_source="none"))}
    assert told["API server"].verdict == "failed"


def test_without_a_way_to_any_cluster_it_is_left_out(api: FakeApi) -> None:
    told = {each.name: each for each in inspect(Settings())}
    assert {each.verdict for each in told.values()} == {"skipped"}
    assert "kubeconfig" in told["API server"].told


UNMEASURED: dict[str, tuple[dict[str, Any] | None, str]] = {
    "nothing measured yet": ({"items": []}, "measures no node"),
    "another cluster's": ({"items": [measured("elsewhere")]}, "measures 'elsewhere', and nodes are called 'n0'"),
}


@pytest.mark.parametrize("name", UNMEASURED)
def test_use_that_nobody_measures_fails(api: FakeApi, tmp_path: Path, name: str) -> None:
    api.metrics, complaint = UNMEASURED[name]
    told = found(api, tmp_path, usage_source="metrics-server")["metrics-server"]
    assert told.verdict == "failed"
    assert complaint in told.told
    assert "usage_source: none" in told.fix or "cluster" in told.fix
    beside_kubelets = found(api, tmp_path)["metrics-server"]
    assert (beside_kubelets.verdict, beside_kubelets.told) == ("warning", told.told)


def test_a_cluster_without_metrics_server_works_without_it_and_is_told(api: FakeApi, tmp_path: Path) -> None:
    api.metrics = None
    told = found(api, tmp_path, usage_source="metrics-server")["metrics-server"]
    assert told.verdict == "warning"
    assert "install metrics-server, or set usage_source: none" in told.fix
    assert "nodes whose kubelet does not answer" in found(api, tmp_path)["metrics-server"].fix


@pytest.mark.parametrize(
    ("source", "verdict"), [("auto", "warning"), ("kubelet", "failed"), ("metrics-server", "failed")]
)
def test_a_right_that_another_source_makes_up_for_is_told_with_what_is_lost(
    api: FakeApi, tmp_path: Path, source: str, verdict: str
) -> None:
    api.answers[REVIEWS] = granted(True, True, True, True, False)
    told = found(api, tmp_path, usage_source=source)
    refused = {name: each for name, each in told.items() if "refused" in each.told}
    of = {"metrics-server": ["right to list nodes.metrics.k8s.io"], "kubelet": ["right to get nodes/stats"]}
    assert list(refused) == of.get(source, of["metrics-server"] + of["kubelet"])
    assert {each.verdict for each in refused.values()} == {verdict}
    if source == "auto":
        lost = [each.told for each in refused.values()]
        assert "expected from requests" in lost[0]
        assert "no speed is learned and pressure is estimated" in lost[1]


def test_prometheus_is_asked_with_its_settings(api: FakeApi, tmp_path: Path) -> None:
    with FakePrometheus().running() as prometheus:
        settings = {"usage_source": "prometheus", "prometheus_url": prometheus.url}
        assert found(api, tmp_path, **settings)["prometheus"].verdict == "ok"
        api.delete(NODES, "n0")
        api.put(NODES, "ip-10-0-1-5", node("ip-10-0-1-5"))
        mismatch = found(api, tmp_path, **settings)["prometheus"]
        assert mismatch.verdict == "failed"
        assert "prometheus_node_label" in mismatch.fix
        alone = {each.name: each.verdict for each in inspect(Settings(**settings))}
        assert alone == {"API server": "skipped", "prometheus": "ok"}, "it needs no way to the cluster"
    away = found(api, tmp_path, **settings)["prometheus"]
    assert away.verdict == "failed"


def test_a_token_file_that_is_not_there_fails_without_its_text(api: FakeApi, tmp_path: Path) -> None:
    with FakePrometheus().running() as prometheus:
        told = found(
            api, tmp_path,
            usage_source="prometheus", prometheus_url=prometheus.url, prometheus_token_file=tmp_path / "nowhere",
        )  # fmt: skip
    assert told["prometheus"].verdict == "failed"


def test_a_collector_that_is_away_is_a_warning(api: FakeApi, tmp_path: Path) -> None:
    away = found(api, tmp_path, tracing_endpoint="http://127.0.0.1:9/v1/traces")["tracing_endpoint"]
    assert away.verdict == "warning"
    there = found(api, tmp_path, tracing_endpoint=f"http://127.0.0.1:{api.port}/v1/traces")["tracing_endpoint"]
    assert there.verdict == "ok"


def test_replicas_that_are_not_found_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, *rest: Any, **more: Any) -> Any:
        if host == "missing":
            raise socket.gaierror(socket.EAI_NONAME, "secret")
        return [(None, None, None, "", (address, 0)) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    settings = Settings(peers="extender-peers,missing", operations_port=8889, usage_source="none")
    here, missing = (each for each in inspect(settings) if each.name == "peers")
    assert (here.verdict, here.told) == ("ok", "extender-peers leads to 2 replicas")
    assert (missing.verdict, missing.told) == ("warning", "missing leads to no replica (gaierror: unknown host name)")
