"""What decides, what became of other bundles, and the program that serves them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Final

import onnxruntime

from extender.engine import Engine
from extender.operations.families import Family
from extender.operations.guard import RESULTS, Guard
from extender.scorer.breaker import BreakerState
from extender.scorer.reload import BundleReloader
from extender.scorer.trust import TREATMENTS
from extender.supervision import Supervisor
from policy.features import SCHEMA_VERSION

if TYPE_CHECKING:
    from extender.operations.tracing import Tracing  # imported only where it is used


def _policy(engine: Engine) -> dict[tuple[str, str, str], float]:
    if (scoring := engine.scoring) is None:
        return {}
    return {(scoring.loaded.scorer.name, scoring.loaded.model_sha256, str(SCHEMA_VERSION)): 1.0}


def _breaker(engine: Engine) -> dict[str, float]:
    scoring = engine.scoring
    return {state.value: scoring is not None and scoring.breaker.state is state for state in BreakerState}


ENGINE: Final[tuple[Family[Engine], ...]] = (
    Family("maddpg_policy_info", "1 for the scorer in use", _policy, ("scorer", "model_sha256", "schema_version")),
    Family(
        "maddpg_breaker_state",
        "1 for the state of the scorer's circuit breaker: closed, open or half_open",
        _breaker,
        ("state",),
    ),
    Family(
        "maddpg_breaker_opened_total",
        "How often the circuit breaker of the scorer in use opened; begins anew with another scorer",
        lambda engine: 0 if engine.scoring is None else engine.scoring.breaker.opened,
    ),
    Family(
        "maddpg_odd_nodes_total",
        "Candidates of decisions beyond what the scorer is trusted with, by what became of them: clipped (rated by the "
        "nearest features it is trusted with), last (overloaded: below the others) or unrated (no finite preference: "
        "below the others)",
        lambda engine: {name: engine.odd_nodes[name] for name in TREATMENTS.values()},
        ("treatment",),
    ),
)

RELOADER: Final[tuple[Family[BundleReloader], ...]] = (
    Family(
        "maddpg_policy_swaps_total",
        "Policies put to use while serving, after the first one",
        lambda reloader: reloader.counts.swaps,
    ),
    Family(
        "maddpg_policy_refusals_total",
        "Policy bundles refused while serving, by the file or field of the manifest that disagrees",
        lambda reloader: reloader.refusals,
        ("reason",),
    ),
)

SUPERVISOR: Final[tuple[Family[Supervisor], ...]] = (
    Family(
        "maddpg_task_failures_total",
        "Unexpected failures of background tasks and threads, each of which is tried again",
        lambda supervisor: supervisor.failures.counts(),
        ("task",),
    ),
    Family(
        "maddpg_task_retrying",
        "1 while a background task has failed and waits to be tried again",
        lambda supervisor: supervisor.retrying(),
        ("task",),
    ),
)

TRACING: Final[tuple[Family[Tracing], ...]] = (
    Family(
        "maddpg_spans_total",
        "Spans that the collector of traces took, and that it did not",
        lambda tracing: {"exported": tracing.exporter.exported, "failed": tracing.exporter.failed},
        ("result",),
    ),
)

GUARD: Final[tuple[Family[Guard], ...]] = (
    Family(
        "maddpg_operations_requests_total",
        "Requests to guarded operations endpoints: admitted, unauthenticated (401), forbidden (403), or unchecked "
        "because the API server did not say (503)",
        lambda guard: {name: guard.results[name] for name in RESULTS},
        ("result",),
    ),
)

BUILD: Final[tuple[Family[str], ...]] = (
    Family(
        "maddpg_build_info",
        "1 for the versions of the service, of Python and of ONNX Runtime",
        lambda version: {(version, platform.python_version(), str(onnxruntime.__version__)): 1.0},
        ("version", "python", "onnxruntime"),
    ),
)
