"""The source's edges: configuration, binding, settings."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from extender.cluster.api import ApiServer
from extender.cluster.kubernetes import KubernetesOptions, KubernetesSource
from extender.cluster.metrics_server import MetricsServer
from extender.cluster.prometheus import Prometheus, PrometheusOptions
from extender.cluster.source import Binding, ClusterSource, NoteTaker, PodNote
from extender.cluster.table import ClusterTable
from extender.cluster.writes import _event
from extender.errors import BindError, NoteError, SourceError
from extender.settings import Settings
from extender.supervision import Supervisor
from tests.extender.cluster.fake_api import FakeApi, status
from tests.extender.cluster.following import Following

BINDING = Binding("default", "web-1", "0f-1", "n0")
BIND_PATH = "/api/v1/namespaces/default/pods/web-1/binding"


def test_it_is_a_cluster_source() -> None:
    source = KubernetesSource(KubernetesOptions())
    assert isinstance(source, ClusterSource)
    assert isinstance(source, NoteTaker)


def test_bind_asks_what_kube_scheduler_would(api: FakeApi, follow: Callable[..., Following]) -> None:
    following = follow()
    following.run(following.source.bind(BINDING))
    assert api.bindings == [
        (
            BIND_PATH,
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"namespace": "default", "name": "web-1", "uid": "0f-1"},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "n0"},
            },
        )
    ]


def test_a_refused_bind_says_why(api: FakeApi, follow: Callable[..., Following]) -> None:
    following = follow()
    refusal = 'Operation cannot be fulfilled on pods/binding "web-1": pod web-1 is already assigned to node "n1"'
    api.answers[BIND_PATH] = lambda: (409, status(409, "Conflict", refusal), {})
    with pytest.raises(BindError, match=r'cannot bind default/web-1 to n0: .*already assigned to node "n1"'):
        following.run(following.source.bind(BINDING))


def test_a_bind_without_an_api_server_says_so(api: FakeApi, follow: Callable[..., Following]) -> None:
    following = follow()
    api.stop()
    with pytest.raises(BindError, match=r"cannot reach http://127\.0\.0\.1"):
        following.run(following.source.bind(BINDING))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("web-1", "web-1-rated-"), ("a" * 253, "a" * 230 + "-rated-"), ("a" * 229 + ".b", "a" * 229 + "-rated-")],
    ids=["short", "longest", "cut at a dot"],
)
def test_the_name_of_an_event_is_one_that_the_api_server_takes(name: str, prefix: str) -> None:
    event = _event(PodNote("default", name, "0f-1", "x" * 2000, "event"))
    assert event["metadata"]["generateName"] == prefix
    assert len(prefix) <= 247, "it adds five characters"
    assert len(event["note"]) == 1024


@pytest.mark.parametrize("form", ["event", "annotation"])
def test_a_note_without_an_api_server_says_so(api: FakeApi, follow: Callable[..., Following], form: str) -> None:
    following = follow()
    api.stop()
    note = PodNote("default", "web-1", "0f-1", "because", form)
    with pytest.raises(NoteError, match=r"cannot say why on default/web-1: cannot reach http://127\.0\.0\.1"):
        following.run(following.source.note(note))


def test_a_name_with_slashes_cannot_reach_another_path(api: FakeApi, follow: Callable[..., Following]) -> None:
    following = follow()
    following.run(following.source.bind(Binding("default", "../../nodes/x", "u", "n0")))
    assert api.bindings[0][0] == "/api/v1/namespaces/default/pods/..%2F..%2Fnodes%2Fx/binding"


def test_before_it_starts_it_knows_nothing_and_says_so() -> None:
    source = KubernetesSource(KubernetesOptions())
    assert not source.synced
    assert source.waiting_for() == ("the watch of the cluster has not been started",)
    assert source.staleness() == {"nodes": None, "pods": None, "usage": None}
    with pytest.raises(BindError, match="has not been started"):
        asyncio.run(source.bind(BINDING))
    asyncio.run(source.stop())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(None, "nowhere.yaml", id="missing"),
        pytest.param("{", "is no YAML: ParserError \\(line 1", id="no-yaml"),
        pytest.param("apiVersion: v1\nkind: Config\n", "there is no current-context", id="empty"),
        pytest.param("[]", "kubeconfig", id="list"),
        pytest.param("text", "kubeconfig", id="text"),
    ],
)
def test_a_kubeconfig_that_is_of_no_use_is_refused_with_its_name(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "nowhere.yaml"
    if content is not None:
        path.write_text(content)
    source = KubernetesSource(KubernetesOptions(kubeconfig=path))
    with pytest.raises(SourceError, match=f"(?s)nowhere.yaml.*{complaint}|{complaint}.*set `kubeconfig`"):
        asyncio.run(source.start(ClusterTable(), Supervisor()))


def test_an_unknown_context_is_refused(kubeconfig: Path) -> None:
    source = KubernetesSource(KubernetesOptions(kubeconfig=kubeconfig, context="elsewhere"))
    with pytest.raises(SourceError, match="elsewhere"):
        asyncio.run(source.start(ClusterTable(), Supervisor()))


def test_settings_reach_the_options(tmp_path: Path) -> None:
    settings = Settings(
        kubeconfig=tmp_path / "config",
        kube_context="here",
        list_page_size=123,
        usage_interval_s=7.0,
        node_speed_key="example.com/speed",
        node_speed_by_instance_type={"fast": 2.0},
    )
    options = KubernetesSource.from_settings(settings)._options
    assert (options.kubeconfig, options.context) == (tmp_path / "config", "here")
    assert (options.timing.page, options.usage_interval) == (123, 7.0)
    assert (options.speed.key, options.speed.by_instance_type) == ("example.com/speed", {"fast": 2.0})


@pytest.mark.parametrize(
    ("chosen", "reader"), [("metrics-server", MetricsServer), ("prometheus", Prometheus), ("none", None)]
)
def test_settings_choose_where_use_comes_from(chosen: str, reader: type | None, kubeconfig: Path) -> None:
    settings = Settings.model_validate({"usage_source": chosen, "prometheus_url": "http://127.0.0.1:9090"})
    made = KubernetesSource.from_settings(settings)._usage
    assert (None if made is None else type(made(ApiServer(kubeconfig)))) is reader


def test_settings_reach_prometheus(tmp_path: Path, kubeconfig: Path) -> None:
    settings = Settings(
        usage_source="prometheus",
        prometheus_url="https://prometheus.example:9090",
        prometheus_node_label="instance",
        prometheus_window_s=60.0,
        prometheus_selector='cluster="ours"',
        prometheus_ca_file=tmp_path / "ca.crt",
        prometheus_username="reader",
        prometheus_password_file=tmp_path / "password",
        prometheus_headers_file=tmp_path / "headers",
    )
    made = KubernetesSource.from_settings(settings)._usage
    assert made is not None
    reader = made(ApiServer(kubeconfig))
    assert isinstance(reader, Prometheus)
    assert reader._options == PrometheusOptions(
        url="https://prometheus.example:9090",
        node_label="instance",
        window=60.0,
        selector='cluster="ours"',
        ca_file=tmp_path / "ca.crt",
        username="reader",
        password_file=tmp_path / "password",
        headers_file=tmp_path / "headers",
    )


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        pytest.param({"usage_source": "prometheus"}, "prometheus_url is needed", id="no-url"),
        pytest.param({"prometheus_url": "prometheus:9090"}, "prometheus_url", id="no-scheme"),
        pytest.param({"prometheus_node_label": "a b"}, "prometheus_node_label", id="no-label"),
        pytest.param({"prometheus_window_s": 0.0}, "prometheus_window_s", id="no-window"),
        pytest.param({"prometheus_selector": 'a="b"} or vector(1)'}, "prometheus_selector", id="no-selector"),
        pytest.param({"prometheus_username": "u"}, "belong together", id="no-password"),
        pytest.param({"prometheus_password_file": "p"}, "belong together", id="no-user"),
        pytest.param(
            {"prometheus_username": "u", "prometheus_password_file": "p", "prometheus_token_file": "t"},
            "exclude each other",
            id="two-identities",
        ),
    ],
)
def test_settings_of_prometheus_that_do_not_fit_are_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Settings.model_validate(values)
