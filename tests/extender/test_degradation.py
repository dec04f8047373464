"""Input too old: the fallback decides, says why, and hands back by itself. Ranges of training are what bundles say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from extender.scorer.fallback import FALLBACK_REASONS, reason_of, staleness
from policy.bundle import load_bundle
from policy.errors import BundleError
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, pod
from tests.extender.test_engine import until
from tests.policy.states import write_bundle

Run = Callable[..., Service]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reason(service: Service, names: list[str], name: str = "web") -> str | None:
    """Why the fallback answered for a new attempt at this pod."""
    service.prioritize(names, pod(name))
    found: str | None = service.decision(f"uid-{name}")["fallback_reason"]
    return found


@pytest.mark.parametrize(
    ("ages", "word"),
    [
        ({"nodes": 1.0, "pods": 1.0, "usage": 1.0}, None),
        ({"nodes": 61.0, "pods": 1.0, "usage": 1.0}, "stale_cluster"),
        ({"nodes": 1.0, "pods": 61.0, "usage": 1.0}, "stale_cluster"),
        ({"nodes": 1.0, "pods": 1.0, "usage": 31.0}, "stale_usage"),
        ({"nodes": 61.0, "pods": 1.0, "usage": 31.0}, "stale_cluster"),
        ({"nodes": None, "pods": None, "usage": None}, None),
        ({}, None),
    ],
    ids=["current", "nodes", "pods", "usage", "both", "never current", "nothing said"],
)
def test_an_input_is_stale_beyond_its_limit(ages: dict[str, float | None], word: str | None) -> None:
    found = staleness(ages, 60.0, 30.0)
    assert (None if found is None else reason_of(found)) == word
    assert word is None or word in FALLBACK_REASONS


@pytest.mark.parametrize(
    ("stale", "word"), [("nodes", "stale_cluster"), ("pods", "stale_cluster"), ("usage", "stale_usage")]
)
def test_the_fallback_decides_while_an_input_is_stale(run_service: Run, stale: str, word: str) -> None:
    clock = Clock()
    service = run_service(
        EmbeddedSource(timer=clock), cluster_time_limit_s=60.0, usage_time_limit_s=60.0, housekeeping_interval_s=0.02
    )
    inputs = ("nodes", "pods", "usage")
    names = service.add_nodes(3)
    service.change(lambda table: None, *inputs)
    assert reason(service, names) is None
    clock.now += 61.0
    service.change(lambda table: None, *(name for name in inputs if name != stale))
    until(lambda: reason(service, names) == word)
    assert service.decision("uid-web")["scorer"] == "kube-default"
    assert service.metric("maddpg_fallbacks_total", reason=word) >= 1
    assert service.operations.get("/readyz").status_code == 200
    service.change(lambda table: None, stale)
    until(lambda: reason(service, names) is None)


def test_a_bundle_from_before_ranges_were_recorded_has_the_schemas(tmp_path: Path) -> None:
    recorded = load_bundle(write_bundle(tmp_path / "one")).manifest
    assert recorded.feature_ranges == {}
    low, high = recorded.training_range()
    assert (low[5], high[5]) == (-1.0, 3.0)


@pytest.mark.parametrize(
    "ranges",
    [
        {"size": [0.0, 1.0]},
        {"node_speed": [1.0]},
        {"node_speed": [1.0, 0.0]},
        {"node_speed": [0.0, float("inf")]},
        {"node_speed": "x"},
    ],
    ids=["unknown feature", "one number", "reversed", "infinite", "text"],
)
def test_ranges_that_are_none_are_refused(tmp_path: Path, ranges: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="feature_ranges"):
        load_bundle(write_bundle(tmp_path / "bad", feature_ranges=ranges))
