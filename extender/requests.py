"""What a pod requests as a whole, as kube-scheduler sums it.

The sum over containers is that of k8s.io/component-helpers/resource/helpers.go (`PodRequests`): the larger of what runs
(containers and restartable init containers) and what starts (each init container with the restartable ones before it);
requests of the pod as a whole replace it; overhead comes on top.

While a pod is resized in place its spec says what is wanted, and its status what is allocated and what it runs with.
kube-scheduler counts the largest of the three (`UseStatusResources`, on by default from 1.33), and leaves what is
wanted out where the kubelet calls it infeasible. Which parts of the status count differs between minor versions: see
`RequestRules`. Left out: resources of ResourceClaims (DRANodeAllocatableResources, alpha).

Beside each sum stands the non-zero request, which scores count: a container that does not say how much of a resource it
requests counts as 100m and 200 MiB (kubernetes pkg/scheduler/util/pod_resources.go). A request of zero is a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from extender.pods import GIB, RESTARTABLE, Container, ContainerStatus, Pod, Requests
from extender.quantities import NANO, nano_units
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY
from policy.errors import InvalidQuantityError

RESIZE_PENDING: Final = "PodResizePending"
"""Condition of a pod whose resize the kubelet has not begun."""

INFEASIBLE: Final = "Infeasible"
"""Reason of that condition where the node will never be able to."""

_MISSING: Final = {"cpu": round(NONZERO_CPU * NANO), "memory": round(NONZERO_MEMORY * GIB) * NANO}
_GRAIN: Final = {"cpu": NANO // 1000, "memory": NANO}
"""A pod counts in whole thousandths of a core and whole bytes, rounded up, as in kube-scheduler's NodeInfo."""


@dataclass(frozen=True, slots=True)
class RequestRules:
    """What a minor version of kube-scheduler counts of a pod's status, its feature gates at their defaults."""

    # whether `status.resources` and `status.allocatedResources` of the pod count
    # (InPlacePodLevelResourcesVerticalScaling, beta from 1.36)
    pod_level: bool
    # whether the largest of three sums counts (wanted, allocated, actual; from 1.37), or the sum of each container's
    # largest
    aggregated: bool


RULES: Final[Mapping[str, RequestRules]] = {
    "1.34": RequestRules(pod_level=False, aggregated=False),
    "1.35": RequestRules(pod_level=False, aggregated=False),
    "1.36": RequestRules(pod_level=True, aggregated=False),
    "1.37": RequestRules(pod_level=True, aggregated=True),
}
"""By minor version of Kubernetes, oldest first."""

NEWEST: Final = RULES["1.37"]


class PodRequests(NamedTuple):
    """What a pod requests as a whole: CPU in cores, memory in GiB; `nonzero`: what scores count."""

    cpu: float
    memory: float
    cpu_nonzero: float
    memory_nonzero: float


def pod_requests(pod: Pod, rules: RequestRules = NEWEST, *, bound: bool = False) -> PodRequests:
    """Return what the pod requests as a whole.

    Args:
        pod: the pod.
        rules: what counts of its status.
        bound: sum as for a pod on a node (`PodInfo.CalculateResource` in pkg/scheduler/framework/types.go), not as for
            one that is being scored. They differ for a pod with requests of its own whose containers request the other
            resource in part: on a node it counts as they say.

    Raises:
        InvalidQuantityError: a quantity does not parse or is negative; the message names its JSON path.
    """
    spec = pod.spec
    stays = [each.restart_policy == RESTARTABLE for each in spec.init_containers] if spec.init_containers else ()
    resize = None if _is_settled(pod) else _Resize(pod, rules, stays)
    cpu, cpu_nonzero = _totals(pod, "cpu", stays, resize, bound)
    memory, memory_nonzero = _totals(pod, "memory", stays, resize, bound)
    return PodRequests(cpu / NANO, memory / NANO / GIB, cpu_nonzero / NANO, memory_nonzero / NANO / GIB)


