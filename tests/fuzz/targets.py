"""What is fuzzed: every decoder of bytes from outside, and what becomes of its result. A foreign error is a find.

A target is a table of decoders by name; the first byte of an input chooses one, the rest is its input.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from extender.cluster import decoding
from extender.cluster.api import ApiServer
from extender.cluster.completed import CompletedPods
from extender.cluster.machines import SpeedRules
from extender.cluster.metrics_server import MetricsServer
from extender.cluster.receivers import NodeChanges, PodChanges
from extender.cluster.series import values_of
from extender.cluster.table import ClusterTable
from extender.demand import pod_demand
from extender.protocol import wire
from extender.settings import Settings
from policy.errors import SchedulerError
from policy.urgency import UrgencyRules

Decoder = Callable[[bytes], object]
SLOWEST_S: Final = 1.0
"""CPU time of one input of at most 16 KiB beyond which it is a find; wall-clock time says little on a busy machine."""
RULES: Final = UrgencyRules({}, Settings().urgency_by_qos)


def scheduling(body: bytes) -> None:
    """`/filter` and `/prioritize`: the answer is JSON and names what was sent; the demand is a number."""
    request = wire.decode_scheduling(body)
    answer = _as_go_reads(wire.encode_filter(request))
    if answer is None:
        return
    if answer["Nodes"] is None and answer["NodeNames"] is None:
        raise AssertionError("an answer that rejects every node")
    if answer["NodeNames"] is not None and answer["NodeNames"] != request.names:
        raise AssertionError("other names than were sent")
    demand = pod_demand(request.pod, RULES).demand
    if not all(math.isfinite(value) and value >= 0.0 for value in (demand.cpu, demand.memory, demand.urgency)):
        raise AssertionError(f"no demand: {demand}")


def preemption(body: bytes) -> None:
    """`/preempt`: every victim is in the answer, which is JSON."""
    request = wire.decode_preemption(body)
    answer = json.loads(wire.encode_preemption(request))["NodeNameToMetaVictims"]
    if {node: len(victims["Pods"]) for node, victims in answer.items()} != {
        node: len(uids) for node, (uids, _) in request.victims.items()
    }:
        raise AssertionError("a victim was lost")


def binding(body: bytes) -> None:
    """`/bind`."""
    found = wire.decode_binding(body)
    if not all((found.namespace, found.name, found.uid, found.node)):
        raise AssertionError("a part is empty")


def page(body: bytes) -> None:
    """A page of a list, and whatever its items are."""
    for item in decoding.decode_page(body).items or ():
        _any_object(item)


def event(body: bytes) -> None:
    """A line of a watch, and whatever its object is."""
    found = decoding.decode_event(body)
    if found.type == "BOOKMARK":
        decoding.decode_bookmark(found.object)
    elif found.type == "ERROR":
        decoding.decode_failure(found.object)
    else:
        _any_object(found.object)


def pod(body: bytes) -> None:
    """A pod, into a table and out of it."""
    table = ClusterTable(capacity=2)
    received = decoding.decode_pod(msgspec.Raw(body))
    changes = PodChanges(table, lambda change: change(), completed=CompletedPods(None, lambda _: None))
    table.upsert_node(received.spec.node_name or "n", 4.0, 8.0)
    changes.present(received)
    _finite(table)
    changes.absent(received)
    if table.pod_count or float(table.state.cpu_requested.sum()):
        raise AssertionError("a pod that is gone still counts")


def node(body: bytes) -> None:
    """A node, into a table and out of it."""
    table = ClusterTable(capacity=2)
    changes = NodeChanges(table, lambda change: change(), SpeedRules())
    received = decoding.decode_node(msgspec.Raw(body))
    changes.present(received)
    _finite(table)
    changes.absent(received)
    if table.node_count:
        raise AssertionError("a node that is gone is still known")


class _Answering(ApiServer):
    """An API server that answers with these bytes."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get(self, path: str, query: Any = None) -> bytes:
        """Whatever is asked."""
        return self.body


def metrics(body: bytes) -> None:
    """The answer of metrics-server, into a table."""
    table = ClusterTable(capacity=2)
    table.upsert_node("a", 4.0, 8.0)
    for use in MetricsServer(_Answering(body)).read().uses:
        table.set_usage("a", use.cpu, use.memory, use.pressure, use.begin)
    _finite(table)


def series(body: bytes) -> None:
    """An answer of Prometheus."""
    found = values_of(200, body, "node")
    if not all(math.isfinite(value) for value in found.by_node.values()):
        raise AssertionError("a value is no number")


WIRE: Final[dict[str, Decoder]] = {"scheduling": scheduling, "preemption": preemption, "binding": binding}
OBJECTS: Final[dict[str, Decoder]] = {
    "page": page,
    "event": event,
    "pod": pod,
    "node": node,
    "metrics": metrics,
    "series": series,
}
TARGETS: Final = {"wire": WIRE, "objects": OBJECTS}


def one_input(target: str, data: bytes) -> None:
    """Give one input to the decoder that its first byte chooses; our own errors are its right."""
    decoders = list(TARGETS[target].values())
    began = time.process_time()
    with contextlib.suppress(SchedulerError):
        decoders[(data[0] if data else 0) % len(decoders)](data[1:])
    taken = time.process_time() - began
    if taken > SLOWEST_S:
        raise AssertionError(f"{len(data)} bytes took {taken:.1f} s of CPU time")


def _as_go_reads(answer: bytes) -> Any:
    """JSON with what is no UTF-8 replaced: whole nodes go back as they came, and Go takes them; None if nested deep."""
    try:
        return json.loads(answer.decode(errors="replace"))
    except RecursionError:
        return None


def _any_object(raw: msgspec.Raw) -> None:
    for decode in (pod, node):
        try:
            decode(bytes(raw))
        except SchedulerError:
            continue


def _finite(table: ClusterTable) -> None:
    state = table.state
    for column in (state.cpu_requested, state.memory_requested, state.cpu_used, state.memory_used, state.node_speed):
        if not all(math.isfinite(value) and value >= 0.0 for value in column.tolist()):
            raise AssertionError("the table holds what no node can have")
