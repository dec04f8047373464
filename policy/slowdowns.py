"""Wall time per CPU time of completed pods on each node, compared with the same templates elsewhere. Pure.

A node whose pods are throttled (a limit, used-up credits, a busy hypervisor) is no slow core: its pods take the CPU
time that they always take, and wait for it. So this stays apart from the speeds of `policy.speeds`, and is forgotten
within minutes.

Pods also wait because of their own limits, which takes longer on slow cores, and for disks and networks, which takes as
long on any. Of a template of the first kind the ratio of run time to CPU time is the same on every node, of one of the
second kind the run time. So of each template that measure counts which differs less from pod to pod.

A node counts as slower (`Slowdowns.share_left`) from a mean slowdown of `LEAST_SLOWDOWN` on. And it counts as full
(`Slowdowns.full_at`) at the use that was measured when pods ended that had waited: a quota slows nobody below it, and
holds the use that is measured at it, however many pods wait.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

LEAST_SEEN: Final = 5
"""Completions of a template before its usual ratio is known."""

LONGEST_SEEN: Final = 64
"""Completions that a template's usual ratio is a mean of."""

LEAST_SLOWDOWN: Final = 1.5
"""Slowdown from which a node counts as throttled.

Less helps throttled nodes more, and takes busy ones for throttled where a cluster is overloaded
(docs/decisions/0017-throttled-nodes.md).
"""

LEAST_LASTING: Final = 1.15
"""Slowdown down to which a node that counted as throttled still does.

A quota holds nobody up on a node that is avoided: without this it would draw pods, be avoided, and draw them again.
"""

LEAST_SHARE: Final = 0.2
"""Share of its speed, and of its CPU, that a node keeps whatever its slowdown. Assumption: a node that stands still is
cordoned."""

FULL: Final = 0.85
"""Use over allocatable from which pods wait because the node is full, which its use says already: that tells nothing of
throttling."""

LEAST_WAIT: Final = 1.35
"""Slowdown from which a pod counts as one that waited."""

LEAST_WAITED: Final = 2.0
"""Pods that waited, by age, before a node counts as full below its allocatable."""

AS_USED: Final = 0.9
"""From this share of the use at which pods waited on, pods that did not wait speak against it."""

PRIOR_WEIGHT: Final = 1.0
"""How many completions the belief is worth that a node is like the others."""


@dataclass(slots=True)
class _Usual:
    """Mean and variance of a logarithm."""

    mean: float = 0.0
    variance: float = 0.0

    def take(self, value: float, weight: float) -> None:
        """Take another value, which counts so much."""
        apart = value - self.mean
        self.mean += weight * apart
        self.variance = (1.0 - weight) * (self.variance + weight * apart * apart)


@dataclass(slots=True)
class _Template:
    ratio: _Usual = field(default_factory=_Usual)  # run time over CPU time
    run: _Usual = field(default_factory=_Usual)  # run time
    seen: int = 0

    def excess(self, ratio: float, run: float) -> float:
        """How much longer than usual a pod ran, as a logarithm."""
        by_ratio, by_run = ratio - self.ratio.mean, run - self.run.mean
        if self.ratio.variance == self.run.variance:
            return min(by_ratio, by_run)
        return by_ratio if self.ratio.variance < self.run.variance else by_run


@dataclass(slots=True)
class _Node:
    """Sums over pods, which weigh less with age."""

    ratio: float = 0.0  # what run time over CPU time differs in from the templates'
    excess: float = 0.0
    weight: float = 0.0  # how many there were
    used: float = 0.0  # logarithms of its use when pods ended that had waited
    waited: float = 0.0  # how many those were
    free: float = 0.0  # how many had not waited, though it was as used
    at: float = 0.0  # when the last one ended
    throttled: bool = False  # since its slowdown reached `LEAST_SLOWDOWN`

    def age(self, left: float) -> None:
        """Let the sums weigh so much less."""
        self.ratio, self.excess, self.weight = self.ratio * left, self.excess * left, self.weight * left
        self.used, self.waited, self.free = self.used * left, self.waited * left, self.free * left

    @property
    def full_at(self) -> float:
        """Use at which its pods waited, in the geometric mean; 0 where none did."""
        return math.exp(self.used / self.waited) if self.waited else 0.0


