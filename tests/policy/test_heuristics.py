"""Each rule prefers the node its source would."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from policy import heuristics
from policy.cluster import COLUMNS, ClusterState, DemandBatch, PodDemand
from policy.errors import InvalidInputError
from policy.scorers import Scorer
from tests.policy.states import requesting

GIB, MIB = 2**30, 2**20

POD = PodDemand(cpu=1.0, memory=4.0, urgency=0.5)

IDLE = ClusterState.idle([10.0, 10.0, 10.0, 10.0], 40.0, [1.0, 1.0, 0.8, 1.5])
STATE = replace(
    requesting(IDLE, [1.0, 8.0, 3.0, 5.0], [4.0, 32.0, 12.0, 20.0]),
    cpu_used=np.array([5.0, 5.5, 0.5, 4.0]),
)


@pytest.mark.parametrize(
    ("name", "best"), [("kube-default", 0), ("most-allocated", 1), ("least-used", 2), ("expected-speed", 3)]
)
def test_the_rule_prefers_the_node_its_source_would(name: str, best: int) -> None:
    rule = heuristics.by_name(name)
    assert isinstance(rule, Scorer)
    assert int(rule.preferences(STATE, POD).argmax()) == best


@dataclass(frozen=True)
class Logged:
    """What a real kube-scheduler logged of a pod and a node (millicores, bytes): tests/control_plane shows how."""

    allocatable: tuple[int, int]
    requested: tuple[int, int]
    nonzero: tuple[int, int]
    """Requested and what counts for containers that do not say."""
    pod: tuple[int, int]
    pod_nonzero: tuple[int, int]
    up_to_1_35: tuple[int, int]
    """NodeResourcesFit and NodeResourcesBalancedAllocation."""
    from_1_36: tuple[int, int]

    def rated(self, version: str) -> float:
        state = replace(
            ClusterState.idle([self.allocatable[0] / 1000], self.allocatable[1] / GIB),
            cpu_requested=np.array([self.requested[0] / 1000]),
            memory_requested=np.array([self.requested[1] / GIB]),
            cpu_nonzero=np.array([self.nonzero[0] / 1000]),
            memory_nonzero=np.array([self.nonzero[1] / GIB]),
        )
        pod = PodDemand(
            self.pod[0] / 1000, self.pod[1] / GIB, 0.5, self.pod_nonzero[0] / 1000, self.pod_nonzero[1] / GIB
        )
        return float(heuristics.by_name("kube-default", version).preferences(state, pod)[0])


LOGGED = {
    "the change for the better": Logged(
        (8000, 32 * GIB), (6000, 8 * GIB), (6000, 8 * GIB), (250, 6 * GIB), (250, 6 * GIB), (38, 82), (38, 78)
    ),
    "the better state": Logged(
        (8000, 32 * GIB), (4000, 17 * GIB), (4000, 17 * GIB), (250, 6 * GIB), (250, 6 * GIB), (37, 90), (37, 71)
    ),
    "the change for the worse": Logged(
        (8000, 32 * GIB), (1000, 4 * GIB), (1000, 4 * GIB), (6500, 512 * MIB), (6500, 512 * MIB), (45, 60), (45, 55)
    ),
    "an idle node": Logged((3000, 7 * GIB), (0, 0), (0, 0), (1000, 4 * GIB), (1000, 4 * GIB), (54, 88), (54, 69)),
    "a pod that requests nothing": Logged(
        (8000, 32 * GIB), (2000, 17 * GIB), (2000, 17 * GIB), (0, 0), (100, 200 * MIB), (59, 0), (59, 0)
    ),
    "five others that request nothing": Logged(
        (8000, 32 * GIB), (2000, 3 * GIB), (2500, 4072 * MIB), (500, 4 * GIB), (500, 4 * GIB), (68, 95), (68, 76)
    ),
    "more CPU requested than there is": Logged(
        (8000, 32 * GIB), (10000, 3 * GIB), (10000, 3 * GIB), (0, 4 * GIB), (100, 4 * GIB), (39, 60), (39, 78)
    ),
    "no memory to allocate": Logged(
        (4000, 0), (1533, 1536 * MIB), (1533, 1536 * MIB), (500, 0), (500, 200 * MIB), (49, 100), (49, 75)
    ),
    "no CPU to allocate": Logged((0, 8 * GIB), (1000, GIB), (1000, GIB), (0, GIB), (100, GIB), (75, 100), (75, 75)),
    "odd sizes": Logged(
        (7910, 29161292 * 1024),
        (3333, 12345678901),
        (3333, 12345678901),
        (33, 129_000_000),
        (33, 129_000_000),
        (57, 99),
        (57, 75),
    ),
    "memory alone on the node, CPU alone in the pod": Logged(
        (16000, 64 * GIB), (0, 900_000_000), (300, 900_000_000), (1500, 0), (1500, 200 * MIB), (93, 95), (93, 73)
    ),
}


@pytest.mark.parametrize("case", LOGGED.values(), ids=LOGGED)
@pytest.mark.parametrize("version", heuristics.KUBERNETES_VERSIONS)
def test_kube_default_is_what_a_real_kube_scheduler_logged(case: Logged, version: str) -> None:
    right = case.up_to_1_35 if version in ("1.34", "1.35") else case.from_1_36
    assert round(100 * case.rated(version)) == sum(right)


def test_kube_default_scores_many_clusters_as_it_scores_each() -> None:
    draw = np.random.default_rng(3)
    clusters, nodes = 40, 6
    requested = draw.uniform(0.0, 9.0, (clusters, nodes)), draw.uniform(0.0, 36.0, (clusters, nodes))
    state = replace(
        ClusterState.idle(np.full((clusters, nodes), 8.0), 32.0),
        cpu_requested=requested[0],
        memory_requested=requested[1],
        cpu_nonzero=requested[0] + 0.1,
        memory_nonzero=requested[1],
    )
    pods = [PodDemand(0.0, 0.0, 0.5, 0.1, 0.2) if i % 3 else PodDemand(0.25 * i, 0.5, 0.5) for i in range(clusters)]
    demands = DemandBatch(*(np.array([[getattr(pod, item.name)] for pod in pods]) for item in fields(DemandBatch)))
    for version in heuristics.KUBERNETES_VERSIONS:
        together = heuristics.kube_default(state, demands, version)
        rows = [ClusterState(*(getattr(state, column)[i] for column in COLUMNS)) for i in range(clusters)]
        apart = [heuristics.kube_default(row, pod, version) for row, pod in zip(rows, pods, strict=True)]
        np.testing.assert_array_equal(together, apart)


def test_an_unknown_version_of_kubernetes_is_refused_with_the_known_ones_listed() -> None:
    with pytest.raises(InvalidInputError, match=r"1\.34, 1\.35, 1\.36, 1\.37"):
        heuristics.by_name("kube-default", "1.33")


def test_most_allocated_cuts_each_resource_to_a_whole_percent_and_the_mean_too() -> None:
    state = ClusterState.idle([3.0, 1.0], [7.0, 2.0])
    # 1/3 is 33 %, 4/7 is 57 %: 45. More than there is counts as all there is
    np.testing.assert_array_equal(heuristics.most_allocated(state, POD), [0.45, 1.0])


def test_random_preferences_repeat_with_their_seed() -> None:
    first, again = (heuristics.Random(np.random.default_rng(5)).preferences(STATE, POD) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.tolist())) == 4


def test_an_unknown_heuristic_is_refused_with_the_known_ones_listed() -> None:
    with pytest.raises(InvalidInputError, match="kube-default"):
        heuristics.by_name("best-effort")


SATISFICE = heuristics.SufficientSpeed(
    least_urgency=0.2, safe_margin=1.35, headroom_weight=0.5, spared_speed_weight=0.3
)


def nodes(speed: list[float], **columns: list[float]) -> ClusterState:
    """Nodes of 10 cores and 40 GiB."""
    idle = ClusterState.idle([10.0] * len(speed), 40.0, speed)
    return replace(idle, **{name: np.array(values) for name, values in columns.items()})


SMALL = PodDemand(cpu=1.0, memory=2.0, urgency=0.5)


def test_sufficient_speed_takes_the_emptiest_slow_node_that_is_in_time() -> None:
    # empty but for the pod: use 0.065 lies below every knee, so it runs at the node's speed less the pressure;
    # urgency 0.5 allows a slowdown of 2; headroom is (0.9 + 0.95) / 2
    state = nodes([1.0, 1.5, 0.6, 1.0], cpu_pressure=[0.0, 0.0, 0.0, 0.5])
    expected = [2.0 + 0.5 * 0.925 - 0.3 * 1.0, 2.0 + 0.5 * 0.925 - 0.3 * 1.5, 0.6 * 2.0, 0.5 * 2.0]
    np.testing.assert_allclose(SATISFICE(state, SMALL), expected)


def test_sufficient_speed_asks_for_some_speed_even_of_best_effort() -> None:
    pod = PodDemand(cpu=1.0, memory=2.0, urgency=0.0)
    # a slowdown of 5 is allowed: margins 5 x speed, of which 1.35 is enough
    np.testing.assert_allclose(SATISFICE(nodes([0.26, 0.28]), pod), [1.3, 2.0 + 0.5 * 0.925 - 0.3 * 0.28])


def test_sufficient_speed_never_prefers_a_node_that_is_late_to_one_in_time() -> None:
    full = requesting(nodes([2.0, 1.3]), [9.0, 0.0], [30.0, 0.0])
    # margins 2 and 1.3: the first is in time although it is full and fast
    first, second = SATISFICE(full, PodDemand(cpu=1.0, memory=2.0, urgency=1.0)).tolist()
    assert first == pytest.approx(2.0 + 0.5 * 0.1 - 0.6)
    assert second == pytest.approx(1.3)


COST = heuristics.MarginalCost(
    least_urgency=0.2,
    margin=1.25,
    width=0.1,
    pressure=1.0,
    slope=0.5,
    knee=0.6,
    harm=0.1,
    speed_price=0.2,
    use_price=0.3,
)


def costs(state: ClusterState, pod: PodDemand) -> list[float]:
    preference = COST(state, pod)
    return [float(cost) for cost in -preference / (1.0 + preference)]


def test_marginal_cost_is_the_chance_of_lateness_the_harm_and_the_prices() -> None:
    pod = PodDemand(cpu=2.0, memory=2.0, urgency=0.8)  # uses 1.3 cores, 0.13 of a node
    state = nodes([1.0, 1.0, 1.0, 1.5], cpu_used=[0.0, 7.0, 0.0, 0.0], cpu_pressure=[0.0, 0.0, 0.2, 0.0])
    idle, busy, pressed, fast = costs(state, pod)
    assert idle == pytest.approx(0.5 + 1.3 * (0.2 + 0.3 * 0.13))  # rate 1 is exactly the margin times the urgency
    rate = 1.0 - 0.5 * (0.83 - 0.6) / 0.4
    assert busy == pytest.approx(1.0 / (1.0 + rate**10.0) + 0.1 * 7.0 * 0.13 / 0.4 + 1.3 * (0.2 + 0.3 * 0.83))
    assert pressed == pytest.approx(1.0 / (1.0 + 0.8**10.0) + 1.3 * (0.2 + 0.3 * 0.13))
    assert fast == pytest.approx(1.0 / (1.0 + 1.5**10.0) + 1.3 * (0.3 + 0.3 * 0.13))


def test_marginal_cost_keeps_fast_nodes_for_pods_that_need_them() -> None:
    state = nodes([0.8, 1.5])
    assert COST(state, PodDemand(1.0, 1.0, 0.3)).argmax() == 0
    assert COST(state, PodDemand(1.0, 1.0, 0.9)).argmax() == 1


@pytest.mark.parametrize("name", ["sufficient-speed", "marginal-cost"])
def test_rules_of_our_own_rank_a_node_that_may_run_out_of_memory_last(name: str) -> None:
    state = nodes([1.5, 0.3], memory_used=[38.0, 1.0], memory_nonzero=[38.0, 1.0], cpu_used=[0.0, 9.9])
    assert heuristics.by_name(name).preferences(state, SMALL).argmax() == 1
