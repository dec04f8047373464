"""Decisions, nodes and features as rows of tables. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from markdown_it import MarkdownIt
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from extender.history import sentences
from extender.history.ledger import Decision
from extender.history.unplaced import UnplacedPod
from extender.operations.metrics import FAMILIES
from extender.operations.reference import describe
from extender.pace import unhurried
from extender.scorer.load import LoadedScorer
from extender.settings import Settings
from policy.cluster import ClusterState, PodDemand
from policy.features import FEATURE_NAMES
from policy.observation import observe_unclipped

URGENCIES: Final = {"low": 0.1, "medium": 0.5, "high": 0.9}
SIZES: Final = {"small": (0.1, 0.25), "medium": (1.0, 2.0), "large": (4.0, 16.0)}
"""Pods that the page of nodes asks the policy about: cores and GiB."""

FEATURES: Final = {
    **sentences.NAMES,
    "node_speed": "speed relative to the reference core, minus 1",
    "pod_size": "size of the pod relative to the node",
    "pod_urgency": "urgency of the pod",
}
"""Features in words."""

CHARTED_S: Final = 900
"""Seconds that the charts show."""

STEP_S: Final = 15
"""Seconds between two points of a chart; `dashboard.js` draws them as often."""

MASKED: Final = ("username", "password", "token", "salt", "headers")
"""Words in the names of settings that are not shown, unless they name a file."""

CARD: Final = "MODEL_CARD.md"
LARGEST_CARD: Final = 200_000

_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")

FAILING: Final = frozenset({"unschedulable", "scheduler_error", "bind", "expired"})
"""States of pods that were decided upon and are not bound."""


def listed(told: Mapping[str, Any]) -> dict[str, Any]:
    """One decision, as `extender.history.explain.summary` tells it, as a row of a table."""
    outcome = told["outcome"] or {"node": None, "message": None}
    return {
        **told["pod"],
        **{name: told[name] for name in ("at", "scorer", "fallback_reason", "candidates", "latency_ms", "state")},
        "node": outcome["node"] or told["assumed"],
        "bound": outcome["node"] is not None,
        "message": outcome["message"],
        "replica": told.get("replica"),
    }


def charted(latest: Iterable[Decision], end: int) -> dict[str, list[Any]]:
    """Return decisions per second and their latency before a moment, step by step. In a thread.

    Args:
        latest: decisions, newest first.
        end: the moment, seconds since the epoch.

    Returns:
        ``at``: when each step begins; ``rate``: decisions per second; ``p50`` and ``p99`` of their latency,
        milliseconds, None where there was none.
    """
    begin = end - CHARTED_S
    latencies: list[list[float]] = [[] for _ in range(begin, end, STEP_S)]
    for decision in unhurried(latest):
        if decision.at < begin:
            break
        if decision.at < end:
            latencies[int(decision.at - begin) // STEP_S].append(decision.latency_s * 1000.0)
    percentiles = [
        np.percentile(each, (50, 99)).round(3).tolist() if each else (None, None) for each in unhurried(latencies)
    ]
    return {
        "at": list(range(begin, end, STEP_S)),
        "rate": [len(each) / STEP_S for each in latencies],
        "p50": [p50 for p50, _ in percentiles],
        "p99": [p99 for _, p99 in percentiles],
    }


def bars(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Contributions as bars: for each node and criterion, where a bar begins and how long it is, in percent.

    A contribution that is 0 everywhere is left out, as `extender.history.explain.SHORTAGE` mostly is.
    """
    told = [node for node in nodes if node["contributions"] is not None]
    reach = max((abs(value) for node in told for value in node["contributions"].values()), default=0.0) or 1.0
    names = {name for node in told for name, value in node["contributions"].items() if value}
    return [
        {
            "node": node["node"],
            "preference": node["preference"],
            "parts": [
                {"name": name, "value": value, "x": 50.0 * (1.0 + min(each, 0.0)), "width": 50.0 * abs(each)}
                for name, value in node["contributions"].items()
                if name in names
                for each in (value / reach,)
            ],
        }
        for node in told
    ]


def reasoned(told: dict[str, Any]) -> dict[str, Any]:
    """An explanation with its ranking, of this replica or another, as the page "Why" shows it."""
    asked, ranking = told["why_not"], told["ranking"]
    return {
        "told": told,
        "sentences": [*sentences.of_decision(told), *sentences.of_replicas(told)],
        "asked": asked,
        "answer": [] if asked is None else sentences.of_node(asked, told),
        "words": FEATURES,
        "bars": bars(told["nodes"] + ([asked] if asked is not None and asked["rank"] else [])),
        "exportable": ranking["exportable"],
        "ranking": ranking["rows"],
        "page": ranking["page"],
        "pages": ranking["pages"],
        "count": ranking["count"],
    }


