"""Pods that kube-scheduler could not place, and why, as the conditions of the pods say. Refuses to advise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from extender.cluster.listeners import PodListener
from extender.cluster.status import ReadReport
from extender.pods import Pod

MOST: Final = 1000
"""Pods kept, some 1 KB each; others take their place once those are bound or gone."""


@dataclass(frozen=True, slots=True)
class UnplacedPod:
    """A pod, and what kube-scheduler said of it last."""

    uid: str
    namespace: str
    name: str
    reason: str  # of the condition PodScheduled, such as ``Unschedulable``
    message: str  # at most `extender.cluster.status.LONGEST_MESSAGE` characters


class Unplaced(PodListener):
    """Keeps the pods that the watch shows unbound and given up by kube-scheduler. Owned by the table's thread.

    Attributes:
        pods: by UID, those that were given up first at the front.
    """

    def __init__(self) -> None:
        self.pods: dict[str, UnplacedPod] = {}

    def pod_unplaced(self, pod: Pod, read: ReadReport) -> None:
        """kube-scheduler says that it could not place the pod."""
        metadata, report = pod.metadata, read()
        if metadata.uid in self.pods or len(self.pods) < MOST:
            self.pods[metadata.uid] = UnplacedPod(
                metadata.uid, metadata.namespace, metadata.name, report.unplaced or "", report.message or ""
            )

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """It was placed after all."""
        self.pods.pop(uid, None)

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        """It is gone."""
        self.pods.pop(uid, None)
