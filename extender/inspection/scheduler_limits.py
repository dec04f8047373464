"""Values of a KubeSchedulerConfiguration with which kube-scheduler would not start, whichever extender it calls.

Sources, of Kubernetes 1.34 to 1.37: pkg/scheduler/apis/config/validation/validation.go, config/v1/defaults.go,
k8s.io/component-base/config/validation/validation.go, and tools/leaderelection of client-go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from extender.inspection.scheduler_file import Entry, entries
from extender.quantities import duration
from policy.errors import InvalidInputError

LEASE: Final = {"leaseDuration": 15.0, "renewDeadline": 10.0, "retryPeriod": 2.0}
"""Durations of the election and their defaults, seconds."""
JITTER: Final = 1.2
"""tools/leaderelection, JitterFactor."""


class Problem(NamedTuple):
    """A value that is refused: its field, what is wrong with it, and what to do."""

    field: str
    told: str
    fix: str


def problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Say what kube-scheduler would refuse. Fields of another type than it takes are passed over."""
    root = Entry("", document)
    profiles = entries("profiles", document.get("profiles"))
    yield from _outside(root, "parallelism", 16, 1, None)
    for entry in (root, *profiles):
        yield from _outside(entry, "percentageOfNodesToScore", 0, 0, 100)
    yield from _outside(root, "podInitialBackoffSeconds", 1, 1, None)
    first = root.get("podInitialBackoffSeconds", int, 1)
    yield from _outside(root, "podMaxBackoffSeconds", 10, first, None)
    yield from _outside(Entry("clientConnection", root.get("clientConnection", dict, {})), "burst", 100, 0, None)
    yield from _lease(Entry("leaderElection", root.get("leaderElection", dict, {})))
    yield from _profiles(profiles)
    yield from _managed(document)


def _outside(entry: Entry, field: str, default: int, least: int, most: int | None) -> Iterator[Problem]:
    value = entry.get(field, int, default)
    if value < least or (most is not None and value > most):
        fix = f"give at least {least}" if most is None else f"give {least} to {most}"
        yield Problem(f"{entry.name}.{field}".lstrip("."), f"is {value}: kube-scheduler would not start", fix)


def _lease(election: Entry) -> Iterator[Problem]:
    if not election.get("leaderElect", bool, True):
        return
    lock = election.get("resourceLock", str, "leases")
    if lock != "leases":
        yield Problem(
            f"{election.name}.resourceLock", f"is {lock[:40]!a}: kube-scheduler would not start", "leave it out"
        )
    seconds = {}
    for field, default in LEASE.items():
        text = election.fields.get(field)
        try:
            seconds[field] = duration(text.strip()) if isinstance(text, str) else default
        except InvalidInputError:
            seconds[field] = 0.0
        if not seconds[field] > 0.0:
            told = f"is {text!a:.40}: kube-scheduler would not start"
            yield Problem(f"{election.name}.{field}", told, f"give a duration above 0, such as {default:g}s")
            return
    lease, deadline, period = seconds.values()
    if lease <= deadline:
        told = f"is {deadline:g} s, and leaseDuration {lease:g} s: kube-scheduler would not start"
        yield Problem(f"{election.name}.renewDeadline", told, "give less than leaseDuration")
    if deadline <= JITTER * period:
        told = f"is {period:g} s, and renewDeadline {deadline:g} s: kube-scheduler would not start"
        yield Problem(f"{election.name}.retryPeriod", told, f"give less than renewDeadline / {JITTER:g}")


def _profiles(profiles: list[Entry]) -> Iterator[Problem]:
    for profile in profiles:
        name = profile.fields.get("schedulerName")
        if name == "" or (name is None and len(profiles) > 1):
            told = "is empty: kube-scheduler would not start"
            yield Problem(f"{profile.name}.schedulerName", told, "give each profile a name of its own")
        configured = [each.get("name", str, "") for each in entries("", profile.fields.get("pluginConfig"))]
        if len(set(configured)) < len(configured):
            told = "configures a plugin twice: kube-scheduler would not start"
            yield Problem(f"{profile.name}.pluginConfig", told, "configure each plugin once")
    queues = [_queue(profile) for profile in profiles]
    if any(queue != queues[0] for queue in queues):
        told = "differs between profiles, and there is one queue: kube-scheduler would not start"
        yield Problem("profiles[].plugins.queueSort", told, "give all profiles the same")


def _queue(profile: Entry) -> tuple[list[Any], list[Any]]:
    """Which plugins sort the queue: what the profile disables and enables there."""
    plugins = profile.get("plugins", dict, {})
    chosen = plugins.get("queueSort")
    sets = chosen if isinstance(chosen, dict) else {}
    return list(sets.get("disabled") or ()), list(sets.get("enabled") or ())


def _managed(document: Mapping[str, Any]) -> Iterator[Problem]:
    seen: set[str] = set()
    for extender in entries("extenders", document.get("extenders")):
        for resource in entries(f"{extender.name}.managedResources", extender.fields.get("managedResources")):
            name = resource.get("name", str)
            if name is None:
                continue
            if "/" not in name or "kubernetes.io/" in name or name.startswith("requests."):
                told = f"is {name[:60]!a}, which is no extended resource: kube-scheduler would not start"
                yield Problem(f"{resource.name}.name", told, "name one such as example.com/device")
            elif name in seen:
                told = f"is {name[:60]!a} again: kube-scheduler would not start"
                yield Problem(f"{resource.name}.name", told, "name each resource once, in one extender")
            seen.add(name)