def best(names: list[str], preferences: NDArray[np.float64]) -> str | None:
    """Return the node of the highest preference; None where there is none."""
    return names[int(np.nanargmax(preferences))] if len(names) and np.isfinite(preferences).any() else None


def advised(
    pods: Sequence[tuple[UnplacedPod, PodDemand]],
    names: list[str],
    ready: list[bool],
    state: ClusterState,
    rated: Mapping[PodDemand, NDArray[np.float64]],
) -> list[dict[str, Any]]:
    """Return pods that could not be placed, each with the best ready node, of those with room where there is one.

    Args:
        pods: and what they ask for.
        names: of the nodes, ``[n]``.
        ready: which of them take pods, ``[n]``.
        state: their rows, ``[n]``.
        rated: preferences for each demand, ``[n]``.
    """
    cpu, memory = state.cpu_allocatable - state.cpu_requested, state.memory_allocatable - state.memory_requested
    usable, found = np.array(ready, dtype=np.bool_), dict[PodDemand, dict[str, Any]]()
    for _, demand in pods:
        if demand not in found:
            # floats may miss the last bit of a sum of requests
            room = usable & (cpu + 1e-9 >= demand.cpu) & (memory + 1e-9 >= demand.memory)
            chosen = np.where(room if room.any() else usable, rated[demand], np.nan)
            found[demand] = {"best": best(names, chosen), "room": bool(room.any())}
    return [{**asdict(pod), **found[demand]} for pod, demand in pods]


def ranges(loaded: LoadedScorer, state: ClusterState) -> list[dict[str, Any]]:
    """For each feature, its range in training and what it is on the nodes now, for a pod of medium size."""
    if loaded.training_range is None or not len(state):
        return []
    seen = observe_unclipped(state, PodDemand(*SIZES["medium"], URGENCIES["medium"]))
    low, high = loaded.training_range
    return [
        {
            "name": name,
            "low": float(low[i]),
            "high": float(high[i]),
            "least": float(seen[:, i].min()),
            "median": float(np.median(seen[:, i])),
            "most": float(seen[:, i].max()),
            "outside": int(np.count_nonzero((seen[:, i] < low[i]) | (seen[:, i] > high[i]))),
        }
        for i, name in enumerate(FEATURE_NAMES)
    ]


def text_of(value: object) -> str:
    """Return a setting's value as text."""
    return value if isinstance(value, str) else json.dumps(value)


def card_of(bundle: Path) -> str:
    """Return the model card of a bundle as HTML; what is HTML in it is shown as text. Empty where there is none."""
    try:
        with (bundle / CARD).open(encoding="utf-8", errors="replace") as file:
            text = file.read(LARGEST_CARD)
    except OSError:
        return ""
    return html_of(text)


def html_of(text: str) -> str:
    """Return Markdown as HTML, its headings one level lower; what is HTML in it is shown as text."""
    tokens = _MARKDOWN.parse(_COMMENT.sub("", text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"  # the page has the only heading of the first level
    # a heading without text says nothing to a screen reader
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})).replace("<th></th>", "<td></td>")


def settings_told(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting with its value, its meaning and where it comes from; what may be secret is not shown."""
    values = settings.model_dump(mode="json")
    told = []
    for name, default, unit, meaning in describe():
        value = values[name]
        masked = not name.endswith("_file") and any(word in name for word in MASKED) and value not in (None, "")
        shown = "set, not shown" if masked else "empty" if value in (None, "", {}, []) else text_of(value)
        origin = settings.origin_of(name)
        told.append(
            {"name": name, "value": shown, "unit": unit, "meaning": meaning, "origin": origin, "default": default}
        )
    return told


def metrics_told(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """Return every metric with what it means and its values now. In a thread."""
    values: dict[str, list[tuple[str, float]]] = {}
    for metric in unhurried(registry.collect()):
        for sample in metric.samples[:20]:
            if sample.name.endswith(("_bucket", "_created")):
                continue
            labels = ", ".join(f"{name}={value}" for name, value in sample.labels.items())
            base = sample.name.removesuffix("_sum").removesuffix("_count")
            part = sample.name.removeprefix(base).removeprefix("_")
            values.setdefault(base, []).append((" ".join(filter(None, (labels, part))), sample.value))
    return [
        {"name": it.name, "kind": it.kind, "meaning": it.documentation, "values": values.get(it.name, [])}
        for it in FAMILIES
    ]
