"""What happens to pods, told to whoever subscribed. Refuses to know what the listeners make of it.

The table tells what it establishes itself: a pod is bound for the first time, is gone, or never came where it was
assumed to go. What a pod's status says comes from the receivers directly, because the table reads no status.
Everything is told on the thread that owns the table, in the order in which it is established.
"""

from __future__ import annotations

from typing import Protocol

from extender.cluster.status import ReadReport
from extender.pods import Pod


class PodListener(Protocol):
    """Is told what became of pods; called on the table's thread, and must not change the table.

    In `pod_placed` alone it may, because that is told before the table changes. A listener that needs only some of the
    calls derives from this class: what it leaves out does nothing.
    """

    def pod_placed(self, pod: Pod, node: str) -> None:
        """A pod that the watch showed waiting for our scheduler is on this node; told before `pod_bound`."""
        return

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """The watch shows the pod on this node for the first time."""
        return

    def pod_reported(self, uid: str, read: ReadReport) -> None:
        """The watch shows the pod, bound or not; `read` tells what its status says."""
        return

    def pod_unplaced(self, pod: Pod, read: ReadReport) -> None:
        """kube-scheduler says of a pod that waits for us that it could not place it; `read` tells why."""
        return

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        """The pod is gone, or ended; `reason` is one of `extender.cluster.status.ENDINGS`."""
        return

    def assumption_expired(self, uid: str, node: str, at: float) -> None:
        """The pod was assumed to go to this node, and the watch never showed it anywhere."""
        return


class PodListeners(PodListener):
    """All who listen, told in the order in which they subscribed."""

    def __init__(self) -> None:
        self._listeners: list[PodListener] = []

    def subscribe(self, listener: PodListener) -> None:
        """Tell `listener` too, from now on."""
        self._listeners.append(listener)

    def pod_placed(self, pod: Pod, node: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.pod_placed(pod, node)

    def pod_bound(self, uid: str, node: str, at: float) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.pod_bound(uid, node, at)

    def pod_reported(self, uid: str, read: ReadReport) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.pod_reported(uid, read)

    def pod_unplaced(self, pod: Pod, read: ReadReport) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.pod_unplaced(pod, read)

    def pod_removed(self, uid: str, reason: str, at: float) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.pod_removed(uid, reason, at)

    def assumption_expired(self, uid: str, node: str, at: float) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.assumption_expired(uid, node, at)
