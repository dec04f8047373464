"""The chart as other people's tools render it and other people's clusters take it; no cluster is needed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import reference
from policy.heuristics import KUBERNETES_VERSIONS
from tests.chart.helm import CHART, CI_VALUES, HelmError, Rendering, merged, nested, template

SERVICE = {"extender": {"mode": "service"}}
VALUES = [value.name for value in reference.read_values((CHART / "values.yaml").read_text())]
MODES: dict[str, dict[str, Any]] = {"sidecar": {}, "service": SERVICE}


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, as Flux does; other readers take the last."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    names = [loader.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
    if len(names) != len(set(names)):
        raise ValueError(f"a key stands twice among {names}")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)  # type: ignore[no-untyped-call]

ONE_KEY = {"team": "theirs"}
EVERYWHERE: dict[str, Any] = {
    "commonLabels": ONE_KEY | {"app.kubernetes.io/part-of": "platform", "helm.sh/chart": "mine"},
    "pods": {"labels": {"team": "pods", "helm.sh/chart": "yours"}, "annotations": ONE_KEY},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"team": "monitors"}},
        "prometheusRule": {"enabled": True, "labels": {"team": "rules"}},
        "dashboard": {"enabled": True, "labels": {"team": "boards"}},
    },
}


@pytest.mark.parametrize("mode", MODES)
def test_a_label_that_is_given_twice_is_rendered_once_with_the_particular_value(home: Path, mode: str) -> None:
    rendered = template(home, merged(EVERYWHERE, MODES[mode]))
    list(yaml.load_all(rendered.text, StrictLoader))
    for deployment in rendered.all("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert (labels["team"], labels["helm.sh/chart"]) == ("pods", "yours")
        assert deployment["metadata"]["labels"]["team"] == "theirs"
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for kind, value in (("ServiceMonitor", "monitors"), ("PrometheusRule", "rules")):
        assert rendered.one(kind)["metadata"]["labels"]["team"] == value


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_no_key_stands_twice_in_what_is_rendered(home: Path, values: Path) -> None:
    list(yaml.load_all(template(home, files=[values]).text, StrictLoader))


def umbrella(folder: Path, values: dict[str, Any], **dependency: Any) -> Path:
    """A chart of somebody's that depends on ours."""
    shutil.copytree(CHART, folder / "charts" / CHART.name)
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    entry = {"name": CHART.name, "version": version, **dependency}
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [entry]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    return folder


UMBRELLAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "with global values": ({"global": {"imageRegistry": "r.example"}}, {}),
    "with global values that are none": ({"global": None}, {}),
    "with a condition": ({CHART.name: {"enabled": True}}, {"condition": f"{CHART.name}.enabled"}),
    "with tags": ({"tags": {"scheduling": True}}, {"tags": ["scheduling"]}),
    "under another name": ({"second": {"enabled": True}}, {"alias": "second", "condition": "second.enabled"}),
}


@pytest.mark.parametrize("name", UMBRELLAS)
def test_it_is_rendered_as_a_dependency(home: Path, tmp_path: Path, name: str) -> None:
    values, dependency = UMBRELLAS[name]
    rendered = template(home, release="platform", chart=umbrella(tmp_path / "platform", values, **dependency))
    assert rendered.container("kube-scheduler")


def test_a_dependency_is_switched_off_by_its_condition_and_by_nothing_else(home: Path, tmp_path: Path) -> None:
    off = {CHART.name: {"enabled": False}}
    chart = umbrella(tmp_path / "with", off, condition=f"{CHART.name}.enabled")
    assert not template(home, release="platform", chart=chart).objects
    with pytest.raises(HelmError, match=r"enabled: .* has no such condition"):
        template(home, release="platform", chart=umbrella(tmp_path / "without", off))


def test_a_parent_chart_on_an_old_cluster_is_told_what_is_too_old(home: Path, tmp_path: Path) -> None:
    """helm looks at `kubeVersion` of the chart it is given alone."""
    chart = umbrella(tmp_path / "platform", {})
    with pytest.raises(HelmError, match=r"scheduler\.image\.tag: kube-scheduler v1\.30\.2 is older than v1\.34"):
        template(home, release="platform", chart=chart, kube_version="v1.30.2")


GROUPS = {".".join(name.split(".")[:depth]) for name in VALUES for depth in range(1, name.count(".") + 1)}


@pytest.mark.parametrize("name", sorted({*VALUES, *GROUPS}))
def test_a_value_that_is_null_is_left_out_or_refused_by_its_path(home: Path, name: str) -> None:
    """A key whose lines are all commented out is null, and helm takes it out of the defaults."""
    values = merged(SERVICE, nested(name.split("."), None)) if name != "extender" else {"extender": None}
    group, _, key = name.rpartition(".")
    refused = _refusal(home, values)
    by_schema = f"at '/{group.replace('.', '/')}'" in refused and f"'{key}'" in refused
    assert not refused or by_schema or f"{name}: " in refused, refused


