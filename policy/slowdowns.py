"""Wall time per CPU time of completed pods on each node, compared with the same templates elsewhere. Pure.

A node whose pods are throttled (a limit, used-up credits, a busy hypervisor) is no slow core: its pods take the CPU
time that they always take, and wait for it. So this stays apart from the speeds of `policy.speeds`, and is forgotten
within minutes. Pods also wait for disks, for networks, because of their own limits and for busy CPUs. So a node counts
as slower (`Slowdowns.share_left`) only where its pods also end later than those of the same templates elsewhere, and
from `LEAST_SLOWDOWN` on. Where its use was measured meanwhile, it also counts as full at that use
(`Slowdowns.full_at`): a quota slows nobody below it, and keeps the use that is measured at it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

LEAST_SEEN: Final = 5
"""Completions of a template before its usual ratio is known."""

LONGEST_SEEN: Final = 64
"""Completions that a template's usual ratio is a mean of."""

LEAST_SLOWDOWN: Final = 1.35
"""Slowdown from which a node counts as throttled.

Less helps throttled nodes more, and takes busy ones for throttled where a cluster is overloaded
(docs/decisions/0017-throttled-nodes.md).
"""

LEAST_LASTING: Final = 1.15
"""Slowdown down to which a node that counted as throttled still does.

A quota holds nobody up on a node that is avoided: without this it would draw pods, be avoided, and draw them again.
"""

LEAST_SHARE: Final = 0.2
"""Share of its speed that a node keeps whatever its slowdown. Assumption: a node that stands still is cordoned."""

PRIOR_WEIGHT: Final = 1.0
"""How many completions the belief is worth that a node is like the others."""


@dataclass(slots=True)
class _Template:
    ratio: float = 0.0  # mean logarithm of run time over CPU time
    run: float = 0.0  # mean logarithm of the run time
    seen: int = 0


@dataclass(slots=True)
class _Node:
    ratio: float = 0.0  # sum of what pods differ from their templates in, weighed by age
    run: float = 0.0
    weight: float = 0.0
    at: float = 0.0
    throttled: bool = False  # since its slowdown reached `LEAST_SLOWDOWN`
    # used, waited: sum of the logarithms of its use when pods ended that had waited, and how many those were, by age
    used: float = 0.0
    waited: float = 0.0


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
        if usual.seen >= LEAST_SEEN:
            here = self._nodes.setdefault(node, _Node(at=at))
            self._nodes.move_to_end(node)
            left = math.exp(-max(at - here.at, 0.0) / self._memory_s)
            here.ratio, here.run = here.ratio * left + ratio - usual.ratio, here.run * left + run - usual.run
            here.weight, here.at = here.weight * left + 1.0, at
            here.used, here.waited = here.used * left, here.waited * left
            if used and min(ratio - usual.ratio, run - usual.run) >= math.log(LEAST_LASTING):
                here.used, here.waited = here.used + math.log(used), here.waited + 1.0
            here.throttled = _slowdown(here, 1.0) >= (LEAST_LASTING if here.throttled else LEAST_SLOWDOWN)
        usual.seen += 1
        weight = 1.0 / min(usual.seen, LONGEST_SEEN)
        usual.ratio, usual.run = usual.ratio + weight * (ratio - usual.ratio), usual.run + weight * (run - usual.run)
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
        """Return the share of its allocatable CPU at which a node's pods wait, `LEAST_SHARE`..1; 1 if not throttled."""
        here, _ = self._recent(node, now)
        if here is None or not here.waited or self.share_left(node, now) == 1.0:
            return 1.0
        return min(max(math.exp(here.used / here.waited), LEAST_SHARE), 1.0)

    def _recent(self, node: str, now: float) -> tuple[_Node | None, float]:
        """What is known of a node, if a completion's worth of it is left, and the share of it that is."""
        here = self._nodes.get(node)
        left = 0.0 if here is None else math.exp(-max(now - here.at, 0.0) / self._memory_s)
        return (here, left) if here is not None and here.weight * left >= 1.0 else (None, left)


def _slowdown(here: _Node, left: float) -> float:
    """How many times as long its pods run, of the two measures the smaller one; `left` is the weight left of all."""
    return math.exp(min(here.ratio, here.run) * left / (here.weight * left + PRIOR_WEIGHT))
