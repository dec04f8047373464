"""Alive and ready. Ready means: it would answer from what the cluster looks like, not from nothing."""

from __future__ import annotations

from dataclasses import dataclass

from extender.cluster.source import ClusterSource


@dataclass(slots=True)
class Probes:
    """What the probes say."""

    source: ClusterSource
    stopping: bool = False  # whether the service was told to stop

    def unready(self) -> tuple[str, ...]:
        """Every reason not to send requests here, in sentences; empty when ready."""
        reasons = []
        if self.stopping:
            reasons.append("the service is stopping")
        if not self.source.synced:
            reasons.extend(self.source.waiting_for() or ("the cluster has not been listed yet",))
        return tuple(reasons)