def _refusal(home: Path, values: dict[str, Any]) -> str:
    """What helm says of values that it refuses; empty where it renders them."""
    try:
        template(home, values)
    except HelmError as error:
        return str(error).replace("at ''", "at '/'")
    return ""


@pytest.mark.parametrize(
    ("cluster", "values", "version"),
    [
        ("v1.34", {}, KUBERNETES_VERSIONS[0]),
        ("v1.36.2-gke.1", {}, "1.36"),
        ("v1.36.2", {"scheduler": {"image": {"tag": "v1.35.4"}}}, "1.35"),
        ("v1.99.0", {}, KUBERNETES_VERSIONS[-1]),
        ("v1.35.0", merged(SERVICE, {"scheduler": {"enabled": False}}), "1.35"),
        ("v1.35.4-eks-1a2b3c", {"scheduler": {"image": {"digest": "sha256:" + "0" * 64}}}, "1.35"),
        ("v1.36.2", {"scheduler": {"image": {"digest": "sha256:" + "0" * 64, "tag": "v1.35.4"}}}, "1.35"),
        ("v1.36.2", {"extender": {"settings": {"kubernetes_version": "1.34"}}}, "1.34"),
    ],
)
def test_the_extender_is_told_which_kube_scheduler_calls(
    home: Path, cluster: str, values: dict[str, Any], version: str | None
) -> None:
    assert template(home, values, kube_version=cluster).settings().get("kubernetes_version") == version


def _of_the_cluster(rendering: Rendering) -> set[tuple[str, str]]:
    return {
        (each["kind"], each["metadata"]["name"]) for each in rendering.objects if "namespace" not in each["metadata"]
    }


def test_no_two_releases_have_an_object_in_common(home: Path) -> None:
    long = "r" * 45
    places = [("m", "a"), ("m", "b"), ("n", "a"), ("m", "a-m"), (f"{long}1", "a"), (f"{long}2", "a"), ("m", "n" * 63)]
    seen: set[tuple[str, ...]] = set()
    for release, namespace in places:
        rendered = template(home, SERVICE, release=release, namespace=namespace)
        ours = {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in rendered.objects
        }
        assert not ours & seen
        assert max(len(name) for *_, name in ours) <= 63
        roles = {name for kind, name in _of_the_cluster(rendered) if kind == "ClusterRole"}
        bound = {each["roleRef"]["name"] for each in rendered.all("ClusterRoleBinding")}
        assert roles <= bound, "the binding names the role as it is called"
        seen |= ours


@pytest.mark.parametrize("release", ["x.y", "123", "1e3"])
def test_a_release_whose_name_no_service_can_have_is_refused_in_a_sentence(home: Path, release: str) -> None:
    with pytest.raises(HelmError, match=r"fullnameOverride: set it to a name of small letters"):
        template(home, release=release)
    named = template(home, {"fullnameOverride": "good"}, release=release)
    assert {each["metadata"]["name"] for each in named.all("Service")} == {"good-extender", "good-extender-peers"}


