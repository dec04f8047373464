"""The policy that ships does what the README says of it, on episodes that neither training nor selection met."""

from __future__ import annotations

from policy.bundle import load_bundle, shipped_bundle_path
from policy.scorers import ActorScorer
from training.evaluation.baselines import baselines
from training.evaluation.protocol import SLA
from training.evaluation.suites import VERSUS_FIRST, measure
from training.simulator.conditions import Condition

AT_LEAST_BELOW_KUBE_DEFAULT = 0.9


def test_it_violates_fewer_slas_than_every_rule_on_ten_unlike_nodes() -> None:
    policy = ActorScorer(load_bundle(shipped_bundle_path()).actors, "shipped")
    suite = Condition("reference", 0.4, episodes=64)
    measured = measure([policy, *baselines()], [suite])[suite.label]
    ours = measured["shipped"][SLA].value
    usual = measured["kube-default"][SLA].value
    print({name: f"{metrics[SLA].value:.4f}" for name, metrics in measured.items()})

    assert ours <= (1.0 - AT_LEAST_BELOW_KUBE_DEFAULT) * usual
    for rule in baselines():
        # paired by episode: the whole interval of the difference lies on our side
        assert measured[rule.name][VERSUS_FIRST].low > 0.0, rule.name
