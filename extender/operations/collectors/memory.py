"""What is remembered of decisions, written to the ledger's file and said on pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from extender.history.ledger import Ledger
from extender.history.notes import Notes
from extender.operations.families import Family

if TYPE_CHECKING:
    from extender.history.store import DecisionStore  # imported only where it is used


def _outcomes(ledger: Ledger) -> dict[str, float]:
    counts = ledger.snapshot()
    return {
        "rated_best": counts.bound_among_best,
        "rated_lower": counts.bound_rated - counts.bound_among_best,
        "rating_unknown": counts.bound - counts.bound_rated,
        "not_asked": counts.not_asked,
    }


def _lateness(ledger: Ledger) -> dict[str, float]:
    counts = ledger.snapshot()
    return {"true": counts.late, "false": counts.on_time, "unknown": counts.lateness_unknown}


def _inferred_lateness(ledger: Ledger) -> dict[str, float]:
    counts = ledger.snapshot()
    return {"true": counts.late_inferred, "false": counts.on_time_inferred}


LEDGER: Final[tuple[Family[Ledger], ...]] = (
    Family("maddpg_ledger_decisions", "Decisions remembered", len),
    Family(
        "maddpg_ledger_whole_decisions",
        "Decisions of which all nodes are remembered",
        lambda ledger: len(ledger.recollection),
    ),
    Family(
        "maddpg_ledger_memory_bytes",
        "Memory for all nodes of these decisions",
        lambda ledger: ledger.recollection.nbytes,
    ),
    Family(
        "maddpg_decisions_by_urgency_total",
        "Decisions, by what said how urgent the pod is",
        lambda ledger: ledger.snapshot().urgency_sources,
        ("source",),
    ),
    Family(
        "maddpg_outcomes_total",
        "Pods seen bound: on a node rated best, on another, on one whose rating is unknown, or without a decision here",
        _outcomes,
        ("kind",),
    ),
    Family(
        "maddpg_decision_failures_total",
        "Decisions that did not lead to a bound pod, by reason",
        lambda ledger: ledger.snapshot().failures,
        ("reason",),
    ),
    Family(
        "maddpg_pods_ended_total",
        "Pods decided upon and bound that ended, by how",
        lambda ledger: ledger.snapshot().ended,
        ("how",),
    ),
    Family(
        "maddpg_pods_late_total",
        "Of the pods that ended, those that were late, those that were not, and those of which nobody can know",
        _lateness,
        ("late",),
    ),
    Family(
        "maddpg_pods_late_inferred_total",
        "Of those, the ones whose expected duration nobody declared: what former runs of their template took counts",
        _inferred_lateness,
        ("late",),
    ),
    Family(
        "maddpg_pod_restarts_total",
        "Restarts of containers of pods decided upon",
        lambda ledger: ledger.counts.restarts,
    ),
    Family(
        "maddpg_pods_oom_killed_total",
        "Pods decided upon with a container killed for its memory",
        lambda ledger: ledger.counts.oom_killed,
    ),
)

STORE: Final[tuple[Family[DecisionStore], ...]] = (
    Family(
        "maddpg_ledger_writes_total",
        "Decisions that the ledger's file took (written), that found no room (dropped) or do not decode (unreadable), "
        "and attempts to write that failed (failures)",
        lambda store: {name: getattr(store.counts, name) for name in ("written", "dropped", "failures", "unreadable")},
        ("result",),
    ),
    Family(
        "maddpg_ledger_waiting", "Decisions that wait to be written to the ledger's file", lambda store: store.waiting
    ),
)

NOTES: Final[tuple[Family[Notes], ...]] = (
    Family(
        "maddpg_pod_notes_total",
        "Pods on which it was said why they went where they did (written), that found no room (dropped), and that the "
        "API server refused or was away for (failed)",
        lambda notes: {name: getattr(notes.counts, name) for name in ("written", "dropped", "failed")},
        ("result",),
    ),
)