@pytest.mark.parametrize("word", ["on", "true", "null", "no"])
@pytest.mark.parametrize("mode", MODES)
def test_names_that_yaml_takes_for_something_else_stay_names(home: Path, mode: str, word: str) -> None:
    values = merged(MODES[mode], {
        "fullnameOverride": word,
        "nameOverride": word,
        "scheduler": {"name": "123", "serviceAccount": {"name": "1e3"}},
        "pods": {"priorityClassName": "007", "spreadOver": "on"},
        "extender": {"bundle": {"configMap": "0x10"}, "serviceAccount": {"name": "12.5"}},
    })  # fmt: skip
    rendered = template(home, values, release="on", namespace="123")
    for each in rendered.objects:
        assert isinstance(each["metadata"]["name"], str)
        assert each["metadata"].get("namespace", "123") == "123"
        assert all(isinstance(value, str) for value in each["metadata"]["labels"].values())
    config = rendered.scheduler_configuration(word)
    assert config["profiles"][0]["schedulerName"] == "123"
    assert config["leaderElection"]["resourceNamespace"] == "123"
    assert config["leaderElection"]["resourceName"] == word
    assert rendered.settings(word)["scheduler_name"] == "123"
    for deployment in rendered.all("Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        names = {"scheduler": "1e3", "extender": "12.5"}
        component = deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        assert spec["serviceAccountName"] == names[component]
        assert spec["priorityClassName"] == "007"
        maps = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
        assert all(isinstance(name, str) for name in maps)


def test_large_numbers_stay_whole_numbers(home: Path, tmp_path: Path) -> None:
    """helm reads numbers of a file as floats, and a million prints as 1e+06."""
    file = tmp_path / "values.yaml"
    file.write_text(
        "scheduler: {client: {qps: 1000000, burst: 2000000}, extender: {weight: 3000000}}\n"
        "extender: {settings: {max_nodes: 100000, ledger_rows: 100000000}}\n"
    )
    rendered = template(home, files=[file])
    config = rendered.scheduler_configuration()
    assert config["clientConnection"] == {"qps": 1_000_000, "burst": 2_000_000}
    assert config["extenders"][0]["weight"] == 3_000_000
    settings = rendered.settings()
    assert (settings["max_nodes"], settings["ledger_rows"]) == (100_000, 100_000_000)
    assert not re.search(r"\d[eE]\+\d", rendered.text)


def _egress(rendered: Rendering, component: str) -> list[dict[str, Any]]:
    for policy in rendered.all("NetworkPolicy"):
        if policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component:
            return list(policy["spec"]["egress"])
    raise LookupError(component)


def _dns(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for rule in rules if any(port.get("protocol") == "UDP" for port in rule["ports"])]


def test_dns_is_allowed_at_openshifts_port_too_to_whoever_has_to_resolve_a_name(home: Path) -> None:
    ports = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    service = template(home, SERVICE)
    assert [rule["ports"] for rule in _dns(_egress(service, "scheduler"))] == [ports]
    assert _dns(_egress(service, "extender")), "replicas find each other by name"
    alone = merged(SERVICE, nested(("extender", "replicas"), 1))
    assert not _dns(_egress(template(home, alone), "extender")), "it finds the API server by its address"
    assert _dns(_egress(template(home), "scheduler")), "the extenders beside the schedulers find each other by name"
    single = nested(("scheduler", "replicas"), 1)
    assert not _dns(_egress(template(home, single), "scheduler")), "a sidecar is called over loopback"
    for more in (
        nested(("extender", "prometheus", "url"), "http://prometheus:9090"),
        nested(("extender", "settings", "tracing_endpoint"), "http://collector:4318/v1/traces"),
    ):
        assert _dns(_egress(template(home, merged(single, more)), "scheduler"))
        assert _dns(_egress(template(home, merged(alone, more)), "extender"))
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]
    chosen = template(home, merged(SERVICE, nested(("networkPolicy", "dns"), {"ports": [5353], "peers": peers})))
    (rule,) = _dns(_egress(chosen, "scheduler"))
    assert rule == {"ports": ports[2:], "to": peers}


@pytest.mark.parametrize("api", ["security.openshift.io/v1", "security.openshift.io/v1/SecurityContextConstraints"])
def test_openshift_chooses_users_and_groups_itself(home: Path, api: str) -> None:
    def contexts(rendered: Rendering) -> list[dict[str, Any]]:
        specs = [each["spec"]["template"]["spec"] for each in rendered.all("Deployment")]
        specs += [each["spec"] for each in rendered.all("Pod")]
        return [spec["securityContext"] for spec in specs]

    rest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert contexts(template(home, SERVICE, apis=[api])) == [rest] * 3
    none = nested(("pods", "securityContext"), {"runAsUser": None, "runAsGroup": None, "fsGroup": None})
    assert contexts(template(home, none)) == [rest] * 2
    assert contexts(template(home))[0] == rest | dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65532)


def test_a_quota_lets_critical_pods_into_a_namespace_where_the_provider_asks_for_one(home: Path) -> None:
    quota = template(home).one("ResourceQuota")["spec"]
    classes = quota["scopeSelector"]["matchExpressions"]
    assert classes == [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]}]
    assert quota["hard"] == {"pods": "100"}
    for values, namespace in (
        ({}, "kube-system"),
        ({"pods": {"priorityClassName": ""}}, "apps"),
        ({"pods": {"priorityClassName": "mine"}}, "apps"),
    ):
        assert not template(home, values, namespace=namespace).all("ResourceQuota")


@pytest.mark.parametrize("mode", MODES)
def test_each_port_listens_where_it_is_asked(home: Path, mode: str) -> None:
    """A sidecar's verbs are for its own pod; probes come to the pod's address, of whatever family."""
    rendered = template(home, MODES[mode])
    settings = rendered.settings()
    assert settings["operations_host"] == "0.0.0.0,::"
    assert settings["host"] == {"sidecar": "127.0.0.1,::1", "service": "0.0.0.0,::"}[mode]
    container = rendered.container("extender")
    assert not [each for each in container.get("env", []) if each["name"].startswith("MADDPG_")]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert "host" not in asked, "the kubelet asks at the pod's own address"
        assert ports[asked["port"]] == settings["operations_port"]
    scheduler = rendered.container("kube-scheduler")
    assert "--bind-address=0.0.0.0" in scheduler["command"], "to Go that is every address of both families"


def test_nothing_in_the_image_moves_the_verbs_off_loopback() -> None:
    """The environment wins over the settings file, so the image may set no address there."""
    assert "MADDPG_HOST" not in (CHART.parents[1] / "deploy" / "Dockerfile").read_text()
