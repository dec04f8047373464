"""Decisions, nodes and features as rows of tables. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from markdown_it import MarkdownIt
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from extender.history import sentences
from extender.history.contenders import Recalled
from extender.history.ledger import Decision
from extender.operations.metrics import FAMILIES
from extender.operations.reference import describe
from extender.pace import unhurried
from extender.scorer.load import LoadedScorer
from extender.settings import Settings
from policy.cluster import ClusterState, PodDemand
from policy.features import FEATURE_NAMES
from policy.observation import observe_unclipped

PAGE: Final = 50
"""Rows of a table on one page."""

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

MASKED: Final = ("username", "password", "token", "salt", "headers")
"""Words in the names of settings that are not shown, unless they name a file."""

CARD: Final = "MODEL_CARD.md"
LARGEST_CARD: Final = 200_000

_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")

FAILING: Final = frozenset({"unschedulable", "scheduler_error", "bind", "expired"})
"""States of pods that were decided upon and are not bound."""


def listed(decision: Decision) -> dict[str, Any]:
    """One decision as a row of a table."""
    outcome = decision.outcome
    node, bound, state = _fate(decision)
    return {
        "uid": decision.uid,
        "namespace": decision.namespace,
        "name": decision.name,
        "at": decision.at,
        "node": node,
        "bound": bound,
        "scorer": decision.scorer,
        "fallback_reason": decision.fallback_reason,
        "candidates": decision.candidates,
        "latency_ms": decision.latency_s * 1000.0,
        "state": state,
        "message": None if outcome is None else outcome.message,
    }


def _fate(decision: Decision) -> tuple[str | None, bool, str]:
    """Return the pod's node, whether it is bound there or only assumed, and its state."""
    outcome = decision.outcome
    if outcome is None:
        return decision.assumed, False, "waiting"
    bound = outcome.node is not None
    return outcome.node if bound else decision.assumed, bound, outcome.state


def matches(decision: Decision, words: Iterable[str]) -> bool:
    """Return whether every word stands in the pod, its namespace or UID, its node, scorer or state."""
    node, _, state = _fate(decision)
    text = f"{decision.namespace}\n{decision.name}\n{decision.uid}\n{node}\n{decision.scorer}\n{state}".lower()
    return all(word in text for word in words)


def bars(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Contributions as bars: for each node and criterion, where a bar begins and how long it is, in percent."""
    told = [node for node in nodes if node["contributions"] is not None]
    reach = max((abs(value) for node in told for value in node["contributions"].values()), default=0.0) or 1.0
    return [
        {
            "node": node["node"],
            "preference": node["preference"],
            "parts": [
                {"name": name, "value": value, "x": 50.0 * (1.0 + min(each, 0.0)), "width": 50.0 * abs(each)}
                for name, value in node["contributions"].items()
                for each in (value / reach,)
            ],
        }
        for node in told
    ]


def ranking(field: Recalled | None, usual: NDArray[Any], page: int) -> dict[str, Any]:
    """One page of all nodes of a decision, best first."""
    if field is None:
        return {"ranking": [], "page": 1, "pages": 1, "count": 0}
    part, pages, page = page_of(len(field.names), page)
    _, inverse, counts = np.unique(-usual, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts + 1)[inverse]
    low, high = float(field.preferences.min()), float(field.preferences.max())
    return {
        "ranking": [
            {
                "rank": i + 1,
                "node": field.names[i],
                "preference": float(field.preferences[i]),
                "priority": int(field.priorities[i]),
                "usual": float(usual[i]),
                "usual_rank": int(ranks[i]),
                "share": 100.0 * (float(field.preferences[i]) - low) / ((high - low) or 1.0),
            }
            for i in range(len(field.names))[part]
        ],
        "page": page,
        "pages": pages,
        "count": len(field.names),
    }


def page_of(count: int, page: int) -> tuple[slice, int, int]:
    """The rows of a page, how many pages there are, and the page's number within them."""
    pages = max(-(-count // PAGE), 1)
    page = min(max(page, 1), pages)
    return slice((page - 1) * PAGE, page * PAGE), pages, page


def best(names: list[str], preferences: NDArray[np.float64]) -> str | None:
    """Return the node of the highest preference; None where there is none."""
    return names[int(np.nanargmax(preferences))] if len(names) and np.isfinite(preferences).any() else None


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
            tokens = _MARKDOWN.parse(_COMMENT.sub("", file.read(LARGEST_CARD)))
    except OSError:
        return ""
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