def _is_settled(pod: Pod) -> bool:
    """Whether the status says nothing that the spec does not say: so it is for nearly every pod, and quickly found."""
    status = pod.status
    if status.resources is not None or status.allocated_resources is not None or _is_infeasible(pod):
        return False
    if status.container_statuses is None and status.init_container_statuses is None:
        return True
    for containers, statuses in (
        (pod.spec.containers, status.container_statuses),
        (pod.spec.init_containers, status.init_container_statuses),
    ):
        if not statuses:
            continue
        wanted = {each.name: each.resources.requests if each.resources else None for each in containers or ()}
        for told in statuses:
            of, actual = wanted.get(told.name), told.resources.requests if told.resources else None
            if any(each is not None and each != of for each in (actual, told.allocated_resources)):
                return False
    return True


def _is_infeasible(pod: Pod) -> bool:
    """Whether the kubelet says that the node cannot do the resize that the spec wants (`IsPodResizeInfeasible`)."""
    for condition in pod.status.conditions or ():
        if condition.type == RESIZE_PENDING:
            return condition.reason == INFEASIBLE
    return False


Lists = tuple[Sequence[int | None], Sequence[int | None]]
"""Requests of containers and of init containers, billionths of a core or byte; None where one does not say."""


def _totals(pod: Pod, resource: str, stays: Sequence[bool], resize: _Resize | None, bound: bool) -> tuple[int, int]:
    """Request and non-zero request of the pod, in billionths of a core or byte, rounded up."""
    spec, missing = pod.spec, _MISSING[resource]
    wanted = _wanted(spec.containers, "containers", resource), _wanted(spec.init_containers, "initContainers", resource)
    lists, whole = ([wanted], []) if resize is None else resize.counted(wanted, resource)
    if resize is None and not stays:
        total = nonzero = 0
        for said in wanted[0]:
            total += said or 0
            nonzero += missing if said is None else said
    else:
        total, nonzero = (
            max((*whole, *(_sum(each, stays, default) for each in lists)), default=0) for default in (0, missing)
        )
    over = None if spec.overhead is None else _nano(spec.overhead, resource, "spec.overhead")
    level = spec.resources.requests if spec.resources else None
    if level is not None and (level.cpu is not None or level.memory is not None):
        own = _nano(level, resource, "spec.resources.requests")
        if resize is not None:
            own = resize.own(own, resource)
        if own is not None:
            total = nonzero = own
        elif bound and any(each is not None for pair in ((whole, (over,)), *lists) for said in pair for each in said):
            nonzero = total
    if over is not None:
        total, nonzero = total + over, nonzero + over
    grain = _GRAIN[resource]
    return -(-total // grain) * grain, -(-nonzero // grain) * grain


class _Resize:
    """What the status of a pod says of its resources, where that is not what its spec says.

    Args:
        stays: for each init container, whether it keeps running: a sidecar.
    """

    def __init__(self, pod: Pod, rules: RequestRules, stays: Sequence[bool]) -> None:
        status = pod.status
        self._rules = rules
        self._infeasible = _is_infeasible(pod)
        self._allocated = status.allocated_resources
        self._actual = None if status.resources is None else status.resources.requests
        self._reports = status.resources is not None
        told: dict[str, tuple[ContainerStatus, str]] = {}
        for name, statuses in (
            ("containerStatuses", status.container_statuses),
            ("initContainerStatuses", status.init_container_statuses),
        ):
            for i, each in enumerate(statuses or ()):
                told.setdefault(each.name, (each, f"status.{name}[{i}]"))
        self._told = tuple(
            [told.get(each.name) for each in containers or ()]
            for containers in (pod.spec.containers, pod.spec.init_containers)
        )
        self._resizable = [True] * len(self._told[0]), stays

    def counted(self, wanted: Lists, resource: str) -> tuple[list[Lists], list[int]]:
        """What containers come to counts the largest of (`AggregateContainerRequests`).

        Returns:
            Lists to sum, and sums that the status says itself.
        """
        if not self._rules.aggregated:
            return [self._each(wanted, resource, self._effective)], []
        spec = [] if self._infeasible else [wanted]
        if self._rules.pod_level and self._allocated is not None and self._actual is not None:
            allocated = _nano(self._allocated, resource, "status.allocatedResources")
            actual = _nano(self._actual, resource, "status.resources.requests")
            return spec, [each for each in (allocated, actual) if each is not None]
        allocated_each = self._each(wanted, resource, self._set_aside)
        return [*spec, allocated_each, self._each(wanted, resource, self._actuated)], []

    def own(self, wanted: int | None, resource: str) -> int | None:
        """What counts of the pod's own requests, of which the spec wants so much (`PodRequests`)."""
        if not self._rules.pod_level or not self._reports:
            return wanted
        largest = _largest(
            None if self._infeasible else wanted,
            _nano(self._allocated, resource, "status.allocatedResources"),
            _nano(self._actual, resource, "status.resources.requests"),
        )
        if self._rules.aggregated:
            return largest
        return None if wanted is None else largest or 0

    def _each(self, wanted: Lists, resource: str, read: _Read) -> Lists:
        """What `read` says of each container and init container."""
        containers, starting = (
            [read(request, of, may, resource) for request, of, may in zip(requests, told, resizable, strict=True)]
            for requests, told, resizable in zip(wanted, self._told, self._resizable, strict=True)
        )
        return containers, starting

    def _effective(self, wanted: int | None, told: _Told, resizable: bool, resource: str) -> int | None:
        """What counts up to 1.36, where the status says with what the container runs."""
        if told is None or told[0].resources is None or not resizable:
            return wanted
        status, path = told
        return _largest(
            None if self._infeasible else wanted,
            _nano(told[0].resources.requests, resource, f"{path}.resources.requests"),
            _nano(status.allocated_resources, resource, f"{path}.allocatedResources"),
        )

    def _set_aside(self, wanted: int | None, told: _Told, resizable: bool, resource: str) -> int | None:
        """What the kubelet allocated; what is wanted where it does not say (`containerAllocatedRequests`)."""
        if told is not None and told[0].allocated_resources is not None:
            return _nano(told[0].allocated_resources, resource, f"{told[1]}.allocatedResources")
        return None if self._infeasible else wanted

    def _actuated(self, wanted: int | None, told: _Told, resizable: bool, resource: str) -> int | None:
        """What the container runs with; what is allocated where that is not said (`containerActuatedRequests`)."""
        if told is not None and told[0].resources is not None and told[0].resources.requests is not None:
            return _nano(told[0].resources.requests, resource, f"{told[1]}.resources.requests")
        return self._set_aside(wanted, told, resizable, resource)


_Told = tuple[ContainerStatus, str] | None
"""The status of a container, and where it stands in the pod."""

_Read = Callable[[int | None, _Told, bool, str], int | None]
"""Reads a request of a container: wanted, its status, whether it may be resized up to 1.36, of which resource."""


def _wanted(containers: Sequence[Container] | None, name: str, resource: str) -> list[int | None]:
    """Requests of the spec."""
    found = []
    for i, each in enumerate(containers or ()):
        given = each.resources.requests if each.resources else None
        value = None if given is None else getattr(given, resource)
        found.append(
            None if value is None else _quantity(value, "spec.{}[{}].resources.requests.{}", name, i, resource)
        )
    return found


def _sum(requests: Lists, stays: Sequence[bool], missing: int) -> int:
    """The larger of what runs and what starts; `missing` counts where a container does not say."""
    running = 0
    for said in requests[0]:
        running += missing if said is None else said
    beside = most = 0
    for said, sidecar in zip(requests[1], stays, strict=True):
        request = missing if said is None else said
        most = max(most, beside + request)
        if sidecar:
            beside += request
    return max(running + beside, most)


def _largest(*amounts: int | None) -> int | None:
    return max((each for each in amounts if each is not None), default=None)


def _nano(requests: Requests | None, resource: str, path: str) -> int | None:
    """The quantity in billionths; None where there is none. `path` is where the requests stand in the pod."""
    value = None if requests is None else getattr(requests, resource)
    return None if value is None else _quantity(value, "{}.{}", path, resource)


def _quantity(value: str | float, path: str, *parts: object) -> int:
    """The quantity in billionths; `path`, with the parts put in, is where it stands: told only where it is wrong."""
    try:
        nano = nano_units(value if isinstance(value, str) else repr(value))
    except InvalidQuantityError as error:
        raise InvalidQuantityError(f"Pod.{path.format(*parts)}: {error}") from error
    if nano < 0:
        raise InvalidQuantityError(f"Pod.{path.format(*parts)}: {value!r} is negative; a request must be >= 0")
    return nano
