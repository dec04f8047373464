"""The traps in a kube-scheduler's configuration, each named by its field with what to do about it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.inspection.finding import Finding
from extender.inspection.scheduler_config import inspect
from extender.settings import Settings

REPOSITORY = Path(__file__).parents[3]
PLAIN = Settings()

GOOD: dict[str, Any] = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "leaderElection": {
        "leaderElect": True,
        "resourceName": "maddpg-scheduler",
        "resourceNamespace": "maddpg-scheduler",
    },
    "profiles": [
        {
            "schedulerName": "maddpg-scheduler",
            "plugins": {
                "score": {"disabled": [{"name": "NodeResourcesFit"}, {"name": "NodeResourcesBalancedAllocation"}]}
            },
        }
    ],
    "extenders": [
        {
            "urlPrefix": "http://127.0.0.1:8888",
            "prioritizeVerb": "prioritize",
            "preemptVerb": "preempt",
            "weight": 10,
            "nodeCacheCapable": True,
            "httpTimeout": "1s",
            "ignorable": True,
        }
    ],
}


def told(tmp_path: Path, document: object, settings: Settings = PLAIN) -> list[Finding]:
    """Findings on a configuration, without the name of the file in front of the field."""
    file = tmp_path / "config.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    found = list(inspect(file, settings))
    for each in found:
        assert str(each).isprintable()
        assert each.verdict == "ok" or each.fix, each
    return [Finding(each.name.removeprefix("config.yaml: "), each.verdict, each.told, each.fix) for each in found]


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    change(document)
    return document


def extender(**fields: Any) -> dict[str, Any]:
    """The good configuration with other fields of its extender; None takes one out."""
    document = copy.deepcopy(GOOD)
    entry = document["extenders"][0] | fields
    document["extenders"][0] = {key: value for key, value in entry.items() if value is not None}
    return document


def profile(**plugins: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    document["profiles"][0]["plugins"] = plugins
    return document


@pytest.mark.parametrize(
    "form", ["yaml", "json", "json with tabs", "ConfigMap", "several documents", "byte order mark"]
)
def test_a_configuration_that_asks_as_it_should_has_nothing_to_be_said(tmp_path: Path, form: str) -> None:
    text = yaml.safe_dump(GOOD)
    config_map = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "data": {"config.yaml": text, "other": "x"}})
    forms = {
        "yaml": text,
        "json": json.dumps(GOOD),
        "json with tabs": json.dumps(GOOD, indent="\t"),
        "ConfigMap": config_map,
        "several documents": f"---\n{yaml.safe_dump({'kind': 'Namespace'})}---\n{text}",
        "byte order mark": "\ufeff" + text,
    }
    (found,) = told(tmp_path, forms[form])
    assert found.verdict == "ok"


def test_the_shipped_configuration_suits_the_default_settings() -> None:
    (found,) = inspect(REPOSITORY / "deploy" / "scheduler-config.yaml", PLAIN)
    assert found.verdict == "ok", found


TRAPS: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: configuration, field, verdict
    "weight 0": (extender(weight=0), "extenders[0].weight", "failed"),
    "no weight": (extender(weight=None), "extenders[0].weight", "failed"),
    "weight null": (changed(lambda all_: all_["extenders"][0].update(weight=None)), "extenders[0].weight", "failed"),
    "a weight of more than 64 bits": (extender(weight=2**63), "extenders[0].weight", "failed"),
    "weight below 0": (extender(weight=-1), "extenders[0].weight", "failed"),
    "weight as a text": (extender(weight="10"), "extenders[0].weight", "failed"),
    "weight as a fraction": (extender(weight=1.5), "extenders[0].weight", "failed"),
    "by object, with filterVerb": (
        extender(nodeCacheCapable=None, filterVerb="filter"), "extenders[0].filterVerb", "failed"
    ),
    "by object": (extender(nodeCacheCapable=False), "extenders[0].nodeCacheCapable", "warning"),
    "a timeout below the deadline": (extender(httpTimeout="40ms"), "extenders[0].httpTimeout", "failed"),
    "a timeout of the deadline": (extender(httpTimeout="0.05s"), "extenders[0].httpTimeout", "failed"),
    "a timeout that is none": (extender(httpTimeout="soon"), "extenders[0].httpTimeout", "failed"),
    "a timeout as a number": (extender(httpTimeout=1), "extenders[0].httpTimeout", "failed"),
    "not ignorable": (extender(ignorable=None), "extenders[0].ignorable", "warning"),
    "managed resources": (
        extender(managedResources=[{"name": "example.com/x"}]), "extenders[0].managedResources", "warning"
    ),
    "a path": (extender(urlPrefix="http://127.0.0.1:8888/scheduler"), "extenders[0].urlPrefix", "failed"),
    "a query": (extender(urlPrefix="http://127.0.0.1:8888?a=b"), "extenders[0].urlPrefix", "failed"),
    "another port": (extender(urlPrefix="http://127.0.0.1:9999"), "extenders[0].urlPrefix", "failed"),
    "no port": (extender(urlPrefix="http://127.0.0.1"), "extenders[0].urlPrefix", "failed"),
    "no URL": (extender(urlPrefix="127.0.0.1:8888"), "extenders[0].urlPrefix", "failed"),
    "https, and we answer http": (
        extender(urlPrefix="https://127.0.0.1:8888", enableHTTPS=True, tlsConfig={"caFile": "a"}),
        "extenders[0].urlPrefix", "failed",
    ),
    "another machine, and we answer on loopback": (
        extender(urlPrefix="http://extender.example:8888"), "extenders[0].urlPrefix", "failed"
    ),
    "enableHTTPS without https": (extender(enableHTTPS=True), "extenders[0].enableHTTPS", "failed"),
    "another verb": (extender(prioritizeVerb="score"), "extenders[0].prioritizeVerb", "failed"),
    "a verb with a slash": (extender(prioritizeVerb="/prioritize"), "extenders[0].prioritizeVerb", "failed"),
    "no prioritizeVerb": (extender(prioritizeVerb=None), "extenders[0].prioritizeVerb", "failed"),
    "bindVerb, and we do not bind": (extender(bindVerb="bind"), "extenders[0].bindVerb", "failed"),
    "a field in other capitals": (extender(enableHttps=True), "extenders[0].enableHttps", "failed"),
    "an unknown field": (extender(timeout="1s"), "extenders[0].timeout", "failed"),
    "a field of another type": (extender(ignorable="true"), "extenders[0].ignorable", "failed"),
    "an extender that is a text": (
        changed(lambda all_: all_.update(extenders=["http://127.0.0.1:8888"])), "extenders[0]", "failed"
    ),
    "no extender": (changed(lambda all_: all_.pop("extenders")), "extenders", "failed"),
    "ours twice": (changed(lambda all_: all_["extenders"].append(all_["extenders"][0])), "extenders", "warning"),
    "only other extenders": (
        changed(lambda all_: all_.update(extenders=[{"urlPrefix": f"http://127.0.0.1:{port}"} for port in (1, 2)])),
        "extenders[].urlPrefix", "failed",
    ),
    "two that bind": (
        changed(lambda all_: all_["extenders"].extend({"urlPrefix": "http://x:1", "bindVerb": "bind"} for _ in "ab")),
        "extenders[].bindVerb", "failed",
    ),
    "both scores left on": (profile(), "profiles[0].plugins.score", "warning"),
    "one score left on": (
        profile(score={"disabled": [{"name": "NodeResourcesFit"}]}), "profiles[0].plugins.score", "warning"
    ),
    "a score put back": (
        profile(score={"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 1}]}),
        "profiles[0].plugins.score", "warning",
    ),
    "the filter off too": (
        profile(multiPoint={"disabled": [{"name": "NodeResourcesFit"}, {"name": "NodeResourcesBalancedAllocation"}]}),
        "profiles[0].plugins.multiPoint", "failed",
    ),
    "another profile's name": (
        changed(lambda all_: all_["profiles"][0].update(schedulerName="other")), "profiles[].schedulerName", "warning"
    ),
    "the default profile beside ours": (
        changed(lambda all_: all_["profiles"].append({"schedulerName": "default-scheduler"})), "profiles", "warning"
    ),
    "the lease of the cluster's own": (
        changed(lambda all_: all_.update(leaderElection={})), "leaderElection.resourceName", "warning"
    ),
    "a weight that overflows": (extender(weight=2**61), "extenders[0].weight", "failed"),
    "a resource that is no extended one": (
        extender(managedResources=[{"name": "cpu"}]), "extenders[0].managedResources[0].name", "failed"
    ),
    "a resource twice": (
        extender(managedResources=[{"name": "a.b/c"}, {"name": "a.b/c"}]),
        "extenders[0].managedResources[1].name", "failed",
    ),
    "no parallelism": (changed(lambda all_: all_.update(parallelism=0)), "parallelism", "failed"),
    "more than all nodes": (
        changed(lambda all_: all_.update(percentageOfNodesToScore=101)), "percentageOfNodesToScore", "failed"
    ),
    "less than no nodes, in a profile": (
        changed(lambda all_: all_["profiles"][0].update(percentageOfNodesToScore=-1)),
        "profiles[0].percentageOfNodesToScore", "failed",
    ),
    "no first wait": (
        changed(lambda all_: all_.update(podInitialBackoffSeconds=0)), "podInitialBackoffSeconds", "failed"
    ),
    "a last wait below the first": (
        changed(lambda all_: all_.update(podInitialBackoffSeconds=20)), "podMaxBackoffSeconds", "failed"
    ),
    "a burst below 0": (
        changed(lambda all_: all_.update(clientConnection={"burst": -1})), "clientConnection.burst", "failed"
    ),
    "another lock": (
        changed(lambda all_: all_["leaderElection"].update(resourceLock="endpoints")),
        "leaderElection.resourceLock", "failed",
    ),
    "a lease that is over before it is renewed": (
        changed(lambda all_: all_["leaderElection"].update(leaseDuration="10s")),
        "leaderElection.renewDeadline", "failed",
    ),
    "a renewal that is over before it is tried again": (
        changed(lambda all_: all_["leaderElection"].update(retryPeriod="9s")), "leaderElection.retryPeriod", "failed"
    ),
    "a lease of nothing": (
        changed(lambda all_: all_["leaderElection"].update(leaseDuration="0s")),
        "leaderElection.leaseDuration", "failed",
    ),
    "a profile without a name": (
        changed(lambda all_: all_["profiles"].append({})), "profiles[1].schedulerName", "failed"
    ),
    "an empty name": (
        changed(lambda all_: all_["profiles"][0].update(schedulerName="")), "profiles[0].schedulerName", "failed"
    ),
    "a plugin configured twice": (
        changed(lambda all_: all_["profiles"][0].update(pluginConfig=[{"name": "NodeResourcesFit"}] * 2)),
        "profiles[0].pluginConfig", "failed",
    ),
    "two orders of one queue": (
        changed(
            lambda all_: all_["profiles"].append(
                {"schedulerName": "b", "plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}
            )
        ),
        "profiles[].plugins.queueSort", "failed",
    ),
    "a version that is gone": (
        changed(lambda all_: all_.update(apiVersion="kubescheduler.config.k8s.io/v1beta3")), "apiVersion", "failed"
    ),
    "no version": (changed(lambda all_: all_.pop("apiVersion")), "apiVersion", "failed"),
    "an unknown field of a profile": (
        changed(lambda all_: all_["profiles"][0].update(plugin={})), "profiles[0].plugin", "failed"
    ),
    "an unknown extension point": (profile(multipoint={}), "profiles[0].plugins.multipoint", "failed"),
    "plugins by name alone": (
        profile(score={"disabled": ["NodeResourcesFit"]}), "profiles[0].plugins.score.disabled[0]", "failed"
    ),
    "profiles that are a map": (changed(lambda all_: all_.update(profiles={})), "profiles", "failed"),
    "an election that is a text": (changed(lambda all_: all_.update(leaderElection="on")), "leaderElection", "failed"),
    "two profiles of one name": (
        changed(lambda all_: all_["profiles"].append(all_["profiles"][0])), "profiles[].schedulerName", "failed"
    ),
    "an unknown field at the top": (changed(lambda all_: all_.update(Profiles=[])), "Profiles", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_named_by_its_field(tmp_path: Path, name: str) -> None:
    document, field, verdict = TRAPS[name]
    found = told(tmp_path, document)
    assert (field, verdict) in [(each.name, each.verdict) for each in found], found


@pytest.mark.parametrize(
    "document",
    [
        extender(httpTimeout=None),
        extender(httpTimeout="1m0.5s"),
        changed(lambda all_: all_["leaderElection"].pop("resourceName")),
        changed(lambda all_: all_.update(leaderElection={"leaderElect": False, "leaseDuration": "0s"})),
        changed(lambda all_: all_.update(percentageOfNodesToScore=100, parallelism=1)),
        extender(urlPrefix="http://localhost:8888/"),
        extender(urlPrefix="http://[::1]:8888"),
        extender(filterVerb="filter"),
        profile(score={"disabled": [{"name": "*"}]}),
        profile(
            multiPoint={"disabled": [{"name": "*"}], "enabled": [{"name": "NodeAffinity"}]},
            filter={"enabled": [{"name": "NodeResourcesFit"}]},
        ),
    ],
    ids=[
        "5 s by default",
        "a long duration",
        "a lease elsewhere",
        "no lease",
        "bounds",
        "a name",
        "IPv6",
        "filter by name",
        "no score",
        "a list of its own",
    ],
)
def test_what_is_no_trap_is_let_be(tmp_path: Path, document: dict[str, Any]) -> None:
    (found,) = told(tmp_path, document)
    assert found.verdict == "ok", found


def test_a_config_map_may_hold_other_things_too(tmp_path: Path) -> None:
    data = {"run.sh": "kind() { echo 'a: [' }", "config.yaml": yaml.safe_dump(GOOD)}
    (found,) = told(tmp_path, {"kind": "ConfigMap", "data": data})
    assert found.verdict == "ok", found


def test_a_url_is_never_shown(tmp_path: Path) -> None:
    assert "secret" not in str(told(tmp_path, extender(urlPrefix="http://user:secret@[::1:8888")))


POLICY = {
    "kind": "Policy",
    "apiVersion": "v1",
    "predicates": [{"name": "PodFitsResources"}],
    "hardPodAffinitySymmetricWeight": 10,
    "alwaysCheckAllPredicates": False,
    "priorities": [{"name": "BalancedResourceAllocation", "weight": 1}],
    "extenders": [
        {
            "URLPrefix": "http://127.0.0.1:8888",
            "filterVerb": "filter",
            "prioritizeVerb": "prioritize",
            "weight": 10,
            "enableHttps": False,
            "nodeCacheCapable": False,
            "httpTimeout": 40_000_000,
        }
    ],
}


def test_a_policy_of_old_is_read_with_its_own_spelling(tmp_path: Path) -> None:
    found = {each.name: each for each in told(tmp_path, json.dumps(POLICY))}
    assert found["kind"].verdict == "failed"
    assert found["extenders[0].httpTimeout"].told.startswith("is 40 ms")
    assert found["extenders[0].filterVerb"].verdict == "failed"
    assert "BalancedResourceAllocation is left on" in found["priorities"].told
    assert "extenders[0].urlPrefix" not in found
    assert not [name for name in found if "is no field" in found[name].told]
    without = {key: value for key, value in POLICY.items() if key != "priorities"}
    assert "LeastRequestedPriority" in {each.name: each for each in told(tmp_path, without)}["priorities"].told


def test_https_is_judged_as_kube_scheduler_makes_its_connection(tmp_path: Path) -> None:
    file = tmp_path / "file"
    settings = Settings(host="0.0.0.0,::", tls_cert_file=file, tls_key_file=file, tls_client_ca_file=file)
    whole = {"caFile": "ca", "certFile": "crt", "keyFile": "key"}

    def fields(enabled: bool, tls: dict[str, Any]) -> list[tuple[str, str]]:
        document = extender(urlPrefix="https://extender.ns.svc:8888", enableHTTPS=enabled, tlsConfig=tls)
        return [(each.name.rpartition(".")[2], each.verdict) for each in told(tmp_path, document, settings)]

    assert fields(True, whole)[0][1] == "ok"
    assert fields(True, {**whole, "caFile": ""}) == [("caFile", "failed")]
    assert fields(True, {"certData": "", "certFile": "c", "keyFile": "k"}) == [("caFile", "failed")]
    assert fields(True, {**whole, "insecure": True}) == [("insecure", "failed")]
    assert fields(False, {"certFile": "c", "keyFile": "k"}) == [("caFile", "warning")]
    assert fields(True, {"caFile": "ca"}) == [("certFile", "failed")]
    assert fields(True, {"caData": "ca", "certData": "c", "keyData": "k"})[0][1] == "ok"
    assert ("rootFile", "failed") in fields(True, {**whole, "rootFile": "x"})
    plain = extender(urlPrefix="http://extender.ns.svc:8888")
    assert [each.name for each in told(tmp_path, plain, settings)] == ["extenders[0].urlPrefix"]


def test_a_binder_that_nobody_asks_is_told(tmp_path: Path) -> None:
    found = told(tmp_path, GOOD, Settings(enable_bind=True))
    assert [(each.name, each.verdict) for each in found] == [("extenders[0].bindVerb", "warning")]
    assert told(tmp_path, extender(bindVerb="bind"), Settings(enable_bind=True))[0].verdict == "ok"


def test_a_verb_that_is_switched_off_is_told(tmp_path: Path) -> None:
    found = told(tmp_path, GOOD, Settings(enable_preempt=False))
    assert [(each.name, each.verdict) for each in found] == [("extenders[0].preemptVerb", "failed")]


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "holds 0 documents"),
    "another kind": (b"kind: Deployment", "holds 0 documents"),
    "two of them": (f"{yaml.safe_dump(GOOD)}---\n{yaml.safe_dump(GOOD)}".encode(), "holds 2 documents"),
    "no YAML": (b"a: [", "does not parse"),
    "a key twice": (b"kind: Policy\nkind: Policy\n", "line 2: 'kind' stands twice"),
    "no UTF-8": (b"kind: \xff", "byte 6 is no UTF-8"),
    "nested deep": (b"[" * 100_000, "does not parse"),
    "a tag": (b"!!python/object/apply:os.system [id]", "does not parse"),
    "too much": (b"#" * (5 * 1024 * 1024), "has more than"),
    "a list as a key": (b"? [a]\n: 1\n", "does not parse"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, complaint = UNREADABLE[name]
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    (found,) = inspect(file, PLAIN)
    assert found.verdict == "failed"
    assert complaint in found.told
    assert str(found).isprintable()


@pytest.mark.parametrize("path", [Path("nowhere.yaml"), Path(), Path("a\0b")], ids=["absent", "folder", "null"])
def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    (found,) = inspect(path, PLAIN)
    assert (found.verdict, found.told.partition(" (")[0]) == ("failed", "cannot be read")
