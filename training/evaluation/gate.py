"""The gate that a policy bundle passes before it ships: nowhere worse than the one that ships, or than any rule.

Worse means shown to be worse: on the same held-out episodes the whole 95 % interval of the paired difference in SLA
violations lies on the wrong side, by more than `MARGIN`. A tie passes, so a gate on few episodes is a lenient gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from policy.actors import Actors
from policy.scorers import ActorScorer, Scorer
from training.evaluation import tables
from training.evaluation.baselines import baselines
from training.evaluation.compare import Difference, difference, interval
from training.evaluation.protocol import SLA, evaluate
from training.simulator.conditions import Condition
from training.simulator.draws import TEST_SEEDS

MARGIN: Final = 1e-3
"""Share of pods: a policy shown to be worse by less passes. Where nodes are alike or nothing is late there is nothing
to win, and one pod in a thousand must not decide; the selection of checkpoints grants as much."""

CANDIDATE: Final = "candidate"
INCUMBENT: Final = "incumbent"
"""What the two policies are called while they are compared, whatever their manifests say."""

FROZEN: Final = (
    Condition("reference", 0.4),
    Condition("reference", 0.2, episodes=32),
    Condition("reference", 0.3, episodes=32),
    Condition("reference", 0.5, episodes=32),
    Condition("reference", 0.6, episodes=32),
    Condition("steady", episodes=32),
    Condition("peak", episodes=32),
    Condition("burst", episodes=32),
    Condition("services", episodes=32),
    Condition("trace", episodes=16),
    Condition("alike", episodes=32),
    Condition("unseen", episodes=32),
    Condition("reference", 0.4, nodes=50, episodes=6),
)
"""The frozen suite: every scenario at its own load, the sweep over load, and five times the size. About five minutes
on one core."""

QUICK: Final = (
    Condition("reference", 0.4, episodes=32),
    Condition("reference", 0.55, episodes=16),
    Condition("steady", episodes=16),
)
"""Half a minute of it, for a first look; what it does not show, the frozen suite may."""


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """One condition of the gate."""

    condition: str  # name of the suite
    against: dict[str, Difference]  # the incumbent, then every rule; the candidate is each difference's first

    @property
    def worse_than(self) -> list[str]:
        """Names of those that the candidate is shown to be worse than; empty where the condition holds."""
        return [name for name, each in self.against.items() if each.difference.low > MARGIN]

    @property
    def best_rule(self) -> Difference:
        """Against the rule with the fewest SLA violations here."""
        return min((each for name, each in self.against.items() if name != INCUMBENT), key=lambda each: each.second)

    def failures(self) -> Iterator[str]:
        """A sentence for each of `worse_than`."""
        for name in self.worse_than:
            each = self.against[name]
            yield (
                f"{self.condition}: worse than {name}: SLA violations {100 * each.first:.2f} % against "
                f"{100 * each.second:.2f} %, difference {100 * each.difference.value:+.2f} points "
                f"({100 * each.difference.low:+.2f} to {100 * each.difference.high:+.2f})"
            )


def judge(
    candidate: Actors,
    incumbent: Actors,
    conditions: Sequence[Condition] = FROZEN,
    watch: Callable[[str], None] = lambda _: None,
) -> list[ConditionResult]:
    """Play the suites with the candidate, the incumbent and every rule.

    Args:
        candidate: the policy that asks to pass.
        incumbent: the policy that ships.
        conditions: what is played.
        watch: told each condition before it is played.

    Raises:
        InvalidInputError: a scenario is unknown.
        NonFinitePreferenceError: a policy's answer is not finite.
    """
    policy = ActorScorer(candidate, CANDIDATE)
    rivals: list[Scorer] = [ActorScorer(incumbent, INCUMBENT), *baselines()]
    results = []
    for condition in conditions:
        watch(condition.label)
        played = evaluate([policy, *rivals], condition, TEST_SEEDS)
        against = {rival.name: difference(played, CANDIDATE, rival.name, SLA, condition.label) for rival in rivals}
        results.append(ConditionResult(condition.label, against))
    return results


def failures(results: Sequence[ConditionResult]) -> list[str]:
    """A sentence for everything that the candidate is worse than; empty if it passes."""
    return [line for result in results for line in result.failures()]


def as_document(results: Sequence[ConditionResult]) -> dict[str, Any]:
    """As JSON: whether the candidate passed, why not, and every difference of every condition."""
    found = failures(results)
    return {
        "passed": not found,
        "margin": MARGIN,
        "failures": found,
        "conditions": {
            result.condition: {name: asdict(each) for name, each in result.against.items()} for result in results
        },
    }


def rich_table(name: str, results: Sequence[ConditionResult]) -> Table:
    """One row a condition: the candidate beside the incumbent and the best rule, with the paired differences."""
    title = f"SLA violation rate of {name}; differences paired, 95 % intervals"
    header = ["condition", "candidate", "incumbent", "difference", "best rule", "difference", ""]
    rows = []
    for result in results:
        incumbent, best = result.against[INCUMBENT], result.best_rule
        means = [f"{incumbent.first:.4f}", f"{incumbent.second:.4f}"]
        against = [interval(incumbent.difference), f"{best.second_name} {best.second:.4f}", interval(best.difference)]
        verdict = f"[red]worse than {', '.join(result.worse_than)}" if result.worse_than else "[green]holds"
        rows.append([result.condition, *means, *against, verdict])
    return tables.rich(title, header, rows, folded=["condition", ""])
