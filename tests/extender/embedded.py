"""A source fed from inside the process. Refuses to reach any network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from extender.cluster.source import INPUTS, Binding, PodNote
from extender.cluster.table import ClusterTable
from extender.errors import BindError, NoteError, SourceError
from extender.supervision import Supervisor


class EmbeddedSource:
    """Applies whatever it is told to the table, from any thread.

    Args:
        on_bind: what `/bind` does; it may raise `BindError`. Default: bind is refused.
        on_note: what is done with what is to be said on a pod; it may raise `NoteError`. Default: notes are refused.
        synced: whether it counts as listed from the start; else call `mark_synced`.
        timer: monotonic seconds.
    """

    def __init__(
        self,
        on_bind: Callable[[Binding], None] | None = None,
        synced: bool = True,
        timer: Callable[[], float] = time.monotonic,
        on_note: Callable[[PodNote], None] | None = None,
    ) -> None:
        self._on_bind = on_bind
        self._on_note = on_note
        self._synced = synced
        self._timer = timer
        self._table: ClusterTable | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: dict[str, float] = {}
        self._posted: dict[str, int] = {}

    async def start(self, table: ClusterTable, supervisor: Supervisor) -> None:
        """Begin to accept changes."""
        self._table = table
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """Accept no more changes."""
        self._table = self._loop = None

    def post(self, change: Callable[[ClusterTable], object], *inputs: str) -> None:
        """Apply `change` to the table on its event loop soon; callable from any thread.

        Args:
            change: calls the table's methods.
            inputs: those of `INPUTS` that are current with it; default: nodes and pods.

        Raises:
            SourceError: the service is not running.
        """
        table, loop = self._table, self._loop
        if table is None or loop is None:
            raise SourceError("the embedded source is not running; start the service first")

        def apply() -> None:
            change(table)
            for name in inputs or ("nodes", "pods"):
                self._current[name] = self._timer()
                self._posted[name] = self._posted.get(name, 0) + 1

        loop.call_soon_threadsafe(apply)

    def mark_synced(self) -> None:
        """The cluster has been told in full."""
        self._synced = True

    @property
    def synced(self) -> bool:
        """Whether the cluster has been told in full."""
        return self._synced

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps it from being synced."""
        return () if self._synced else ("the embedded cluster has not been told in full",)

    def staleness(self) -> Mapping[str, float | None]:
        """Seconds since each input was last posted."""
        now = self._timer()
        return {name: now - self._current[name] if name in self._current else None for name in INPUTS}

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How often each input was posted."""
        return {(name, "posted"): count for name, count in self._posted.items()}

    async def bind(self, binding: Binding) -> None:
        """Hand the binding to `on_bind`."""
        if self._on_bind is None:
            raise BindError("the embedded cluster takes no bindings")
        self._on_bind(binding)

    async def note(self, note: PodNote) -> None:
        """Hand the note to `on_note`."""
        if self._on_note is None:
            raise NoteError("the embedded cluster takes no notes")
        self._on_note(note)
