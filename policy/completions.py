"""Completions of pods, kept in bounded memory as evidence of node speeds. Owned by one thread.

A node or a template that changes is found by Page's CUSUM (Biometrika 41, 1954) over standardised residuals of the last
fit: a node that changed for several templates loses its older completions, a template that changed on several nodes
begins anew. Times are seconds of a monotonic clock of the caller's choice, so a clock that is set affects nothing.

Refuses to fit anything: `policy.speeds` does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from policy.errors import InvalidInputError
from policy.speeds import EMPTY, Completions, SpeedFit, SpeedPrior, fit

KEPT_COMPLETIONS: Final = 64
"""Latest completions kept per node."""

SHORTEST_CPU_S: Final = 0.05
"""CPU seconds below which a completion says more about starting a process than about the core."""

CUSUM_SLACK: Final = 1.0
CUSUM_LIMIT: Final = 12.0
CUSUM_CLIP: Final = 4.0
"""A change is found where the sum of standardised residuals, each less the slack and clipped, exceeds the limit."""


class KeptCompletion(NamedTuple):
    """One completion that is kept: its template, the natural logarithm of its CPU seconds, and its age in seconds."""

    template: str
    log_cpu: float
    age_s: float


class SpeedEvidence:
    """Completions of pods, in bounded memory.

    Args:
        memory_s: seconds after which a completion weighs 1/e.
        nodes: most nodes; further ones are ignored and counted.
        templates: most templates; the one that was unused longest gives way.

    Attributes:
        counts: completions by what became of them: kept, invalid, short, no_room; changes found: template_changed,
            node_changed.
    """

    def __init__(self, memory_s: float = 7 * 86400.0, nodes: int = 8192, templates: int = 8192) -> None:
        if not memory_s > 0.0 or nodes < 1 or templates < 1:
            raise InvalidInputError("memory_s, nodes and templates must be positive")
        self._memory_s = memory_s
        self._most_nodes, self._most_templates = nodes, templates
        self._rows: dict[str, int] = {}
        self._names: list[str] = []
        self._priors: list[SpeedPrior] = []
        self._free: list[int] = []
        self._templates: dict[str, int] = {}
        self._spare: list[int] = list(range(2 * templates - 1, -1, -1))
        """Numbers of templates that may be given out; one retired stays out until no completion carries it."""
        self._next = np.zeros(0, dtype=np.int64)
        self._template = np.full((0, KEPT_COMPLETIONS), EMPTY, dtype=np.int32)
        self._log_cpu = np.zeros((0, KEPT_COMPLETIONS), dtype=np.float32)
        self._at = np.zeros((0, KEPT_COMPLETIONS))
        self._template_run = _Runs(2 * templates)
        self._node_run = _Runs(0)
        self._fit = SpeedFit()
        self.counts: Counter[str] = Counter()

    @property
    def fitted(self) -> SpeedFit:
        """The fit adopted last."""
        return self._fit

    def completed(self, node: str, template: str, cpu_s: float, at: float) -> bool:
        """Take one completion.

        Args:
            node: where the pod ran.
            template: what names its kind: owner, image, command and requests.
            cpu_s: CPU time from start to completion, seconds.
            at: when it ended, monotonic seconds.

        Returns:
            Whether it is kept.
        """
        if not (math.isfinite(cpu_s) and math.isfinite(at) and cpu_s > 0.0):
            return self._refused("invalid")
        if cpu_s < SHORTEST_CPU_S:
            return self._refused("short")
        row = self._row(node)
        if row is None:
            return self._refused("no_room")
        number = self._number(template)
        log_cpu = math.log(cpu_s)
        number = self._watched(row, template, number, log_cpu)
        position = int(self._next[row]) % KEPT_COMPLETIONS
        self._next[row] += 1
        self._template[row, position] = number
        self._log_cpu[row, position] = log_cpu
        self._at[row, position] = at
        self.counts["kept"] += 1
        return True

    def expect(self, node: str, prior: SpeedPrior) -> None:
        """Say what is known of a node besides its completions."""
        row = self._row(node)
        if row is not None:
            self._priors[row] = prior

    def forget(self, node: str) -> None:
        """Forget a node: it is gone, or another machine bears its name."""
        row = self._rows.pop(node, None)
        if row is not None:
            self._names[row] = ""
            self._priors[row] = SpeedPrior()
            self._clear(row, 0)
            self._free.append(row)

    def completions(self, now: float) -> Completions:
        """Copy of what is kept, for `fit`."""
        rows, positions = np.nonzero(self._template != EMPTY)
        age = np.maximum(now - self._at[rows, positions], 0.0)
        start = np.zeros(len(self._names))
        known = self._fit.log_speed[: len(start)]
        start[: len(known)] = np.nan_to_num(known)
        return Completions(
            row=rows.astype(np.int64),
            template=self._template[rows, positions].astype(np.int64),
            log_cpu=self._log_cpu[rows, positions].astype(np.float64),
            weight=np.exp(-age / self._memory_s),
            names=tuple(self._names),
            priors=tuple(self._priors),
            start=start,
        )

    def kept(self, now: float) -> Iterator[tuple[str, list[KeptCompletion]]]:
        """Yield each node and its completions; those of templates that began anew since are left out."""
        templates = {number: template for template, number in self._templates.items()}
        for node, row in self._rows.items():
            columns = self._template[row].tolist(), self._log_cpu[row].tolist(), self._at[row].tolist()
            found = [
                KeptCompletion(templates[number], log_cpu, max(now - at, 0.0))
                for number, log_cpu, at in zip(*columns, strict=True)
                if number in templates
            ]
            if found:
                yield node, found

    def adopt(self, fitted: SpeedFit) -> None:
        """Use this fit from now on."""
        self._fit = fitted

    def refit(self, now: float) -> SpeedFit:
        """Fit and adopt in one step; for callers that may wait."""
        self.adopt(fit(self.completions(now)))
        return self._fit

    # ---- rows and templates --------------------------------------------------------------------------------------

    def _refused(self, reason: str) -> bool:
        self.counts[reason] += 1
        return False

    def _row(self, node: str) -> int | None:
        row = self._rows.get(node)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
            self._names[row] = node
        elif len(self._names) < self._most_nodes:
            row = len(self._names)
            self._names.append(node)
            self._priors.append(SpeedPrior())
            if row >= len(self._next):
                self._grow(max(16, 2 * len(self._next)))
        else:
            return None
        self._rows[node] = row
        return row

    def _grow(self, rows: int) -> None:
        more = rows - len(self._next)
        self._next = np.concatenate([self._next, np.zeros(more, dtype=np.int64)])
        self._template = np.concatenate([self._template, np.full((more, KEPT_COMPLETIONS), EMPTY, dtype=np.int32)])
        self._log_cpu = np.concatenate([self._log_cpu, np.zeros((more, KEPT_COMPLETIONS), dtype=np.float32)])
        self._at = np.concatenate([self._at, np.zeros((more, KEPT_COMPLETIONS))])
        self._node_run.grow(more)

    def _number(self, template: str) -> int:
        """The template's number, as the one used last."""
        number = self._templates.pop(template, None)
        if number is None:
            if len(self._templates) >= self._most_templates:
                self._templates.pop(next(iter(self._templates)))
            number = self._fresh()
        self._templates[template] = number
        return number

    def _fresh(self) -> int:
        """A number that no kept completion carries."""
        if not self._spare:
            used = np.zeros(2 * self._most_templates, dtype=np.bool_)
            used[self._template[self._template != EMPTY]] = True
            used[list(self._templates.values())] = True
            if used.all():  # completions carry more templates than may be kept: those of retired ones go
                keep = np.zeros_like(used)
                keep[list(self._templates.values())] = True
                self._template[(self._template != EMPTY) & ~keep[self._template]] = EMPTY
                used = keep
            self._spare = np.flatnonzero(~used)[::-1].tolist()
        number = self._spare.pop()
        self._template_run.clear(number)
        if number < len(self._fit.effect):
            self._fit.effect[number] = np.nan
        return number

    def _clear(self, row: int, keep: int) -> None:
        """Drop a node's completions but for the latest `keep`."""
        latest = [(int(self._next[row]) - 1 - i) % KEPT_COMPLETIONS for i in range(keep)]
        mask = np.ones(KEPT_COMPLETIONS, dtype=np.bool_)
        mask[latest] = False
        self._template[row, mask] = EMPTY
        self._node_run.clear(row)
        if row < len(self._fit.log_speed):
            self._fit.log_speed[row] = np.nan

    # ---- changes -------------------------------------------------------------------------------------------------

    def _watched(self, row: int, template: str, number: int, log_cpu: float) -> int:
        """Look for a change of the node or of the template; returns the number the completion belongs to."""
        fitted = self._fit
        if row >= len(fitted.log_speed) or number >= len(fitted.effect):
            return number
        residual = log_cpu - float(fitted.effect[number]) + float(fitted.log_speed[row])
        if not math.isfinite(residual):
            return number
        z = max(-CUSUM_CLIP, min(CUSUM_CLIP, residual / float(fitted.noise[number])))
        node_run = self._node_run.add(row, z, number)
        template_run = self._template_run.add(number, z, row)
        if node_run is not None and node_run.partners > 1:
            self.counts["node_changed"] += 1
            self._clear(row, min(node_run.length, KEPT_COMPLETIONS) - 1)
            self._template_run.clear(number)
        elif template_run is not None and (template_run.partners > 1 or node_run is not None):
            self.counts["template_changed"] += 1
            number = self._templates[template] = self._fresh()
            self._node_run.clear(row)
        return number


