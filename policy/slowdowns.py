"""Wall time per CPU time of completed pods on each node, compared with the same templates elsewhere. Pure.

A node whose pods are throttled (a limit, used-up credits, a busy hypervisor) is no slow core: its pods take the CPU
time that they always take, and wait for it. So this stays apart from the speeds of `policy.speeds`, and is forgotten
within minutes. It is shown and decides nothing: pods also wait for disks, for networks and because of their own limits,
and what they wait for CPUs of the node is in its pressure, which the policy sees.
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

PRIOR_WEIGHT: Final = 1.0
"""How many completions the belief is worth that a node is like the others."""


@dataclass(slots=True)
class _Template:
    mean: float = 0.0
    seen: int = 0


@dataclass(slots=True)
class _Node:
    total: float = 0.0
    weight: float = 0.0
    at: float = 0.0


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

    def completed(self, node: str, template: str, run_s: float, cpu_s: float, at: float) -> None:
        """Take a pod that ran `run_s` seconds and used `cpu_s` seconds of CPU time; both must be positive."""
        if not (run_s > 0.0 and cpu_s > 0.0 and math.isfinite(run_s) and math.isfinite(cpu_s)):
            return
        ratio = math.log(run_s / cpu_s)
        usual = self._templates.setdefault(template, _Template())
        self._templates.move_to_end(template)
        if usual.seen >= LEAST_SEEN:
            here = self._nodes.setdefault(node, _Node(at=at))
            self._nodes.move_to_end(node)
            left = math.exp(-max(at - here.at, 0.0) / self._memory_s)
            here.total, here.weight, here.at = here.total * left + ratio - usual.mean, here.weight * left + 1.0, at
        usual.seen += 1
        usual.mean += (ratio - usual.mean) / min(usual.seen, LONGEST_SEEN)
        for kept in (self._templates, self._nodes):
            if len(kept) > self._most:
                kept.popitem(last=False)

    def forget(self, node: str) -> None:
        """Forget a node."""
        self._nodes.pop(node, None)

    def of(self, node: str, now: float) -> float | None:
        """Return how many times as long the node's pods run per CPU time; None where nothing recent is known."""
        here = self._nodes.get(node)
        if here is None:
            return None
        left = math.exp(-max(now - here.at, 0.0) / self._memory_s)
        if here.weight * left < 1.0:
            return None
        return math.exp(here.total * left / (here.weight * left + PRIOR_WEIGHT))
