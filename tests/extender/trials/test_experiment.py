"""An experiment: workloads keep their arm, the candidate decides for its own, and a verdict takes evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from typer.testing import CliRunner

from extender.cli import app
from extender.cluster.table import ClusterTable
from extender.history.ledger import Decision
from extender.history.outcomes import Outcome
from extender.history.store import decoded, encoded
from extender.pods import Pod
from extender.scorer.load import load_heuristic
from extender.trials.comparison import FEWEST, as_text, compared, difference, t_quantile
from extender.trials.experiment import CANDIDATE, CONTROL, Experiment, draw, workload_of
from policy.errors import InvalidInputError
from tests.extender.history.samples import a_decision
from tests.extender.scorers import open_gate
from tests.extender.service import Service, pod

Run = Callable[..., Service]
LEAST_USED = load_heuristic("least-used")


def owned(uid: str, controller: bool = True) -> list[dict[str, Any]]:
    """Owner references as the API server writes them."""
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": controller}
    return [{**reference, "uid": "other", "controller": False}, reference]


def decided(arm: str, workload: str, waiting_s: float, number: int = 0, **outcome: Any) -> Decision:
    """A pod of the workload that was bound after so long."""
    uid = f"uid-{arm}-{workload}-{number}"
    became = Outcome(node="node-0", bound_at=1.0, bind_s=waiting_s, **outcome)
    return a_decision(uid, arm=arm, workload=f"{arm}-{workload}", experiment="k", outcome=became)


def arms(control: float, candidate: float, workloads: int, pods: int = 3, seed: int = 0) -> list[Decision]:
    """Two arms of so many workloads whose waiting has these means, and a deviation of 1 between workloads."""
    rng = np.random.default_rng(seed)
    found = []
    for arm, mean in ((CONTROL, control), (CANDIDATE, candidate)):
        for workload, level in enumerate(rng.normal(mean, 1.0, workloads)):
            found += [decided(arm, str(workload), level + rng.normal(0.0, 0.01), i) for i in range(pods)]
    return found


# ---- assignment --------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_workload_keeps_its_arm_and_a_larger_share_keeps_its_workloads(
    workload: str, salt: str, share: float, other: float
) -> None:
    arm = Experiment(LEAST_USED, share, salt).arm_of(workload)
    assert Experiment(LEAST_USED, share, salt).arm_of(workload) == arm
    if other >= share and arm == CANDIDATE:
        assert Experiment(LEAST_USED, other, salt).arm_of(workload) == CANDIDATE
    assert 0.0 <= draw(workload, salt) < 1.0


def test_the_draw_stays_what_it_is_over_releases() -> None:
    recorded = [0.6553180961860161, 0.8420269134233415]
    assert [draw("a/b", ""), draw("a/b", "s")] == recorded, "else workloads would change their arm"


@given(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.text(max_size=8))
def test_the_share_is_honoured(share: float, salt: str) -> None:
    experiment = Experiment(LEAST_USED, share, salt)
    chosen = np.mean([experiment.arm_of(f"default/web-{i}") == CANDIDATE for i in range(2000)])
    assert chosen == pytest.approx(share, abs=6.0 * np.sqrt(share * (1.0 - share) / 2000))


def test_salts_choose_independently() -> None:
    first, second = (np.array([draw(f"a/{i}", salt) < 0.5 for i in range(4000)]) for salt in ("one", "two"))
    assert np.mean(first & second) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("references", "workload"),
    [
        (owned("rs-1"), "rs-1"),
        (owned("rs-1", controller=False), "default/web"),
        ([], "default/web"),
        (None, "default/web"),
        ("absent", "default/web"),
        ({"uid": 5}, "default/web"),
        ([{"uid": "", "controller": True}], "default/web"),
    ],
    ids=["controller", "owner alone", "empty", "null", "absent", "malformed", "no uid"],
)
def test_a_workload_is_its_controller_else_the_pod(references: Any, workload: str) -> None:
    document = pod() if references == "absent" else pod(ownerReferences=references)
    assert workload_of(msgspec.json.decode(json.dumps(document).encode(), type=Pod)) == workload


def test_another_candidate_share_or_salt_is_another_experiment() -> None:
    other = load_heuristic("most-allocated")
    parts = (LEAST_USED, 0.1, ""), (LEAST_USED, 0.2, ""), (LEAST_USED, 0.1, "s"), (other, 0.1, "")
    assert len({Experiment(*part).key for part in parts}) == 4


# ---- statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.95, 0.975, 0.995, 0.9999])
@pytest.mark.parametrize("freedom", [4.0, 5.5, 10.0, 29.0, 1000.0])
def test_the_quantile_is_students(share: float, freedom: float) -> None:
    tolerance = 0.002 if share < 0.99 or freedom > 9 else 0.05
    assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=tolerance)


def test_too_few_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="give 4 or more"):
        t_quantile(0.975, 3.0)


def test_the_interval_is_welchs() -> None:
    rng = np.random.default_rng(3)
    control, candidate = rng.normal(5.0, 1.0, 40), rng.normal(4.5, 3.0, 15)
    found = difference(control, candidate)
    theirs = stats.ttest_ind(candidate, control, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3)


def test_an_interval_leaves_out_a_difference_that_is_not_there_one_time_in_twenty() -> None:
    rng = np.random.default_rng(4)
    wrong = np.mean([difference(rng.exponential(1.0, 60), rng.exponential(1.0, 40)).tells for _ in range(2000)])
    assert 0.03 < wrong < 0.075


# ---- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "candidate", "verdict"),
    [(5.0, 3.0, CANDIDATE), (3.0, 5.0, CONTROL), (4.0, 4.0, "undecided")],
    ids=["candidate is better", "control is better", "alike"],
)
def test_a_verdict_follows_the_data(control: float, candidate: float, verdict: str) -> None:
    result = compared(arms(control, candidate, 60), "k", 0.5)
    assert result["verdict"] == verdict
    waiting = result["measures"]["waiting_s"]
    assert waiting["difference"]["low"] < candidate - control < waiting["difference"]["high"]
    assert (waiting["better"] or "undecided") == verdict
    assert (result["more_workloads"] is None) == (verdict != "undecided")
    assert verdict in as_text({**result, "candidate": {"scorer": "x"}, "share": 0.5})


def test_few_workloads_are_undecided_however_large_the_difference() -> None:
    result = compared(arms(100.0, 1.0, FEWEST - 10), "k", 0.25)
    assert (result["verdict"], result["more_workloads"]) == ("undecided", 40), "10 more at a share of a quarter"
    assert f"each arm needs {FEWEST}" in result["reason"]


def test_many_pods_of_one_workload_are_one_observation() -> None:
    result = compared(arms(5.0, 3.0, 4, pods=100), "k", 0.5)
    assert result["arms"][CANDIDATE]["workloads"] == 4
    assert result["arms"][CANDIDATE]["decisions"] == 400
    assert result["verdict"] == "undecided"
    assert result["measures"]["waiting_s"]["difference"]["low"] is None


def test_the_number_of_workloads_asked_for_would_tell() -> None:
    def spread(count: int) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.linspace(-1.0, 1.0, count)
        scaled: NDArray[np.float64] = values / values.std(ddof=1)
        return scaled

    found = difference(spread(40), spread(40) + 0.2)
    assert found.needed is not None
    assert not found.tells
    enough, fewer = int(1.05 * found.needed * 40), int(0.9 * found.needed * 40)
    assert difference(spread(enough), spread(enough) + 0.2).tells
    assert not difference(spread(fewer), spread(fewer) + 0.2).tells
    shifted = ((CONTROL, spread(40)), (CANDIDATE, spread(40) + 0.2))
    result = compared([decided(arm, str(i), v) for arm, values in shifted for i, v in enumerate(values)], "k", 0.5)
    waiting = result["measures"]["waiting_s"]
    assert (result["verdict"], waiting["better"]) == ("undecided", None)
    assert waiting["more_workloads"] >= (found.needed - 1) * 80, "at least what one measure alone would take"
    assert f"about {result['more_workloads']} more workloads" in result["reason"]


def test_measures_that_disagree_are_mixed() -> None:
    found = [decided(CONTROL, str(i), 5.0 + 0.1 * (i % 5), restarts=0) for i in range(40)]
    found += [decided(CANDIDATE, str(i), 3.0 + 0.1 * (i % 5), restarts=1 + i % 3) for i in range(40)]
    result = compared(found, "k", 0.5)
    assert result["verdict"] == "mixed"
    assert result["measures"]["restarts"]["better"] == CONTROL
    assert result["measures"]["waiting_s"]["better"] == CANDIDATE


def test_failures_out_of_memory_and_lateness_are_measured() -> None:
    unbound = a_decision("uid-x", arm=CONTROL, workload="x", experiment="k", outcome=Outcome(failure="unschedulable"))
    found = [unbound, decided(CONTROL, "y", 1.0, oom_killed=True, late=True, slowdown=3.0), decided(CONTROL, "z", 1.0)]
    measures = compared(found, "k", 0.5)["measures"]
    means = {name: it[CONTROL]["mean"] for name, it in measures.items()}
    assert means["failed"] == pytest.approx(1 / 3)
    assert (means["oom_killed"], means["late"], means["slowdown"]) == (0.5, 1.0, 3.0)
    rows = [d.rows for d in found[1:] if d.rows is not None]
    assert means["node_cpu_pressure"] == pytest.approx(np.mean([part.cpu_pressure[0] for part in rows]))
    assert means["node_cpu_use"] == pytest.approx(
        np.mean([part.cpu_used[0] / part.cpu_allocatable[0] for part in rows])
    )
    assert measures["node_cpu_use"]["judged"] is False


def test_other_experiments_and_nothing_at_all_are_left_out() -> None:
    result = compared([a_decision(), *arms(5.0, 3.0, 60)], "another", 0.5)
    assert [part["decisions"] for part in result["arms"].values()] == [0, 0]
    assert (result["verdict"], result["more_workloads"]) == ("undecided", 2 * FEWEST)


def test_a_share_that_leaves_an_arm_empty_is_said() -> None:
    result = compared([], "k", 1.0)
    assert (result["more_workloads"], result["reason"]) == (None, "experiment_share is 1: one arm gets no workloads")


# ---- in a service ------------------------------------------------------------------------------------------------


def test_a_decision_keeps_its_arm_on_disk() -> None:
    before = a_decision(arm=CANDIDATE, workload="w", experiment="k")
    after = decoded(encoded(before))
    assert (after.arm, after.workload, after.experiment) == (CANDIDATE, "w", "k")
    old = {k: v for k, v in json.loads(encoded(before)).items() if k not in ("arm", "workload", "experiment")}
    assert decoded(json.dumps(old).encode()).arm == ""


def test_a_candidate_decides_for_its_share_beside_a_shadow(run_service: Run) -> None:
    service = run_service(experiment="least-used", experiment_share=0.5, experiment_salt="s", shadow="most-allocated")
    names = service.add_nodes(10)
    for i in range(30):
        service.prioritize(names, pod(f"web-{i}", ownerReferences=owned(f"rs-{i % 10}")))
        service.change(partial(ClusterTable.pod_bound, uid=f"uid-web-{i}", node=names[i % 10], cpu=0.5, memory=1.0))
    seen: dict[str, set[str]] = {}
    for i in range(30):
        found = service.decision(f"uid-web-{i}")
        assert found["workload"] == f"rs-{i % 10}"
        assert found["scorer"] == ("least-used" if found["arm"] == CANDIDATE else "test")
        seen.setdefault(found["workload"], set()).add(found["arm"])
    assert all(len(part) == 1 for part in seen.values()), "pods of one workload share an arm"
    candidates = sum(part == {CANDIDATE} for part in seen.values())
    assert 0 < candidates < 10
    result = service.operations.get("/v1/experiment").json()
    assert result["candidate"]["scorer"] == "least-used"
    assert {arm: part["workloads"] for arm, part in result["arms"].items()} == {
        CONTROL: 10 - candidates,
        CANDIDATE: candidates,
    }
    assert result["measures"]["waiting_s"][CONTROL]["workloads"] == 10 - candidates
    assert result["measures"]["waiting_s"][CONTROL]["mean"] >= 0.0
    assert service.metric("maddpg_experiment_mean", arm=CONTROL, measure="failed") == 0.0
    assert service.metric("maddpg_experiment_difference", measure="failed", bound="value") == 0.0
    assert service.metric("maddpg_experiment_workloads", arm=CANDIDATE) == candidates
    assert service.metric("maddpg_experiment_pods", arm=CONTROL) == 30 - 3 * candidates
    assert service.metric("maddpg_experiment_verdict", verdict="undecided") == 1.0
    service.eventually(lambda: service.metric("maddpg_shadow_requests_total", result="compared") == 30 - 3 * candidates)
    assert service.metric("maddpg_shadow_requests_total", result="skipped") == 3 * candidates
    text = CliRunner().invoke(app, ["experiment", "--url", service.background.operations_url])
    assert (text.exit_code, "undecided" in text.stdout) == (0, True)
    answer = CliRunner().invoke(app, ["experiment", "--json", "--url", service.background.operations_url])
    assert json.loads(answer.stdout)["experiment"] == result["experiment"]


def test_the_fallback_answers_for_a_candidate_that_fails(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = open_gate(name="broken", mode="raises")
    monkeypatch.setattr("extender.scorer.load.load_candidate", lambda *_: candidate.loaded())
    service = run_service(experiment="broken", experiment_share=1.0)
    names = service.add_nodes(5)
    service.prioritize(names, pod())
    found = service.decision("uid-web")
    assert (found["arm"], found["scorer"], found["fallback_reason"]) == (CANDIDATE, "kube-default", "failed")
    candidate.mode = "well"
    service.prioritize(names, pod("again"))
    assert service.decision("uid-again")["scorer"] == "broken"


def test_a_pod_with_one_node_left_is_of_its_arm_too(run_service: Run) -> None:
    service = run_service(experiment="least-used", experiment_share=1.0)
    names = service.add_nodes(1)
    assert service.post("filter", {"Pod": pod(), "Nodes": None, "NodeNames": names}).status_code == 200
    assert service.decision("uid-web")["arm"] == CANDIDATE


def test_a_service_without_an_experiment_says_so(run_service: Run, tmp_path: Path) -> None:
    service = run_service()
    service.prioritize(service.add_nodes(3), pod())
    assert service.decision("uid-web")["arm"] is None
    assert service.operations.get("/v1/experiment").json() == {"candidate": None, "refused": None}
    answer = CliRunner().invoke(app, ["experiment", "--url", service.background.operations_url])
    assert (answer.exit_code, "there is no experiment; set `experiment`" in answer.stderr) == (1, True)
    bad = run_service(experiment=str(tmp_path / "nothing"))
    assert "neither a heuristic" in bad.operations.get("/v1/experiment").json()["refused"]
