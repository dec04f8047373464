"""Pods of Jobs as an API server shows them once they have completed."""

from __future__ import annotations

from typing import Any

from tests.extender.cluster.fake_kubelet import time_of


def completed(
    uid: str, node: str, start: float, life: float, init: float = 0.0, template: str = "job", **status: Any
) -> dict[str, Any]:
    """A pod that succeeded.

    Args:
        uid: of the pod.
        node: where it ran.
        start: when it began to run, seconds since the epoch.
        life: how long it ran, seconds, the first `init` of them in an init container.
        init: see there.
        template: name of the Job that owns it, without a generated ending.
        status: fields that replace those of its status.
    """

    def state(begin: float, end: float) -> dict[str, Any]:
        terminated = {"exitCode": 0, "startedAt": time_of(begin), "finishedAt": time_of(end)}
        return {"name": "c", "restartCount": 0, "state": {"terminated": terminated}}

    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"{template}-29384756", "uid": "j", "controller": True}
    requests = {"cpu": "100m", "memory": "100Mi"}
    return {
        "metadata": {"name": f"{template}-{uid}", "namespace": "default", "uid": uid, "ownerReferences": [owner]},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "work", "resources": {"requests": requests}}],
        },
        "status": {
            "phase": "Succeeded",
            "startTime": time_of(start - 60.0),
            "containerStatuses": [state(start + init, start + life)],
            **({"initContainerStatuses": [state(start, start + init)]} if init else {}),
            **status,
        },
    }
