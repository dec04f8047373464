"""Nodes and pods for a test: made quickly, waited for, watched while they are bound, and wiped.

Times are of `time.monotonic` in this process, taken when the watch shows a bind.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote

import urllib3
from kubernetes import client
from kubernetes.utils import parse_quantity

from tests.control_plane.access import Manifest, request, send, stream
from tests.control_plane.cluster import FAKE_NODE

_PODS = "/api/v1/namespaces/default/pods"
_NODES = "/api/v1/nodes"
_PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
_POD_GROUPS = "/apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups"
_COLLECTIONS = {"Node": _NODES, "Pod": _PODS, "PriorityClass": _PRIORITY_CLASSES, "PodGroup": _POD_GROUPS}


def node(
    name: str,
    *,
    cpu: str = "32",
    memory: str = "256Gi",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A node that KWOK plays, whose metrics metrics-server finds at KWOK."""
    resources = {"cpu": cpu, "memory": memory, "pods": "110"}
    place = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    played = dict([FAKE_NODE])
    scraped = {"metrics.k8s.io/resource-metrics-path": f"/metrics/nodes/{name}/metrics/resource"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**place, **(labels or {})},
            "annotations": {**played, **scraped, **(annotations or {})},
        },
        "status": {"allocatable": resources, "capacity": resources},
    }


