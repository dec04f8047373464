"""The baselines' numbers as a Markdown table: `python -m training.evaluation.table SCENARIO [--load L] [--episodes N]`.

What docs/simulator.md quotes is this command's output.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from policy.scorers import Scorer
from training.evaluation.baselines import baselines
from training.evaluation.protocol import Evaluation, evaluate
from training.simulator.draws import TEST_SEEDS
from training.simulator.scenarios import load_scenario

COLUMNS: Final = (
    "sla_violation_rate",
    "lateness",
    "reward",
    "completion_rate",
    "cpu_used",
    "cpu_allocated",
    "load_variance",
)


def markdown(evaluation: Evaluation) -> str:
    """One row for each scorer, fewest SLA violations first, with the interval of those."""
    lines = ["| scorer | SLA violations [95 %] | " + " | ".join(COLUMNS[1:]) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in sorted(evaluation.values, key=lambda scorer: evaluation.mean(scorer, COLUMNS[0]).value):
        rate = evaluation.mean(name, COLUMNS[0])
        cells = [f"{evaluation.mean(name, column).value:.4f}" for column in COLUMNS[1:]]
        lines.append(f"| {name} | {rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}] | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, scorers: Sequence[Scorer] | None = None) -> None:
    """Play the scenario with every baseline (or these scorers) on the first test seeds, and print the table."""
    parser = argparse.ArgumentParser(description="The baselines on one scenario, test seeds, as a Markdown table.")
    parser.add_argument("scenario", help="name of a scenario, or path of a .yaml file")
    parser.add_argument("--load", type=float, help="offered load; by default the scenario's")
    parser.add_argument("--nodes", type=int, help="number of nodes; by default the scenario's")
    parser.add_argument("--episodes", type=int, default=64, help="test episodes (default: 64)")
    options = parser.parse_args(arguments)
    scenario = load_scenario(options.scenario)
    load = scenario.load[0] if options.load is None else options.load
    seeds = TEST_SEEDS[: options.episodes]
    result = evaluate(baselines() if scorers is None else scorers, scenario, seeds, load, options.nodes)
    size = result.scenario.nodes
    print(f"{scenario.name} version {scenario.version}, {size} nodes, load {load:g}, {len(seeds)} test episodes\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
