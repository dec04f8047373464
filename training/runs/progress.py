"""How far runs have come: a bar for each on a terminal, elsewhere a line every few percent. Refuses to train."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_PERCENT: Final = 5
"""A log gets a line whenever a run has come this many percent further: twenty lines, however long it takes."""


@dataclass(slots=True)
class _Row:
    total: int
    told: int
    bar: TaskID | None
    began: float | None = None
    began_at: int = 0


class RunProgress:
    """Updates, episodes and time left of one or more runs.

    Args:
        console: where to; its `is_terminal` decides between bars and lines.
        clock: monotonic seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("updates, {task.fields[episodes]} episodes"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, name: str, updates: int, total: int, episodes: int, note: str = "") -> None:
        """Say where the run called `name` stands.

        Args:
            name: of the run; the first call with it adds its bar.
            updates: done so far, in this process and those before it.
            total: of the whole run.
            episodes: played so far.
            note: whatever else is worth a look.
        """
        row = self._rows.get(name)
        if row is None:
            bar = None if self._bars is None else self._bars.add_task(name, total=total, episodes=episodes, note=note)
            row = self._rows[name] = _Row(total, _percent(updates, total), bar)
        if row.began is None and updates > 0:
            row.began, row.began_at = self._clock(), updates
        if self._bars is not None and row.bar is not None:
            self._bars.update(row.bar, completed=updates, episodes=episodes, note=note)
        elif _percent(updates, total) > row.told:
            row.told = _percent(updates, total)
            words = [
                f"{name}: {updates} of {total} updates ({row.told} %), {episodes} episodes",
                self._left(row, updates),
            ]
            self._console.print(", ".join(filter(None, [*words, note])), soft_wrap=True, highlight=False, markup=False)

    def _left(self, row: _Row, updates: int) -> str:
        """Time left at the pace since the first update seen here; empty while there is none."""
        if row.began is None or updates <= row.began_at:
            return ""
        seconds = (self._clock() - row.began) * (row.total - updates) / (updates - row.began_at)
        return f"{seconds / 60:.1f} minutes left"


def _percent(updates: int, total: int) -> int:
    """Whole steps of `LINE_PERCENT` that are done."""
    return 100 * updates // total // LINE_PERCENT * LINE_PERCENT