@dataclass(frozen=True, slots=True)
class _Run:
    """A change that was found: how many completions show it, and whether one or more partners (2) were involved."""

    length: int
    partners: int


class _Runs:
    """Two-sided CUSUM for each of many series; a partner is the other index of a completion."""

    def __init__(self, size: int) -> None:
        self._sum = np.zeros((2, size))
        self._length = np.zeros((2, size), dtype=np.int32)
        self._partner = np.full((2, size), EMPTY, dtype=np.int32)
        self._several = np.zeros((2, size), dtype=np.bool_)

    def grow(self, more: int) -> None:
        self._sum = np.pad(self._sum, ((0, 0), (0, more)))
        self._length = np.pad(self._length, ((0, 0), (0, more)))
        self._partner = np.pad(self._partner, ((0, 0), (0, more)), constant_values=EMPTY)
        self._several = np.pad(self._several, ((0, 0), (0, more)))

    def clear(self, index: int) -> None:
        self._sum[:, index] = 0.0
        self._length[:, index] = 0
        self._partner[:, index] = EMPTY
        self._several[:, index] = False

    def add(self, index: int, z: float, partner: int) -> _Run | None:
        """Add one residual; returns the run where the sum exceeds the limit, and begins anew after it is cleared."""
        found: _Run | None = None
        for side, value in ((0, z), (1, -z)):
            total = max(0.0, float(self._sum[side, index]) + value - CUSUM_SLACK)
            self._sum[side, index] = total
            if total == 0.0:
                self._length[side, index] = 0
                self._partner[side, index] = EMPTY
                self._several[side, index] = False
                continue
            self._length[side, index] += 1
            before = int(self._partner[side, index])
            if before not in (EMPTY, partner):
                self._several[side, index] = True
            self._partner[side, index] = partner
            if total > CUSUM_LIMIT:
                found = _Run(int(self._length[side, index]), 2 if self._several[side, index] else 1)
        return found
