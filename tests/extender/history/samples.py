"""Decisions as tests need them, without a service that makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from extender.history.counterfactual import Judge
from extender.history.explain import Hindsight, explained
from extender.history.ledger import Decision
from policy.cluster import PodDemand
from tests.policy.states import random_state


def a_decision(uid: str = "uid-web", number: int = 1, nodes: int = 3, **changes: Any) -> Decision:
    """One decision among `nodes` nodes, of which node-0 was rated best."""
    values: dict[str, Any] = {
        "number": number,
        "uid": uid,
        "namespace": "default",
        "name": uid.removeprefix("uid-"),
        "at": 1000.0 + number,
        "verb": "prioritize",
        "scorer": "test",
        "fallback_reason": None,
        "warning": None,
        "demand": PodDemand(0.5, 1.0, 0.5),
        "candidates": nodes,
        "unknown": 0,
        "best_count": 1,
        "assumed": "node-0",
        "names": tuple(f"node-{i}" for i in range(nodes)),
        "preferences": np.linspace(1.0, 0.5, nodes),
        "priorities": np.arange(10, 10 - nodes, -1),
        "rows": random_state(np.random.default_rng(number), nodes),
        "latency_s": 0.001 * number,
        "first_at": 1000.0 + number,
    }
    return Decision(**{**values, **changes})


def explanation(decision: Decision, judge: Judge | None, other: str | None = None) -> dict[str, Any]:
    """What is told of a decision, and of another node."""
    return explained(Hindsight(decision, judge), other)
