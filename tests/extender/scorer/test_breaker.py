"""The circuit breaker: alone with a clock of the test's own, and before a scorer that keeps failing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from extender.scorer.breaker import Breaker, BreakerState
from policy.errors import InvalidInputError
from tests.extender.scorers import open_gate
from tests.extender.service import Service, pod
from tests.extender.test_engine import until

Run = Callable[..., Service]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, changes: list[BreakerState] | None = None) -> Breaker:
    return Breaker(3, 10.0, clock, None if changes is None else changes.append)


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    changes: list[BreakerState] = []
    guard = breaker(Clock(), changes)
    for outcome in (guard.failed, guard.failed, guard.succeeded, guard.failed, guard.failed):
        outcome()
        assert guard.admits()
    guard.failed()
    assert not guard.admits()
    assert (guard.state, guard.opened, changes) == (BreakerState.OPEN, 1, [BreakerState.OPEN])


def opened(clock: Clock) -> Breaker:
    guard = breaker(clock)
    for _ in range(3):
        guard.failed()
    return guard


def test_after_cooling_one_call_is_a_trial_and_the_others_wait_for_it() -> None:
    clock = Clock()
    guard = opened(clock)
    clock.now += 9.9
    assert not guard.admits()
    clock.now += 0.2
    assert [guard.admits() for _ in range(3)] == [True, False, False]
    assert guard.state is BreakerState.HALF_OPEN


@pytest.mark.parametrize("well", [True, False], ids=["it does well", "it fails"])
def test_the_trial_decides(well: bool) -> None:
    clock = Clock()
    guard = opened(clock)
    clock.now += 11.0
    assert guard.admits()
    (guard.succeeded if well else guard.failed)()
    assert guard.admits() is well
    assert guard.state is (BreakerState.CLOSED if well else BreakerState.OPEN)
    assert guard.opened == (1 if well else 2)
    clock.now += 9.0
    assert guard.admits() is well, "a failed trial starts the cooling anew"


def test_a_trial_whose_end_nobody_reports_is_given_up_after_the_same_time() -> None:
    clock = Clock()
    guard = opened(clock)
    clock.now += 11.0
    assert guard.admits()
    clock.now += 11.0
    assert guard.admits()


@pytest.mark.parametrize(("failures", "cooling"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_numbers_out_of_range_are_refused(failures: int, cooling: float) -> None:
    with pytest.raises(InvalidInputError, match="failures >= 1"):
        Breaker(failures, cooling, Clock())


def test_a_scorer_that_keeps_failing_is_left_alone_and_taken_up_again(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), breaker_failures=3, breaker_cooling_s=0.3)
    names = service.add_nodes(4)
    scorer.mode = "raises"
    for i in range(3):
        service.prioritize(names, pod(f"failing{i}"))
    asked = len(scorer.calls)
    service.prioritize(names, pod("open"))
    decision = service.decision("uid-open")
    assert (decision["fallback_reason"], decision["scorer"]) == ("breaker_open", "kube-default")
    assert len(scorer.calls) == asked, "an open breaker lets nothing through"
    assert service.metric("maddpg_breaker_state", state="open") == 1
    assert service.metric("maddpg_breaker_state", state="closed") == 0
    assert service.metric("maddpg_breaker_opened_total") == 1
    assert service.metric("maddpg_fallbacks_total", reason="breaker_open") == 1
    assert service.operations.get("/v1/policy").json()["breaker"] == {"state": "open", "opened": 1}
    assert service.operations.get("/readyz").status_code == 200
    scorer.mode = "well"
    until(lambda: service.prioritize(names, pod("tried")) is not None and answered(service, "tried") is None)
    assert service.metric("maddpg_breaker_state", state="closed") == 1


def test_late_answers_open_it_and_what_comes_late_does_not_close_it(run_service: Run) -> None:
    scorer = open_gate()
    service = run_service(loaded=scorer.loaded(), deadline_ms=30.0, breaker_failures=2, breaker_cooling_s=60.0)
    names = service.add_nodes(4)
    for i in range(2):
        scorer.gate.clear()
        asked = len(scorer.calls)
        service.prioritize(names, pod(f"late{i}", cpu=f"{i + 1}"))
        until(lambda asked=asked: len(scorer.calls) > asked)
        time.sleep(0.02)  # one that is quick once it begins would be asked on the event loop next time
        scorer.gate.set()
        until(lambda: not overdue(service))
    service.prioritize(names, pod("open", cpu="3"))
    assert [answered(service, name) for name in ("late0", "late1", "open")] == ["late", "late", "breaker_open"]


def overdue(service: Service) -> bool:
    """Whether the scorer still works on a request that was answered without it."""
    scoring = service.background.app.engine.scoring
    assert scoring is not None
    return bool(scoring._overdue)


def answered(service: Service, name: str) -> str | None:
    """Why the fallback answered for this pod."""
    reason: str | None = service.decision(f"uid-{name}")["fallback_reason"]
    return reason
