"""Whatever arrives, the answer is clear, the service lives, and no pod is lost over it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.errors import WireError
from extender.nulls import LARGEST
from extender.protocol import wire
from tests.extender.service import Service, by_names, by_objects, pod

BOTH = pytest.mark.parametrize("verb", ["filter", "prioritize"])

MALFORMED: dict[str, tuple[Any, str]] = {
    "empty": (b"", "no body"),
    "truncated": (json.dumps(by_names(["a"])).encode()[:-20], "not JSON"),
    "truncated_pod": (b'{"Pod":{"metadata":', "not JSON"),
    "not_json": (b"<xml/>", "not JSON"),
    "not_utf8": (b'{"Pod":{"metadata":{"name":"\xff"}}}', "Pod"),
    "array": (b"[]", "the body"),
    "nested_too_deep": (b'{"Pod":' + b"[" * 100_000, "not JSON"),
    "no_pod": ({"Nodes": None, "NodeNames": ["a"]}, "Pod is missing"),
    "null_pod": ({"Pod": None, "Nodes": None, "NodeNames": ["a"]}, "Pod is missing"),
    "pod_is_text": ({"Pod": "web", "Nodes": None, "NodeNames": ["a"]}, "Pod: "),
    "pod_without_metadata": ({"Pod": {"spec": {}}, "NodeNames": ["a"]}, "metadata"),
    "uid_is_number": (by_names(["a"], {"metadata": {"uid": 7}}), "Pod.metadata.uid"),
    "names_is_text": ({"Pod": pod(), "Nodes": None, "NodeNames": "a"}, "NodeNames"),
    "name_is_number": ({"Pod": pod(), "Nodes": None, "NodeNames": ["a", 3]}, "NodeNames[1]"),
    "node_without_name": ({"Pod": pod(), "Nodes": {"items": [{"metadata": {}}]}, "NodeNames": None}, "Nodes.items[0]"),
    "containers_is_object": (by_names(["a"], {"metadata": {}, "spec": {"containers": {}}}), "Pod.spec.containers"),
}


@BOTH
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_refused_with_its_path(run_service: Callable[..., Service], verb: str, case: str) -> None:
    body, path = MALFORMED[case]
    service = run_service()
    answer = service.post(verb, body)
    assert answer.status_code == 400
    assert path in answer.json()["Error"]
    assert service.post(verb, by_names(["a"])).status_code == 200
    assert service.metric("maddpg_requests_total", verb=verb, code="400") == 1


NULLS: dict[str, dict[str, Any]] = {
    "status": {"status": None},
    "spec": {"spec": None},
    "name": {"metadata": {"name": None, "uid": "uid-a"}},
    "container": {"spec": {"containers": [{"name": None, "restartPolicy": None, "resources": {"requests": None}}]}},
    "condition": {"status": {"conditions": [{"type": None, "status": None, "lastTransitionTime": None}]}},
}


@BOTH
@pytest.mark.parametrize("case", NULLS)
def test_a_null_is_what_go_takes_it_for(run_service: Callable[..., Service], verb: str, case: str) -> None:
    service = run_service()
    service.add_nodes(1)
    answer = service.post(verb, by_names(["node-0"], pod() | NULLS[case]))
    assert answer.status_code == 200, answer.text


def test_a_null_in_a_list_or_in_a_huge_pod_is_refused(run_service: Callable[..., Service]) -> None:
    service = run_service()
    for change in (
        {"spec": {"containers": [None]}},
        {"status": None, "metadata": {"annotations": {"a": "x" * LARGEST}}},
    ):
        assert service.post("prioritize", by_names(["a"], pod() | change)).status_code == 400


BAD_QUANTITIES = {"cpu": "half", "memory": "1GiB"}


@pytest.mark.parametrize("resource", BAD_QUANTITIES)
def test_a_quantity_that_does_not_parse_is_refused_by_prioritize_and_passed_by_filter(
    run_service: Callable[..., Service], resource: str
) -> None:
    service = run_service()
    names = service.add_nodes(1)
    broken = by_names(names, pod(**{resource: BAD_QUANTITIES[resource]}))
    answer = service.post("prioritize", broken)
    assert answer.status_code == 400
    assert f"Pod.spec.containers[0].resources.requests.{resource}" in answer.json()["Error"]
    passed = service.post("filter", broken)
    assert (passed.status_code, passed.json()["NodeNames"], passed.json()["Error"]) == (200, names, "")


@pytest.mark.parametrize("form", [by_names, by_objects], ids=["names", "objects"])
@BOTH
def test_no_nodes_is_answered_with_no_nodes(run_service: Callable[..., Service], verb: str, form: Any) -> None:
    service = run_service()
    answer = service.post(verb, form([]))
    assert answer.status_code == 200
    if verb == "prioritize":
        assert answer.json() == []
    else:
        kept = answer.json()
        assert kept["Error"] == ""
        assert kept["NodeNames"] == [] if form is by_names else kept["Nodes"]["items"] == []


def test_neither_names_nor_nodes_never_answers_two_nulls(run_service: Callable[..., Service]) -> None:
    result = run_service().post("filter", {"Pod": pod(), "Nodes": None, "NodeNames": None}).json()
    assert result["NodeNames"] == []


@pytest.mark.parametrize("form", [by_names, by_objects], ids=["names", "objects"])
def test_five_thousand_and_one_nodes_are_all_answered(run_service: Callable[..., Service], form: Any) -> None:
    service = run_service()
    names = service.add_nodes(5001)
    hosts = service.post("prioritize", form(names)).json()
    assert sorted(host["Host"] for host in hosts) == sorted(names)
    assert service.decision("uid-web")["fallback_reason"] is None
    kept = service.post("filter", form(names)).json()
    assert kept["NodeNames"] == names if form is by_names else len(kept["Nodes"]["items"]) == 5001


def test_more_nodes_than_the_limit_get_the_neutral_priority_and_are_counted(
    run_service: Callable[..., Service],
) -> None:
    service = run_service(max_nodes=5000)
    names = service.add_nodes(5001)
    assert set(service.prioritize(names).values()) == {5}
    assert service.decision("uid-web")["fallback_reason"] == "too_many_nodes"
    assert service.metric("maddpg_fallbacks_total", reason="too_many_nodes") == 1
    assert service.post("filter", by_names(names)).json()["NodeNames"] == names


def test_duplicate_names_get_one_score_each_because_kube_scheduler_adds_them_up(
    run_service: Callable[..., Service],
) -> None:
    service = run_service()
    names = service.add_nodes(3)
    alone = service.prioritize(names, pod("first"))
    assert set(alone) == set(names)
    assert set(service.prioritize([*names, names[0], "stranger", "stranger"], pod("second"))) == {*names, "stranger"}
    doubled = service.post("filter", by_names([*names, names[0]])).json()
    assert doubled["NodeNames"] == [*names, names[0]]


def test_unknown_nodes_get_the_neutral_priority_and_pass_the_filter(run_service: Callable[..., Service]) -> None:
    service = run_service(unknown_node_priority=3)
    names = service.add_nodes(2)
    scores = service.prioritize([*names, "new-node"])
    assert scores["new-node"] == 3
    assert max(scores[name] for name in names) == 10
    assert service.decision("uid-web")["unknown_nodes"] == 1
    assert service.metric("maddpg_unknown_nodes_total") == 1
    assert service.post("filter", by_names(["new-node"])).json()["NodeNames"] == ["new-node"]


@BOTH
def test_a_body_over_the_limit_is_refused_before_it_is_read(run_service: Callable[..., Service], verb: str) -> None:
    service = run_service(max_body_bytes=1024)
    answer = service.post(verb, by_names(["n" * 2000]))
    assert answer.status_code == 413
    assert "1024" in answer.json()["Error"]
    assert service.post(verb, {"Pod": {"metadata": {}}, "NodeNames": []}).status_code == 200


def test_a_chunked_body_over_the_limit_is_refused_too(run_service: Callable[..., Service]) -> None:
    service = run_service(max_body_bytes=1024)
    answer = service.http.post("/prioritize", content=iter([b"x" * 600] * 3))
    assert answer.status_code == 413


def test_a_body_that_does_not_arrive_is_given_up(run_service: Callable[..., Service]) -> None:
    service = run_service(body_timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", service.background.port), timeout=5.0) as connection:
        connection.sendall(b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("verb", ["filter", "prioritize", "preempt", "bind"])
def test_a_verb_switched_off_is_not_found_and_says_which_setting(
    run_service: Callable[..., Service], verb: str
) -> None:
    answer = run_service(**{f"enable_{verb}": False}).post(verb, by_names(["a"]))
    assert answer.status_code == 404
    assert f"enable_{verb}" in answer.json()["Error"]


@pytest.mark.parametrize("verb", ["filter", "prioritize", "preempt"])
def test_only_post_is_taken(run_service: Callable[..., Service], verb: str) -> None:
    answer = run_service().http.get(f"/{verb}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("count", [2**63, -1, 1e30, 1.5, "1"])
@pytest.mark.parametrize("form", ["NodeNameToMetaVictims", "NodeNameToVictims"])
def test_a_count_that_go_could_not_read_is_refused(run_service: Callable[..., Service], form: str, count: Any) -> None:
    answer = run_service().post("preempt", {"Pod": pod(), form: {"a": {"Pods": [], "NumPDBViolations": count}}})
    assert answer.status_code == 400
    assert "NumPDBViolations" in answer.json()["Error"]


@pytest.mark.parametrize("key", ["PodName", "PodNamespace", "PodUID", "Node"])
def test_a_binding_without_a_part_is_refused(run_service: Callable[..., Service], key: str) -> None:
    whole = {"PodName": "web", "PodNamespace": "default", "PodUID": "u", "Node": "n"}
    for broken in (
        {**whole, key: ""},
        {**whole, key: None},
        {name: text for name, text in whole.items() if name != key},
    ):
        answer = run_service(enable_bind=True).post("bind", broken)
        assert answer.status_code == 400
        assert key in answer.json()["Error"]


@given(body=st.binary(max_size=400))
def test_arbitrary_bytes_never_raise_anything_but_a_wire_error(body: bytes) -> None:
    for decode in (wire.decode_scheduling, wire.decode_preemption, wire.decode_binding):
        with contextlib.suppress(WireError):
            decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("Pod", "Nodes", "NodeNames", "NodeNameToVictims", "NodeNameToMetaVictims", "PodName", "PodUID", "Node")


@given(
    body=st.dictionaries(st.sampled_from(KEYS), JSON),
    patch=st.sampled_from(["pod", "as_is"]),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_json_in_any_place_is_decoded_or_refused(body: dict[str, Any], patch: str) -> None:
    if patch == "pod":
        body["Pod"] = pod()
    assert read(wire.decode_scheduling, json.dumps(body).encode()) == read(
        wire.decode_carefully, json.dumps(body).encode()
    )
    for decode in (wire.decode_scheduling, wire.decode_preemption, wire.decode_binding):
        with contextlib.suppress(WireError):
            decode(json.dumps(body).encode())


def read(decode: Callable[[bytes], wire.SchedulingRequest], body: bytes) -> object:
    """What is read of a body, or why it is refused."""
    try:
        request = decode(body)
    except WireError as error:
        return str(error)
    return request


@given(pod=JSON, names=JSON, more=JSON, junk=st.sampled_from([b"", b" ", b"}", b"]}", b",1"]))
def test_a_list_at_the_end_is_read_as_if_the_whole_were_read_at_once(
    pod: Any, names: Any, more: Any, junk: bytes
) -> None:
    def dense(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    good = {"metadata": {"name": "web", "uid": "1"}}
    inner = {"Pod": good, "Nodes": None, "NodeNames": ["b"]}
    for before in (dense({"Pod": pod}), dense({"Pod": good}), dense({"Pod": {**good, "x": inner}}), dense(inner)):
        for listed in (dense(names), b'["a","b"]', dense([more])):
            body = before[:-1] + b',"Nodes":null,"NodeNames":' + listed + b"}" + junk
            assert read(wire.decode_scheduling, body) == read(wire.decode_carefully, body)
    assert read(wire.decode_scheduling, dense(inner)) == wire.SchedulingRequest(
        wire.decode_carefully(dense(inner)).pod, ["b"], b'["b"]', b"null"
    )


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_refused_in_the_same_words_however_it_is_read(case: str) -> None:
    body = MALFORMED[case][0]
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert read(wire.decode_scheduling, body) == read(wire.decode_carefully, body)
    assert isinstance(read(wire.decode_scheduling, body), str)
