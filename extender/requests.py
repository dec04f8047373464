"""What a pod requests as a whole, as kube-scheduler sums it.

The sum over containers is that of k8s.io/component-helpers/resource/helpers.go (`PodRequests`): the larger of what runs
(containers and restartable init containers) and what starts (each init container with the restartable ones before it);
requests of the pod as a whole replace it; overhead comes on top.

Beside it stands the non-zero request, which scores count: a container that does not say how much of a resource it
requests counts as 100m and 200 MiB (kubernetes pkg/scheduler/util/pod_resources.go). A request of zero is a request.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from extender.pods import GIB, RESTARTABLE, Pod, Resources, Spec
from extender.quantities import NANO, nano_units
from policy.cluster import NONZERO_CPU, NONZERO_MEMORY
from policy.errors import InvalidQuantityError


class PodRequests(NamedTuple):
    """What a pod requests as a whole: CPU in cores, memory in GiB; `nonzero`: what scores count."""

    cpu: float
    memory: float
    cpu_nonzero: float
    memory_nonzero: float


def pod_requests(pod: Pod) -> PodRequests:
    """What the pod requests as a whole.

    Raises:
        InvalidQuantityError: a quantity does not parse or is negative; the message names its JSON path.
    """
    cpu, cpu_nonzero = _total(pod.spec, "cpu", _NANO_CPU)
    memory, memory_nonzero = _total(pod.spec, "memory", _NANO_MEMORY)
    return PodRequests(cpu / NANO, memory / NANO / GIB, cpu_nonzero / NANO, memory_nonzero / NANO / GIB)


_NANO_CPU: Final = round(NONZERO_CPU * NANO)
_NANO_MEMORY: Final = round(NONZERO_MEMORY * GIB) * NANO


def _total(spec: Spec, resource: str, missing: int) -> tuple[int, int]:
    """Requests and non-zero requests in billionths of a core or byte; `missing` counts for who does not say."""
    running = running_nonzero = 0
    for i, container in enumerate(spec.containers or ()):
        asked = _asked(container.resources, resource, "spec.containers[{}].resources.requests", i)
        running += asked or 0
        running_nonzero += missing if asked is None else asked
    total, nonzero = running, running_nonzero
    if spec.init_containers:
        sidecars = sidecars_nonzero = starting = starting_nonzero = 0
        for i, container in enumerate(spec.init_containers):
            found = _asked(container.resources, resource, "spec.initContainers[{}].resources.requests", i)
            asked, asked_nonzero = found or 0, missing if found is None else found
            starting = max(starting, sidecars + asked)
            starting_nonzero = max(starting_nonzero, sidecars_nonzero + asked_nonzero)
            if container.restart_policy == RESTARTABLE:
                sidecars += asked
                sidecars_nonzero += asked_nonzero
        total = max(running + sidecars, starting)
        nonzero = max(running_nonzero + sidecars_nonzero, starting_nonzero)
    whole = _asked(spec.resources, resource, "spec.resources.requests")
    if whole is not None:
        total = nonzero = whole
    if spec.overhead:
        over = _nano(getattr(spec.overhead, resource), resource, "spec.overhead") or 0
        total, nonzero = total + over, nonzero + over
    return total, nonzero


def _asked(resources: Resources | None, resource: str, path: str, position: int = 0) -> int | None:
    if resources is None or resources.requests is None:
        return None
    return _nano(getattr(resources.requests, resource), resource, path, position)


def _nano(value: str | float | None, resource: str, path: str, position: int = 0) -> int | None:
    """The quantity in billionths; `path`, with the position put in, is where it stands: told only where it is wrong."""
    if value is None:
        return None
    try:
        nano = nano_units(value if isinstance(value, str) else repr(value))
    except InvalidQuantityError as error:
        raise InvalidQuantityError(f"Pod.{path.format(position)}.{resource}: {error}") from error
    if nano < 0:
        where = f"Pod.{path.format(position)}.{resource}"
        raise InvalidQuantityError(f"{where}: {value!r} is negative; a request must be >= 0")
    return nano
