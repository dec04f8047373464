"""A candidate in the shadow is compared with what decides, and nothing it does is felt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from extender.scorer.load import LoadedScorer, load_candidate
from extender.supervision import Failures
from extender.trials.shadow import Shadow, rank_correlation
from policy.cluster import ClusterState, PodDemand
from policy.errors import BundleError, InvalidInputError
from policy.scorers import Preferences
from tests.extender.scorers import Controlled, open_gate
from tests.extender.service import Service, pod
from tests.policy.states import random_state, write_bundle

Run = Callable[..., Service]
DEMAND = PodDemand(0.5, 1.0, 0.5)
LEVELS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30)


class Reversed(Controlled):
    """Prefers what `Controlled` likes least."""

    def preferences(self, state: ClusterState, demand: object) -> Preferences:
        """Slow nodes first."""
        return -state.node_speed


def settled(shadow: Shadow, requests: int) -> None:
    """Wait until so many have been compared or failed."""
    deadline = time.monotonic() + 20.0
    while (counts := shadow.counts()).compared + counts.failed < requests:
        assert time.monotonic() < deadline, counts
        time.sleep(0.005)


def offer(shadow: Shadow, nodes: int = 6) -> None:
    """One request that `Controlled` answered."""
    state = random_state(np.random.default_rng(nodes), nodes)
    best = int(state.node_speed.argmax())
    shadow.offer(state, DEMAND, np.arange(nodes), state.node_speed.copy(), best, 0.1)


@given(LEVELS)
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=float).T
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("candidate", "same_best", "correlation"),
    [(open_gate(), 1.0, 1.0), (Reversed(), 0.0, -1.0)],
    ids=["the same", "the opposite"],
)
def test_agreement_is_measured(candidate: Controlled, same_best: float, correlation: float) -> None:
    shadow = Shadow(candidate.loaded(), Failures())
    shadow.start()
    offer(shadow)
    offer(shadow, 9)
    settled(shadow, 2)
    status = shadow.status()
    assert status["same_best_share"] == same_best
    assert status["rank_correlation"] == pytest.approx(correlation)
    assert (status["priorities_far_share"] == 0.0) == (correlation > 0.0)
    assert shadow.counts().priorities == 15
    assert shadow.stop()


@pytest.mark.parametrize("mode", ["blank", "raises", "breaks", "exits", "short"])
def test_a_candidate_that_fails_is_counted_and_asked_again(mode: str) -> None:
    candidate = open_gate(mode=mode)
    shadow = Shadow(candidate.loaded(), Failures())
    shadow.start()
    offer(shadow)
    settled(shadow, 1)
    assert (shadow.counts().failed, shadow.status()["same_best_share"]) == (1, None)
    assert shadow.status()["last_error"]
    assert "told to" not in shadow.status()["last_error"] or mode == "raises", "the text of a foreign exception"
    candidate.mode = "well"
    offer(shadow)
    settled(shadow, 2)
    assert shadow.counts().compared == 1
    assert shadow.stop()


def test_a_candidate_that_hangs_holds_a_bounded_number_of_requests() -> None:
    candidate = Controlled()
    shadow = Shadow(candidate.loaded(), Failures(), waiting=3)
    shadow.start()
    offer(shadow)
    while not candidate.calls:
        time.sleep(0.001)
    for _ in range(10):
        offer(shadow)
    assert (shadow.status()["waiting"], shadow.counts().dropped) == (3, 7)
    assert not shadow.stop(timeout=0.01)
    candidate.gate.set()
    shadow._thread.join(20.0)
    assert shadow.counts().compared <= 1, "what waits is left at the end"


def test_a_request_with_one_node_has_nothing_to_compare() -> None:
    shadow = Shadow(open_gate().loaded(), Failures())
    offer(shadow, nodes=1)
    assert shadow.counts().skipped == 1
    assert shadow.stop()


def test_a_shadow_that_sleeps_delays_no_request(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = Controlled(name="asleep")  # 20 s for each call
    monkeypatch.setattr("extender.scorer.load.load_candidate", lambda *_: asleep.loaded())
    service = run_service(shadow="asleep", deadline_ms=15_000.0)
    names = service.add_nodes(20)
    for i in range(40):
        service.prioritize(names, pod(f"web-{i}"))
        assert service.decision(f"uid-web-{i}")["fallback_reason"] is None
    assert len(asleep.calls) <= 4, "forty requests were answered while the shadow slept through a few"
    requests = service.operations.get("/v1/shadow").json()["requests"]
    assert (requests["compared"], requests["dropped"] >= 20) == (0, True)
    assert asleep.threads == {"shadow"}
    asleep.gate.set()


def test_a_service_compares_a_heuristic_with_its_policy(run_service: Run) -> None:
    service = run_service(shadow="least-used")
    names = service.add_nodes(20)
    for i in range(10):
        service.prioritize(names, pod(f"web-{i}"))
    service.prioritize(["stranger"], pod("lost"))
    service.eventually(lambda: service.metric("maddpg_shadow_requests_total", result="compared") == 10)
    status = service.operations.get("/v1/shadow").json()
    assert status["candidate"]["scorer"] == "least-used"
    assert status["requests"] == {"compared": 10, "dropped": 0, "failed": 0, "skipped": 1}
    assert service.metric("maddpg_shadow_same_best_total") == pytest.approx(10 * status["same_best_share"])
    far = service.metric("maddpg_shadow_priorities_total", far="true")
    assert far + service.metric("maddpg_shadow_priorities_total", far="false") == 200
    assert far == pytest.approx(200 * status["priorities_far_share"])
    assert service.metric("maddpg_shadow_seconds_total") > 0.0


def test_a_policy_agrees_with_itself(run_service: Run, bundle_path: Path) -> None:
    service = run_service(shadow=str(bundle_path))
    names = service.add_nodes(20)
    service.prioritize(names, pod())
    service.eventually(lambda: service.metric("maddpg_shadow_requests_total", result="compared") == 1)
    status = service.operations.get("/v1/shadow").json()
    assert (status["same_best_share"], status["priorities_far_share"]) == (1.0, 0.0)
    assert status["rank_correlation"] == pytest.approx(1.0, abs=1e-3)


def test_what_the_fallback_answered_is_not_compared(run_service: Run) -> None:
    failing = open_gate()
    service = run_service(shadow="least-used", loaded=failing.loaded())
    failing.mode = "raises"
    service.prioritize(service.add_nodes(5), pod())
    service.eventually(lambda: service.metric("maddpg_shadow_requests_total", result="skipped") == 1)
    assert service.metric("maddpg_shadow_requests_total", result="compared") == 0


def test_a_service_without_a_shadow_says_so(run_service: Run) -> None:
    assert run_service().operations.get("/v1/shadow").json() == {"candidate": None, "refused": None}


def test_a_bad_candidate_does_not_keep_the_service_from_serving(run_service: Run, tmp_path: Path) -> None:
    bad = write_bundle(tmp_path / "bad")
    (bad / "actor.onnx").write_bytes(b"cut")
    service = run_service(shadow=str(bad))
    assert len(service.prioritize(service.add_nodes(5), pod())) == 5
    status = service.operations.get("/v1/shadow").json()
    assert status["candidate"] is None
    assert "actor.onnx" in status["refused"]


def test_a_candidate_is_a_heuristic_or_a_folder(bundle_path: Path) -> None:
    assert load_candidate("least-used").scorer.name == "least-used"
    assert isinstance(load_candidate(str(bundle_path)), LoadedScorer)
    with pytest.raises(InvalidInputError, match="candidate 'leest-used' is neither a heuristic"):
        load_candidate("leest-used")
    with pytest.raises(BundleError, match="File name too long"):
        load_candidate("a" * 300)
