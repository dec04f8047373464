"""The policy that ships does what the README says of it, on episodes that neither training nor selection met."""

from __future__ import annotations

import pytest

from policy.bundle import load_bundle, shipped_bundle_path
from training.evaluation.baselines import baselines
from training.evaluation.gate import MARGIN
from training.evaluation.protocol import SLA
from training.evaluation.suites import VERSUS_FIRST, measure
from training.simulator.conditions import Condition

TIED = "marginal-cost"
"""A rule of nine numbers, found by search on selection seeds; the shipped policy bids on the measures it is made of."""


@pytest.mark.parametrize(("told", "most", "tied"), [("labelled", 0.1, TIED), ("bare", 0.85, None)])
def test_it_violates_fewer_slas_than_the_rules_on_ten_unlike_nodes(told: str, most: float, tied: str | None) -> None:
    """`most` is the most of kube-default's violations; `tied` the rule that it is no better than where all is known."""
    policy = load_bundle(shipped_bundle_path()).scorer("shipped")
    suite = Condition("reference", 0.4, episodes=64, told=told)
    measured = measure([policy, *baselines()], [suite])[suite.label]
    print({name: f"{metrics[SLA].value:.4f}" for name, metrics in measured.items()})

    assert measured["shipped"][SLA].value <= most * measured["kube-default"][SLA].value
    for rule in baselines():
        against = measured[rule.name][VERSUS_FIRST]  # paired by episode
        if rule.name == tied:
            assert against.high > -MARGIN, f"the policy loses to {rule.name}: train it anew, or ship the rule"
        else:
            assert against.low > 0.0, rule.name  # the whole interval of the difference lies on our side