class Slowdowns:
    """Keeps the ratios, in bounded memory. Times are seconds of a monotonic clock.

    Args:
        memory_s: seconds after which a completion weighs 1/e.
        most: templates, and nodes; those that were unused longest give way.
    """

    def __init__(self, memory_s: float = 600.0, most: int = 8192) -> None:
        self._memory_s = memory_s
        self._most = most
        self._templates: OrderedDict[str, _Template] = OrderedDict()
        self._nodes: OrderedDict[str, _Node] = OrderedDict()

    def completed(
        self, node: str, template: str, run_s: float, cpu_s: float, at: float, used: float | None = None
    ) -> None:
        """Take a pod that ran `run_s` seconds and used `cpu_s` seconds of CPU time; both must be positive.

        Args:
            node: where it ran.
            template: which it is of.
            run_s: from its start to its end.
            cpu_s: CPU time that it used.
            at: when it ended.
            used: CPU use of the node then over its allocatable; None where it is not known.
        """
        if not (run_s > 0.0 and cpu_s > 0.0 and math.isfinite(run_s) and math.isfinite(cpu_s)):
            return
        ratio, run = math.log(run_s / cpu_s), math.log(run_s)
        usual = self._templates.setdefault(template, _Template())
        self._templates.move_to_end(template)
        if usual.seen >= LEAST_SEEN and (used is None or used < FULL):
            here = self._nodes.setdefault(node, _Node(at=at))
            self._nodes.move_to_end(node)
            here.age(math.exp(-max(at - here.at, 0.0) / self._memory_s))
            excess = usual.excess(ratio, run)
            here.ratio, here.excess = here.ratio + ratio - usual.ratio.mean, here.excess + excess
            here.weight, here.at = here.weight + 1.0, at
            if used and excess >= math.log(LEAST_WAIT):
                here.used, here.waited = here.used + math.log(used), here.waited + 1.0
            elif used and here.waited and used >= AS_USED * here.full_at:
                here.free += 1.0
            here.throttled = _slowdown(here, 1.0) >= (LEAST_LASTING if here.throttled else LEAST_SLOWDOWN)
        usual.seen += 1
        weight = 1.0 / min(usual.seen, LONGEST_SEEN)
        usual.ratio.take(ratio, weight)
        usual.run.take(run, weight)
        for kept in (self._templates, self._nodes):
            if len(kept) > self._most:
                kept.popitem(last=False)

    def forget(self, node: str) -> None:
        """Forget a node."""
        self._nodes.pop(node, None)

    def of(self, node: str, now: float) -> float | None:
        """Return how many times as long the node's pods run per CPU time; None where nothing recent is known."""
        here, left = self._recent(node, now)
        return None if here is None else math.exp(here.ratio * left / (here.weight * left + PRIOR_WEIGHT))

    def share_left(self, node: str, now: float) -> float:
        """Return the share of its speed that the node's pods get lately, `LEAST_SHARE`..1; 1 where it is not known."""
        here, left = self._recent(node, now)
        if here is None:
            return 1.0
        slowdown = _slowdown(here, left)
        return max(1.0 / slowdown, LEAST_SHARE) if here.throttled and slowdown >= LEAST_LASTING else 1.0

    def full_at(self, node: str, now: float) -> float:
        """Return the share of its allocatable CPU at which a node's pods wait, `LEAST_SHARE`..1; 1 where none is known.

        `LEAST_WAITED` pods must have waited lately, and no more have ended there without, though it was as used.
        """
        here, left = self._recent(node, now)
        if here is None or here.waited * left < LEAST_WAITED or here.waited < here.free:
            return 1.0
        return min(max(here.full_at, LEAST_SHARE), 1.0)

    def _recent(self, node: str, now: float) -> tuple[_Node | None, float]:
        """What is known of a node, if a completion's worth of it is left, and the share of it that is."""
        here = self._nodes.get(node)
        left = 0.0 if here is None else math.exp(-max(now - here.at, 0.0) / self._memory_s)
        return (here, left) if here is not None and here.weight * left >= 1.0 else (None, left)


def _slowdown(here: _Node, left: float) -> float:
    """How many times as long its pods run; `left` is the weight left of all."""
    return math.exp(here.excess * left / (here.weight * left + PRIOR_WEIGHT))
