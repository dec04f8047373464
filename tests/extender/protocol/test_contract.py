"""Requests recorded from real kube-schedulers, replayed: the answers are what kube-scheduler can decode and use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extender.cluster.source import Binding
from extender.protocol import wire
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*/*.json"))


def of(*verbs: str) -> pytest.MarkDecorator:
    """Parametrize over the recordings of these verbs, in both modes and all versions."""
    files = [file for file in RECORDED if file.stem.split("-")[0] in verbs]
    return pytest.mark.parametrize("file", files, ids=[f"{file.parent.name}-{file.stem}" for file in files])


def load(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())["body"])


def names_of(body: dict[str, Any]) -> list[str]:
    if body["NodeNames"] is not None:
        return list(body["NodeNames"])
    return [node["metadata"]["name"] for node in body["Nodes"]["items"]]


def go_spelling(value: dict[str, Any], spell: Callable[[str], str]) -> dict[str, Any]:
    """The same message with its extender/v1 keys spelt otherwise, as Go would still accept it."""
    return {spell(key): part for key, part in value.items()}


def test_every_supported_version_and_both_modes_are_recorded() -> None:
    kinds = {(file.parent.name, file.stem) for file in RECORDED}
    verbs = ("filter", "prioritize", "preempt", "bind")
    wanted = {f"{verb}-{mode}" for verb in verbs for mode in ("names", "objects")}
    for version in {version for version, _ in kinds}:
        assert wanted <= {stem for found, stem in kinds if found == version}
    assert {version.rsplit(".", 1)[0] for version, _ in kinds} == {"1.34", "1.35", "1.36", "1.37"}


@of("prioritize")
def test_every_recorded_node_gets_one_integer_priority(run_service: Callable[..., Service], file: Path) -> None:
    service, body = run_service(), load(file)
    names = names_of(body)
    service.change(lambda table: [table.upsert_node(name, 8.0, 32.0) for name in names])
    answer = service.post("prioritize", body)
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(answer.content))
    hosts = answer.json()
    assert [sorted(host) for host in hosts] == [["Host", "Score"]] * len(names)
    assert sorted(host["Host"] for host in hosts) == sorted(names)
    assert all(type(host["Score"]) is int and 0 <= host["Score"] <= 10 for host in hosts)
    assert max(host["Score"] for host in hosts) == 10
    decision = service.decision(body["Pod"]["metadata"]["uid"])
    assert decision["candidates"] == len(names)
    assert decision["fallback_reason"] is None


@of("filter")
def test_every_recorded_node_passes_the_filter_in_the_mode_it_came_in(
    run_service: Callable[..., Service], file: Path
) -> None:
    service, body = run_service(), load(file)
    answer = service.post("filter", body)
    assert answer.status_code == 200
    result = answer.json()
    assert result["NodeNames"] == body["NodeNames"]
    assert result["Nodes"] == body["Nodes"]
    assert (result["NodeNames"] is None) != (result["Nodes"] is None)
    assert result["FailedNodes"] == result["FailedAndUnresolvableNodes"] == {}
    assert result["Error"] == ""


@of("preempt")
def test_every_recorded_victim_is_kept(run_service: Callable[..., Service], file: Path) -> None:
    body = load(file)
    result = run_service().post("preempt", body).json()["NodeNameToMetaVictims"]
    meta = body["NodeNameToMetaVictims"]
    whole = body["NodeNameToVictims"]
    if meta is not None:
        assert result == meta
    else:
        uids = {node: [pod["metadata"]["uid"] for pod in victims["Pods"]] for node, victims in whole.items()}
        assert {node: [pod["UID"] for pod in victims["Pods"]] for node, victims in result.items()} == uids
        assert any(uids.values())
    assert all(type(victims["NumPDBViolations"]) is int for victims in result.values())


@of("bind")
def test_a_recorded_binding_reaches_the_cluster_as_it_was_asked(
    run_service: Callable[..., Service], file: Path
) -> None:
    bound: list[Binding] = []
    body = load(file)
    answer = run_service(EmbeddedSource(on_bind=bound.append), enable_bind=True).post("bind", body)
    assert (answer.status_code, answer.json()) == (200, {"Error": ""})
    assert bound == [Binding(body["PodNamespace"], body["PodName"], body["PodUID"], body["Node"])]


@pytest.mark.parametrize(
    "spell", [str.lower, str.upper, lambda key: key[0].lower() + key[1:]], ids=["low", "up", "camel"]
)
@of("filter", "prioritize", "preempt", "bind")
def test_keys_are_understood_in_any_case_as_go_understands_them(file: Path, spell: Callable[[str], str]) -> None:
    body = load(file)
    plain, other = json.dumps(body).encode(), json.dumps(go_spelling(body, spell)).encode()
    verb = file.stem.split("-")[0]
    decode: Callable[[bytes], Any] = {
        "preempt": wire.decode_preemption,
        "bind": wire.decode_binding,
    }.get(verb, wire.decode_scheduling)
    assert decode(other) == decode(plain)


@of("filter", "prioritize")
def test_what_recorded_pods_ask_for_is_read(file: Path) -> None:
    body = load(file)
    request = wire.decode_scheduling(json.dumps(body).encode())
    assert request.names == names_of(body)
    assert request.pod.metadata.uid == body["Pod"]["metadata"]["uid"]
    asked = body["Pod"]["spec"]["containers"][0].get("resources", {}).get("requests", {})
    assert request.pod.spec.containers
    resources = request.pod.spec.containers[0].resources
    found = resources.requests if resources is not None else None
    assert (found.cpu if found else None) == asked.get("cpu")
    assert (found.memory if found else None) == asked.get("memory")
    assert float(bytes(request.pod.spec.priority)) == body["Pod"]["spec"]["priority"]