def pod(
    name: str,
    *,
    cpu: str = "100m",
    memory: str = "64Mi",
    scheduler: str = "default-scheduler",
    priority_class: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A pod of one container in the namespace default; KWOK runs it at once where it is bound."""
    container = {"name": "main", "image": "fake", "resources": {"requests": {"cpu": cpu, "memory": memory}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "schedulerName": scheduler,
            "containers": [container],
            **({"priorityClassName": priority_class} if priority_class else {}),
        },
    }


def priority_class(name: str, value: int) -> Manifest:
    """A PriorityClass; `wipe` removes it."""
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    return {**kind, "metadata": {"name": name}, "value": value}


def pod_group(name: str, pods: int, priority_class: str | None = None) -> Manifest:
    """A gang of so many pods, all of which must be placed at once; `wipe` marks it for deletion."""
    kind = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup"}
    spec: Manifest = {"schedulingPolicy": {"gang": {"minCount": pods}}}
    if priority_class:
        spec["priorityClassName"] = priority_class
    return {**kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def create(api: client.ApiClient, objects: Iterable[Manifest], threads: int = 4) -> float:
    """Create nodes, pods or priority classes.

    Returns:
        How long it took, in seconds.

    Raises:
        kubernetes.client.ApiException: the first that the API server refused.
    """
    waiting: queue.SimpleQueue[Manifest] = queue.SimpleQueue()
    for each in objects:
        waiting.put(each)
    errors: list[Exception] = []

    def work() -> None:
        try:
            while not errors:
                each = waiting.get_nowait()
                send(api, "POST", _COLLECTIONS[each["kind"]], each)
        except queue.Empty:
            pass
        except Exception as error:
            errors.append(error)  # raised in the caller's thread

    started = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return time.monotonic() - started


def create_nodes(api: client.ApiClient, nodes: Iterable[Manifest], timeout_s: float = 60.0) -> None:
    """Create nodes and wait until each is ready and has lost the taint that a new node carries.

    Raises:
        TimeoutError: some are not ready; with the first few names.
    """
    made = list(nodes)
    create(api, made)
    missing = {each["metadata"]["name"] for each in made}
    deadline = time.monotonic() + timeout_s
    while missing:
        missing -= {item["metadata"]["name"] for item in request(api, "GET", _NODES)["items"] if _usable(item)}
        if missing and time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} nodes not ready in {timeout_s:.0f} s: {sorted(missing)[:5]}")
        time.sleep(0.2 if missing else 0)


def remove_pods(api: client.ApiClient, timeout_s: float = 300.0, selector: str = "") -> None:
    """Delete the pods of the namespace default that a label selector chooses, and wait until they are gone.

    Raises:
        TimeoutError: some stay.
    """
    chosen = f"labelSelector={quote(selector)}"
    send(api, "DELETE", f"{_PODS}?gracePeriodSeconds=0&{chosen}")
    _wait_until_empty(api, (f"{_PODS}?{chosen}",), timeout_s)


def wipe(api: client.ApiClient, timeout_s: float = 60.0) -> None:
    """Delete all pods and pod groups of the namespace default, all nodes, and the priority classes that tests made.

    Raises:
        TimeoutError: something stays.
    """
    for collection in (_PODS, _NODES, _POD_GROUPS):
        send(api, "DELETE", f"{collection}?gracePeriodSeconds=0")
    for item in request(api, "GET", _PRIORITY_CLASSES)["items"]:
        if not item["metadata"]["name"].startswith("system-"):
            send(api, "DELETE", f"{_PRIORITY_CLASSES}/{item['metadata']['name']}")
    _wait_until_empty(api, (_PODS, _NODES), timeout_s)


def _wait_until_empty(api: client.ApiClient, collections: Iterable[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(
        request(api, "GET", f"{collection}{'&' if '?' in collection else '?'}limit=1")["items"]
        for collection in collections
    ):
        if time.monotonic() > deadline:
            raise TimeoutError(f"objects stay in {', '.join(collections)} after {timeout_s:.0f} s")
        time.sleep(0.1)


def node_usage(api: client.ApiClient) -> dict[str, tuple[float, float]]:
    """What metrics-server says each node uses, as `kubectl top nodes` asks: node -> (cores, GiB)."""
    answer = request(api, "GET", "/apis/metrics.k8s.io/v1beta1/nodes")
    return {
        item["metadata"]["name"]: (
            _number(item["usage"]["cpu"]),
            _number(item["usage"]["memory"]) / 2**30,
        )
        for item in answer["items"]
    }


@dataclass(frozen=True)
class Bind:
    """A pod that kube-scheduler (or an extender) has given a node."""

    node: str
    at: float
    """Seconds of time.monotonic."""


class Binds:
    """Watches the pods of the namespace default from the moment the block is entered; survives an API server's absence.

    A pod that was already bound then is not counted.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._changed = threading.Condition()
        self._bound: dict[str, Bind] = {}
        self._before: frozenset[str] = frozenset()
        self._version = ""
        self._stopping = threading.Event()
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name="binds", daemon=True)

    def __enter__(self) -> "Binds":
        """List once, then watch in a thread."""
        listed = request(self._api, "GET", _PODS)
        self._before = frozenset(each["metadata"]["uid"] for each in listed["items"] if _node_of(each))
        self._version = listed["metadata"]["resourceVersion"]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch."""
        with self._changed:
            self._stopping.set()
            if self._answer is not None:
                # The API server ended this watch meanwhile: its socket is closed, or its connection given back.
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    self._answer.shutdown()
        self._thread.join()

    @property
    def bound(self) -> dict[str, Bind]:
        """Pod name -> where and when it was bound, in the order the watch showed."""
        with self._changed:
            return dict(self._bound)

    def wait(self, pods: Iterable[str], timeout_s: float = 60.0) -> dict[str, Bind]:
        """Wait until all these pods are bound.

        Returns:
            Those pods' binds.

        Raises:
            TimeoutError: some are not; with kube-scheduler's reason for the first few.
        """
        names = list(pods)
        with self._changed:
            if not self._changed.wait_for(lambda: all(name in self._bound for name in names), timeout_s):
                missing = [name for name in names if name not in self._bound]
                raise TimeoutError(
                    f"{len(missing)} of {len(names)} pods not bound in {timeout_s:.0f} s:\n"
                    + "\n".join(f"{name}: {pending_reason(self._api, name)}" for name in missing[:5])
                )
            return {name: self._bound[name] for name in names}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._version:
                    listed = request(self._api, "GET", _PODS)
                    for each in listed["items"]:
                        self._note(each)
                    self._version = listed["metadata"]["resourceVersion"]
                self._watch()
            except Exception as error:
                # a TLS connection that is shut down under a reader gives it anything, ciphertext too
                if self._stopping.is_set():
                    return
                if not isinstance(error, client.ApiException | urllib3.exceptions.HTTPError | OSError):
                    raise
                # the API server is away, or the version too old: list again
                self._version = ""
                time.sleep(0.2)

    def _watch(self) -> None:
        path = f"{_PODS}?watch=1&allowWatchBookmarks=true&resourceVersion={self._version}"
        answer = stream(self._api, path)
        try:
            with self._changed:
                if self._stopping.is_set():
                    return
                self._answer = answer
            for line in answer:
                if self._stopping.is_set():
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._version = ""
                    return
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._note(event["object"])
        finally:
            with self._changed:
                self._answer = None
            answer.close()

    def _note(self, item: Manifest) -> None:
        where, name = _node_of(item), item["metadata"]["name"]
        if where and item["metadata"]["uid"] not in self._before:
            with self._changed:
                if name not in self._bound:
                    self._bound[name] = Bind(where, time.monotonic())
                    self._changed.notify_all()


def pending_reason(api: client.ApiClient, name: str) -> str:
    """Why kube-scheduler says a pod is not scheduled."""
    for condition in request(api, "GET", f"{_PODS}/{name}").get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "no kube-scheduler has looked at it"


def _node_of(item: Manifest) -> str:
    return str(item["spec"].get("nodeName", ""))


def _number(quantity: str) -> float:
    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _usable(item: Manifest) -> bool:
    conditions = {each["type"]: each["status"] for each in item["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not item["spec"].get("taints")
