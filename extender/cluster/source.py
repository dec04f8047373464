"""Where knowledge of the cluster comes from: the protocol every source keeps. Refuses to know Kubernetes.

A source has one job: keep a `ClusterTable` equal to some cluster. The rules, for whoever writes one:

1. `start(table)` runs on the event loop that owns the table, starts the work in the background and returns at once; it
   does not wait for the first list. `stop()` ends everything that `start` began and waits for it.
2. The table is changed on that event loop alone. A source that works in threads decodes there and hands batches over
   with ``loop.call_soon_threadsafe(apply, batch)``, where `apply` calls the table's methods; a source that works in
   coroutines calls them directly. Either way at most `BATCH` changes come between two turns of the loop, because
   requests wait meanwhile.
3. After a list (the first one, or a re-list on 410) the source calls `table.keep_only_nodes` and
   `table.keep_only_pods` with what the list held, so that objects deleted while nobody watched disappear.
4. Losing the connection changes nothing in the table: scores go on with what is known, and `staleness` grows.
5. Pods that ended (phase Succeeded or Failed) hold no resources: report them with `table.pod_removed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from extender.cluster.table import ClusterTable
from extender.supervision import Supervisor

BATCH: Final = 500
"""Most changes applied to the table between two turns of the event loop; about 2 ms of work."""

INPUTS: Final = ("nodes", "pods", "usage")
"""The inputs whose staleness is reported."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One pod to bind, as kube-scheduler asks it of `/bind`."""

    namespace: str
    name: str
    uid: str  # its UID; the API server refuses the binding if the pod was replaced meanwhile
    node: str


@dataclass(frozen=True, slots=True)
class PodNote:
    """Something to be said on a pod."""

    namespace: str
    name: str
    uid: str  # its UID; nothing is said on a pod that replaced it
    text: str  # at most 1024 characters
    form: str  # `event` or `annotation`


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Who showed a token: the user's name and groups, none where it is no valid token; and whether that is us."""

    names: frozenset[str]
    own: bool = False


@runtime_checkable
class ClusterSource(Protocol):
    """Keeps a `ClusterTable` equal to a cluster; see the rules in the module's docstring."""

    async def start(self, table: ClusterTable, supervisor: Supervisor) -> None:
        """Begin to fill `table`, in the background.

        Args:
            table: of the event loop that calls.
            supervisor: runs the source's tasks, and counts what its threads did not expect.

        Raises:
            SourceError: it can never work: no configuration, unreadable credentials. A server that is away for the
                moment is no error; the source tries again and says so in `waiting_for`.
        """
        ...

    async def stop(self) -> None:
        """End all work that `start` began; safe to call twice, or without `start`."""
        ...

    @property
    def synced(self) -> bool:
        """Whether nodes and pods have been listed once. Stays true when the connection is lost later."""
        ...

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps `synced` false, in sentences for `/readyz` and the log; empty once synced."""
        ...

    def staleness(self) -> Mapping[str, float | None]:
        """For each of `INPUTS`: seconds since it was last known to be current; None if it never was.

        A watch is current at every event and every bookmark, and while its connection is proven alive; usage is as
        old as its newest measurement.
        """
        ...

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How often what happened since the start, by (input, event): lists, reconnects, failures; for metrics."""
        ...

    async def bind(self, binding: Binding) -> None:
        """Bind one pod through the API server.

        Raises:
            BindError: it was refused or could not be asked; the message is for kube-scheduler.
        """
        ...


@runtime_checkable
class NoteTaker(Protocol):
    """A source that can also say something on a pod; not every one can."""

    async def note(self, note: PodNote) -> None:
        """Say it. Raises `NoteError` if it was refused or could not be asked."""
        ...
