"""An odd node is judged alone: the others are decided by the scorer as before, and it is not best for being odd."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.scorer.load import LoadedScorer
from extender.scorer.trust import CLIPPED, LAST, UNRATED, TrainingRange
from policy.cluster import ClusterState, Demand
from policy.errors import NonFinitePreferenceError
from policy.features import FEATURE_NAMES, HIGH, LOW
from policy.scorers import Preferences
from tests.extender.scorers import Controlled, open_gate
from tests.extender.service import Service, pod
from tests.policy.states import write_bundle

Run = Callable[..., Service]
MODEL = Path(__file__).parents[3] / "policy" / "models" / "default"
SPEED = FEATURE_NAMES.index("node_speed")


def trained(low: float = -0.5, high: float = 0.5) -> LoadedScorer:
    """A scorer that was trained on these speeds."""
    least, most = LOW.copy(), HIGH.copy()
    least[SPEED], most[SPEED] = low, high
    return LoadedScorer(Controlled(), 0.1, "", training_range=(least, most))


def seen(**features: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A row ``[1, 8]`` that is half full, with these features."""
    values = dict.fromkeys(FEATURE_NAMES, 0.5) | {"node_speed": 0.0} | features
    return np.array([[values[name] for name in FEATURE_NAMES]], dtype=np.float32)


@pytest.mark.parametrize(
    ("features", "code"),
    [
        pytest.param({}, None, id="usual"),
        pytest.param({"node_speed": 0.59}, None, id="within the tolerance"),
        pytest.param({"node_speed": 0.7}, CLIPPED, id="faster than any"),
        pytest.param({"node_speed": -0.9}, CLIPPED, id="slower than any"),
        pytest.param({"pod_size": 1.2}, CLIPPED, id="a pod larger than the node"),
        pytest.param({"cpu_used": 2.3}, LAST, id="uses more than twice what it has"),
        pytest.param({"memory_used": 9.0}, LAST, id="memory"),
        pytest.param({"cpu_requested": 2.3}, LAST, id="requests"),
        pytest.param({"cpu_used": float("inf"), "node_speed": 0.7}, LAST, id="both"),
    ],
)
def test_a_row_is_odd_beyond_the_tolerance(features: dict[str, float], code: int | None) -> None:
    training, row = TrainingRange(trained(), 0.1), seen(**features)
    codes = training.codes(row)
    assert (None if codes is None else codes.tolist()) == (None if code is None else [code])
    assert TrainingRange(trained(), None).codes(row) is None, "no tolerance is any distance"
    if code is not None:
        assert [name in training.why(row[0], code) for name in features] == [True] * len(features)
        clipped = training.seen(row, codes)[0]
        assert ((clipped >= LOW) & (clipped <= HIGH)).all()
        assert -0.6001 <= clipped[SPEED] <= 0.6001


@pytest.mark.parametrize(("features", "code"), [({"node_speed": 9.0}, None), ({"cpu_used": 2.3}, LAST)])
def test_of_a_heuristic_load_alone_is_odd(features: dict[str, float], code: int | None) -> None:
    codes = TrainingRange(open_gate().loaded(), 0.1).codes(seen(**features))
    assert (None if codes is None else codes.tolist()) == (None if code is None else [code])


@given(
    preferences=st.lists(st.floats(-5.0, 5.0, width=32), min_size=1, max_size=8),
    codes=st.lists(st.sampled_from([0, 0, CLIPPED, LAST, UNRATED]), min_size=8, max_size=8),
)
def test_the_others_stay_and_what_is_last_is_below_them(preferences: list[float], codes: list[int]) -> None:
    given_codes = np.array(codes[: len(preferences)], dtype=np.uint8)
    unrated = given_codes == UNRATED
    asked = np.where(unrated, np.float32(np.nan), np.array(preferences, dtype=np.float32))
    training = TrainingRange(trained(), 0.1)
    if unrated.all():
        with pytest.raises(NonFinitePreferenceError):
            training.settled(asked, given_codes, 0.1)
        return
    found, odd = training.settled(asked, given_codes, 0.1)
    assert np.isfinite(found).all()
    assert (odd is None) == (not given_codes.any())
    last = given_codes >= LAST
    kept = ~last if not last.all() else ~unrated
    np.testing.assert_array_equal(found[kept], asked[kept])
    if not kept.all():
        assert found[~kept].max() <= found[kept].min()
        assert found[~kept].max() <= found[kept].max() - 0.0999


