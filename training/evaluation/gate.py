"""The gate that a policy bundle passes before it ships: nowhere worse than the one that ships, or than any rule.

Worse means shown to be worse: on the same held-out episodes the whole 95 % interval of the paired difference in SLA
violations lies on the wrong side, by more than `MARGIN`. A tie passes, so a gate on few episodes is a lenient gate.
Nor may it prefer the worse of two nodes that differ in one thing more often than the one that ships: once a policy that
never does has shipped, none that does can follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from policy.bundle import Bundle
from policy.scorers import Scorer
from training.evaluation import monotonicity, tables
from training.evaluation.baselines import baselines
from training.evaluation.compare import Difference, difference, interval
from training.evaluation.protocol import SLA, evaluate
from training.simulator.conditions import Condition
from training.simulator.deviations import PHYSICS
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
    Condition("urgent", 0.25, episodes=32),
    Condition("urgent", 0.4, episodes=32),
    Condition("first-look", 0.4, episodes=32),
    Condition("three", 0.4, episodes=32),
    *(Condition(name, 0.4, episodes=16) for name in PHYSICS),
    Condition("throttled", 0.3, episodes=16, told="learned-throttling"),
    Condition("memory", 0.4, episodes=16),
    Condition("memory-1.2-0.15", 0.4, episodes=16),
    Condition("memory-1.2-0.4", 0.4, episodes=16),
)
"""The frozen suite: every scenario at its own load, the sweep over load, five times the size, and what nobody tunes for
(`training.simulator.deviations`). About eight minutes on one core."""

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


@dataclass(frozen=True, slots=True)
class Order:
    """How often each of the two policies prefers the worse node, by kind; see `training.evaluation.monotonicity`."""

    candidate: dict[str, int]
    incumbent: dict[str, int]

    def failures(self) -> Iterator[str]:
        """A sentence for each kind in which the candidate does so more often."""
        for kind, count in self.candidate.items():
            if count > self.incumbent[kind]:
                yield (
                    f"of {monotonicity.ROWS} random nodes it prefers {count} once they are {kind}, all else equal; "
                    f"the incumbent {self.incumbent[kind]}"
                )


def order(candidate: Bundle, incumbent: Bundle) -> Order:
    """Ask both policies about the same random nodes."""
    return Order(monotonicity.violations(candidate.scorer()), monotonicity.violations(incumbent.scorer()))


def judge(
    candidate: Bundle,
    incumbent: Bundle,
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
    policy = candidate.scorer(CANDIDATE)
    rivals: list[Scorer] = [incumbent.scorer(INCUMBENT), *baselines()]
    results = []
    for condition in conditions:
        watch(condition.label)
        played = evaluate([policy, *rivals], condition, TEST_SEEDS)
        against = {rival.name: difference(played, CANDIDATE, rival.name, SLA, condition.label) for rival in rivals}
        results.append(ConditionResult(condition.label, against))
    return results


def failures(results: Sequence[ConditionResult], ordered: Order) -> list[str]:
    """A sentence for everything that the candidate is worse in; empty if it passes."""
    return [*ordered.failures(), *(line for result in results for line in result.failures())]


def as_document(results: Sequence[ConditionResult], ordered: Order) -> dict[str, Any]:
    """As JSON: whether the candidate passed, why not, and every difference of every condition."""
    found = failures(results, ordered)
    return {
        "passed": not found,
        "margin": MARGIN,
        "failures": found,
        "prefers_the_worse_node": asdict(ordered),
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
