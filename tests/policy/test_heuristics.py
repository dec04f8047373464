"""Each rule prefers the node its source would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy import heuristics
from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError
from policy.scorers import Scorer
from tests.policy.states import requesting

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


def test_kube_default_truncates_each_plugin_to_an_integer() -> None:
    state = ClusterState.idle([3.0], [7.0])
    # fractions 1/3 and 4/7: LeastAllocated 54.76, BalancedAllocation 88.09
    assert heuristics.kube_default(state, POD)[0] == pytest.approx(0.54 + 0.88)


def test_most_allocated_matches_the_upstream_formula() -> None:
    # requested after the pod: 2/10 of CPU and 8/40 of memory
    assert heuristics.most_allocated(STATE, POD)[0] == pytest.approx(0.20)


def test_random_preferences_repeat_with_their_seed() -> None:
    first, again = (heuristics.Random(np.random.default_rng(5)).preferences(STATE, POD) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.tolist())) == 4


def test_an_unknown_heuristic_is_refused_with_the_known_ones_listed() -> None:
    with pytest.raises(InvalidInputError, match="kube-default"):
        heuristics.by_name("best-effort")