def asked(name: str) -> dict[str, Any]:
    return pod(name, annotations={"maddpg-scheduler.io/urgency": "0.9"})


def good(service: Service) -> list[str]:
    """Two nodes about which the shipped policy and kube-default disagree, and an odd one to be."""

    def add(table: Any) -> None:
        table.upsert_node("quick", 8.0, 32.0, speed=1.5)
        table.upsert_node("slow", 8.0, 32.0, speed=0.7)
        table.upsert_node("odd", 8.0, 32.0)
        table.pod_bound("on-quick", "quick", 3.0, 12.0)
        table.pod_bound("on-slow", "slow", 1.0, 4.0)

    service.change(add)
    return ["quick", "slow", "odd"]


ODD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "fast": (lambda table: table.upsert_node("odd", 8.0, 32.0, speed=9.0), "clipped"),
    "requested": (lambda table: table.pod_bound("static", "odd", 20.0, 80.0), "last"),
    "requested by pods that do not say": (
        lambda table: table.pod_bound("static", "odd", 0.0, 0.0, cpu_nonzero=20.0, memory_nonzero=80.0),
        "last",
    ),
    "used": (lambda table: table.set_usage("odd", 24.0, 4.0, None, time.time()), "last"),
    "memory used": (lambda table: table.set_usage("odd", 1.0, 96.0, None, time.time()), "last"),
    "nothing allocatable to speak of": (
        lambda table: (table.upsert_node("odd", 1e-9, 1e-9), table.pod_bound("p", "odd", 1.0, 1.0)),
        "last",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_one_odd_node_takes_the_policy_from_no_pod(run_service: Run, case: str) -> None:
    change, treatment = ODD[case]
    service = run_service(bundle_path=MODEL)
    names = good(service)
    alone = service.prioritize(names[:2], asked("alone"))
    assert alone["quick"] > alone["slow"]
    service.change(lambda table: table.withdraw("uid-alone"))
    service.change(change)
    for again in range(2):  # the second time from what is kept
        scores = service.prioritize(names, asked(f"with-{again}"))
        service.change(lambda table, uid=f"uid-with-{again}": table.withdraw(uid))
        told = service.decision(f"uid-with-{again}")
        assert (told["scorer"], told["fallback_reason"]) == ("maddpg-default", None)
        rated = {node["node"]: node["preference"] for node in told["nodes"]}
        assert rated["quick"] > rated["slow"], "priorities far below the best are all 0"
        assert treatment == "clipped" or scores["odd"] < scores["quick"]
        assert told["odd_nodes"]["count"] == 1
        [(node, why)] = told["odd_nodes"]["some"].items()
        assert (node, treatment == "clipped") == ("odd", why.endswith("clipped"))
        assert service.metric("maddpg_odd_nodes_total", treatment=treatment) == again + 1
    assert told["unexplained"] is None
    assert told["counterfactual"]["node"] == "slow" or told["nodes"][0]["node"] == "slow"
    assert service.metric("maddpg_observation_clipped_total", feature="pod_urgency") == 0


@pytest.mark.parametrize("scorer", ["kube-default", "expected-speed", "most-allocated"])
@pytest.mark.parametrize("case", ["used", "memory used"])
def test_no_scorer_and_no_fallback_rates_an_overloaded_node_best(run_service: Run, scorer: str, case: str) -> None:
    """kube-default looks at requests alone, and an overloaded node may have none."""
    failing = open_gate()
    for settings in ({"scorer": scorer}, {"fallback": scorer, "loaded": failing.loaded()}):
        failing.mode = "well"  # it proves itself at the start
        service = run_service(**settings)
        failing.mode = "raises"
        names = good(service)
        service.change(ODD[case][0])
        scores = service.prioritize(names, asked("with"))
        assert max(scores, key=lambda name: scores[name]) != "odd", f"{settings}: {scores}"
        assert service.decision("uid-with")["odd_nodes"]["count"] == 1


def test_a_pod_of_a_million_cores_is_decided_by_what_still_means_something(run_service: Run) -> None:
    """Every row is odd then; and the placement assumed for it makes its node odd for the pods after it."""
    service = run_service(bundle_path=MODEL)
    names = good(service)
    greedy = service.prioritize(names, pod("greedy", "1000000", "1Gi"))
    assert max(greedy.values()) == 10
    told = service.decision("uid-greedy")
    assert (told["scorer"], told["fallback_reason"], told["odd_nodes"]["count"]) == ("maddpg-default", None, 3)
    filled = told["assumed"]
    scores = service.prioritize(names, asked("next"))
    assert service.decision("uid-next")["fallback_reason"] is None
    assert max(scores, key=lambda name: scores[name]) != filled


class Patchy(Controlled):
    """Has no opinion of small nodes."""

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """NaN for them, their speed for others."""
        return np.where(state.cpu_allocatable < 8.0, np.nan, super().preferences(state, demand))


def test_a_preference_that_is_not_finite_costs_its_own_node_alone(run_service: Run) -> None:
    scorer = Patchy()
    scorer.gate.set()
    service = run_service(loaded=scorer.loaded(), breaker_failures=2)
    names = service.add_nodes(4)  # node-3 is the fastest
    service.change(lambda table: table.upsert_node("node-2", 4.0, 32.0, speed=3.0))
    for again in range(8):
        scores = service.prioritize(names, pod(f"p{again}"))
        told = service.decision(f"uid-p{again}")
        assert (told["scorer"], told["fallback_reason"]) == ("controlled", None), "the breaker stays closed"
        assert max(scores, key=lambda name: scores[name]) == "node-3"
        assert scores["node-2"] == min(scores.values())
        assert "no finite preference" in told["odd_nodes"]["some"]["node-2"]
    assert service.metric("maddpg_odd_nodes_total", treatment="unrated") == 8
    service.prioritize(["node-2"], pod("alone"))
    assert service.decision("uid-alone")["fallback_reason"] == "non_finite", "there is nothing to decide by"


def test_the_range_is_the_one_the_bundle_was_trained_on(run_service: Run, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "narrow", feature_ranges={"node_speed": [-0.5, 0.5]})
    service = run_service(bundle_path=bundle)
    names = service.add_nodes(4)
    service.prioritize(names[:3], pod("three"))
    assert service.decision("uid-three")["odd_nodes"]["count"] == 0
    service.prioritize(names, pod("four"))
    assert list(service.decision("uid-four")["odd_nodes"]["some"]) == ["node-3"], "it has a speed of 1.75"
    assert service.metric("maddpg_observation_clipped_total", feature="node_speed") >= 1


@pytest.mark.parametrize(("tolerance", "odd"), [(0.0, 1), (0.1, 1), (0.5, 0), (None, 0)])
def test_how_far_beyond_is_a_setting(run_service: Run, tolerance: float | None, odd: int) -> None:
    service = run_service(range_tolerance=tolerance)
    names = service.add_nodes(2)
    service.change(lambda table: table.upsert_node("node-1", 8.0, 32.0, speed=4.0 + 0.4 * 4.0))
    service.prioritize(names)
    assert service.decision("uid-web")["odd_nodes"]["count"] == odd
