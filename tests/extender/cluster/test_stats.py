"""What is read of a kubelet's answer, and what of it is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extender.cluster.stats import Amounts, CpuTime, SummaryError, decode_summary
from tests.extender.cluster.fake_kubelet import summary_of

AT = 1_764_439_200.0
TIME = "2025-11-29T18:00:00Z"
UID = "00000000-0000-4000-8000-000000000001"


def psi(avg10: float, total: float = 1e9) -> dict[str, Any]:
    """Pressure as a kubelet shows it; the other averages must not be taken for it."""
    share = {"total": total, "avg10": avg10, "avg60": 77.0, "avg300": 78.0}
    return {"full": {**share, "avg10": 79.0}, "some": share}


def encoded(summary: dict[str, Any]) -> bytes:
    return json.dumps(summary).encode()


def test_use_pressure_and_cpu_times_are_read() -> None:
    summary = summary_of("node-a", TIME, {UID: 12.5}, cpu=2.5, memory_gib=3.0)
    summary["node"]["cpu"]["psi"] = psi(20.0)
    summary["node"]["memory"]["psi"] = psi(5.0)
    summary["node"]["io"] = {"time": TIME, "psi": psi(1.0)}
    read = decode_summary(encoded(summary))
    assert (read.node, read.cpu, read.memory, read.at) == ("node-a", 2.5, 3.0, AT)
    assert (read.pressure.cpu, read.pressure.memory, read.pressure.io, read.pressure.at) == (0.2, 0.05, 0.01, AT)
    assert read.pressure.measured
    assert read.cpu_times == {UID: CpuTime(12.5, AT)}
    assert read.ignored == 0


@pytest.mark.parametrize(
    ("cpu_psi", "expected", "measured"),
    [
        pytest.param(None, None, False, id="absent"),
        pytest.param(psi(0.0, total=0), None, False, id="zeros of a kernel without PSI"),
        pytest.param(psi(0.0), 0.0, True, id="no pressure"),
        pytest.param(psi(100.0), 1.0, True, id="all the time"),
        pytest.param(psi(100.5), None, False, id="above 100 %"),
        pytest.param(psi(-1.0), None, False, id="negative"),
        pytest.param({"full": {"total": 5, "avg10": 3.0}}, None, False, id="without some"),
        pytest.param({"some": {"total": 5, "avg10": "3.0"}}, None, False, id="another type"),
        pytest.param({"some": {"total": None, "avg10": 3.0}}, None, False, id="null"),
        pytest.param([], None, False, id="a list"),
    ],
)
def test_a_kernel_without_psi_is_told_apart_from_a_node_without_pressure(
    cpu_psi: dict[str, Any] | None, expected: float | None, measured: bool
) -> None:
    summary = summary_of("node-a", TIME, {})
    summary["node"]["cpu"]["psi"] = cpu_psi
    read = decode_summary(encoded(summary))
    assert read.pressure.cpu == expected
    assert read.pressure.measured is measured


@pytest.mark.parametrize("io", [None, "x", [], {"psi": "x"}, {"psi": {"some": []}}, {"time": 5}])
@pytest.mark.parametrize("pods", [None, {}, "x", 5])
def test_odd_pressure_and_odd_pods_cost_nothing_else(io: object, pods: object) -> None:
    summary = summary_of("node-a", TIME, {UID: 3.0}, cpu=2.5, memory_gib=4.0)
    summary["node"]["cpu"]["psi"] = psi(20.0)
    summary["node"]["memory"]["psi"], summary["node"]["io"] = {"some": "x"}, io
    summary["pods"] = pods
    read = decode_summary(encoded(summary))
    assert (read.cpu, read.memory, read.cpu_times) == (2.5, 4.0, {})
    assert (read.pressure.cpu, read.pressure.memory, read.pressure.io) == (0.2, None, None)
    assert read.ignored == (0 if pods is None else 1)


def of_pods(summary: dict[str, Any], cpu: object = 1_500_000_000, memory: object = 3 * 2**30) -> None:
    """Let the kubelet say what all pods use together: 1.5 cores and 3 GiB."""
    (pods,) = (each for each in summary["node"]["systemContainers"] if each["name"] == "pods")
    pods["cpu"]["usageNanoCores"], pods["memory"]["workingSetBytes"] = cpu, memory


@pytest.mark.parametrize(
    ("reserved", "expected"),
    [
        pytest.param((0.0, 0.0), (2.5, 4.0), id="nothing reserved: all that is used takes from pods"),
        pytest.param((0.75, 0.5), (1.75, 3.5), id="the system uses more than is reserved for it"),
        pytest.param((1.0, 1.0), (1.5, 3.0), id="just what is reserved"),
        pytest.param((2.0, 8.0), (1.5, 3.0), id="less"),
    ],
)
def test_what_is_reserved_for_the_system_is_not_taken_from_pods(
    reserved: tuple[float, float], expected: tuple[float, float]
) -> None:
    summary = summary_of("node-a", TIME, {}, cpu=2.5, memory_gib=4.0)
    of_pods(summary)
    assert decode_summary(encoded(summary)).claimed(Amounts(*reserved)) == expected


@pytest.mark.parametrize(
    ("cpu", "memory"),
    [(None, 3 * 2**30), (1_500_000_000, None), (0, 3 * 2**30), (-1, 3 * 2**30), (1, 0), ("many", 1), (1, [])],
)
def test_without_a_word_on_pods_all_use_counts(cpu: object, memory: object) -> None:
    summary = summary_of("node-a", TIME, {UID: 3.0}, cpu=2.5, memory_gib=4.0)
    of_pods(summary, cpu, memory)
    read = decode_summary(encoded(summary))
    assert read.claimed(Amounts(1.0, 1.0)) == (2.5, 4.0)
    assert read.cpu_times == {UID: CpuTime(3.0, AT)}


@pytest.mark.parametrize("systems", [None, [], {}, "x", [None], [{}], [{"name": "pods"}], [{"name": 7}]])
def test_odd_system_containers_cost_nothing_else(systems: object) -> None:
    summary = summary_of("node-a", TIME, {UID: 3.0}, cpu=2.5, memory_gib=4.0)
    summary["node"]["systemContainers"] = systems
    summary["pods"].append("x")
    read = decode_summary(encoded(summary))
    assert read.claimed(Amounts(1.0, 1.0)) == (2.5, 4.0)
    assert (read.cpu_times, read.ignored) == ({UID: CpuTime(3.0, AT)}, 1)


def test_one_odd_pod_does_not_hide_what_all_use() -> None:
    summary = summary_of("node-a", TIME, {}, cpu=2.5, memory_gib=4.0)
    of_pods(summary)
    summary["pods"].append("x")
    assert decode_summary(encoded(summary)).claimed(Amounts(1.0, 1.0)) == (1.5, 3.0)


def test_pods_use_no_more_than_their_node() -> None:
    summary = summary_of("node-a", TIME, {}, cpu=1.0, memory_gib=0.0)
    of_pods(summary)
    assert decode_summary(encoded(summary)).claimed(Amounts(4.0, 4.0)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("node",), None, "undecodable"),
        (("node", "nodeName"), "", "incomplete"),
        (("node", "cpu"), None, "incomplete"),
        (("node", "memory"), None, "incomplete"),
        (("node", "cpu", "usageNanoCores"), None, "incomplete"),
        (("node", "memory", "workingSetBytes"), None, "incomplete"),
        (("node", "cpu", "time"), None, "time"),
        (("node", "cpu", "time"), "yesterday", "time"),
        (("node", "cpu", "time"), "2025-11-29T18:00:00", "time"),
        (("node", "cpu", "usageNanoCores"), -1, "value"),
        (("node", "memory", "workingSetBytes"), -1, "value"),
        (("node", "cpu", "usageNanoCores"), "many", "undecodable"),
    ],
)
def test_an_answer_without_use_is_refused(path: tuple[str, ...], value: object, reason: str) -> None:
    summary = summary_of("node-a", TIME, {})
    holder = summary
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(SummaryError) as raised:
        decode_summary(encoded(summary))
    assert raised.value.reason == reason


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"node": {"cpu"', b"[" * 100_000])
def test_what_is_no_summary_is_refused(body: bytes) -> None:
    with pytest.raises(SummaryError) as raised:
        decode_summary(body)
    assert raised.value.reason == "undecodable"


@pytest.mark.parametrize(
    "pod",
    [
        {},
        {"podRef": {"uid": ""}, "cpu": {"time": TIME, "usageCoreNanoSeconds": 1}},
        {"podRef": {"uid": "x"}},
        {"podRef": {"uid": "x"}, "cpu": {"time": TIME}},
        {"podRef": {"uid": "x"}, "cpu": {"time": "", "usageCoreNanoSeconds": 1}},
        {"podRef": {"uid": "x"}, "cpu": {"time": TIME, "usageCoreNanoSeconds": -1}},
        {"podRef": {"uid": 7}, "cpu": {"time": TIME, "usageCoreNanoSeconds": 1}},
        {"podRef": "x"},
        "x",
        None,
    ],
)
def test_a_pod_that_says_nothing_costs_itself_alone(pod: object) -> None:
    summary = summary_of("node-a", TIME, {UID: 3.0})
    summary["pods"].insert(0, pod)
    read = decode_summary(encoded(summary))
    assert read.cpu_times == {UID: CpuTime(3.0, AT)}
    assert read.ignored == 1


def test_no_pods_are_none() -> None:
    summary = summary_of("node-a", TIME, {})
    summary["pods"] = None
    assert decode_summary(encoded(summary)).cpu_times == {}
