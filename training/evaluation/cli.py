"""Commands of `maddpg-train` that play episodes or write about them. Parses arguments and prints.

The module is long because every option of every command stands in it with its help.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from policy.errors import BundleError, InvalidInputError

app = typer.Typer()

Scale = Annotated[
    Path | None, typer.Option(help="The outcome.json of a run of more than 10,000 episodes, for its goal.")
]
Ablations = Annotated[Path | None, typer.Option(help="The ablations.json of maddpg-train ablate, for its goal.")]
Told = Annotated[
    str,
    typer.Option(help="What schedulers are told: labelled, learned, learned-N, unlabelled, bare, speed-off-20, ..."),
]


@app.command()
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Policy bundles to compare, with each other and every rule.")],
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or a .yaml file.")] = "reference",
    seeds: Annotated[int, typer.Option(min=1, help="Test episodes for each load.")] = 64,
    loads: Annotated[str, typer.Option(help="Offered loads, separated by commas.")] = "0.4",
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes per cluster; default: the scenario's.")] = None,
    told: Told = "labelled",
    out: Annotated[Path | None, typer.Option(help="Write the numbers as JSON here, too.")] = None,
) -> None:
    """Measure policies and every rule on the same held-out episodes, with 95 % intervals."""
    from policy.bundle import load_bundle
    from training.evaluation.baselines import baselines
    from training.evaluation.suites import measure, rich_table, to_document
    from training.files import write_json
    from training.simulator.conditions import Condition

    offered = _numbers(loads, "--loads")
    loaded = [load_bundle(bundle) for bundle in bundles]
    policies = [bundle.scorer() for bundle in loaded]
    conditions = [Condition(scenario, load, nodes, seeds, told) for load in offered]
    results = measure([*policies, *baselines()], conditions)
    console = Console()
    for name, scorers in results.items():
        console.print(rich_table(name, scorers))
    if out is not None:
        write_json(out, to_document(results, conditions))
        typer.echo(f"wrote {out}")


@app.command()
def rules(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or a .yaml file.")],
    load: Annotated[float | None, typer.Option(help="Offered load; default: the scenario's.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes per cluster; default: the scenario's.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Test episodes.")] = 64,
    told: Told = "labelled",
) -> None:
    """Print every rule's numbers on one scenario as a Markdown table: what docs/simulator.md quotes."""
    from training.evaluation.baselines import baselines
    from training.evaluation.protocol import evaluate
    from training.evaluation.suites import rules_table
    from training.simulator.conditions import Condition
    from training.simulator.deviations import find_scenario
    from training.simulator.draws import TEST_SEEDS

    known = find_scenario(scenario)
    condition = Condition(known, known.load[0] if load is None else load, nodes, episodes, told)
    played = evaluate(baselines(), condition, TEST_SEEDS)
    size = f"{played.scenario.nodes} nodes, load {condition.load:g}, {episodes} test episodes"
    size += "" if told == "labelled" else f", {told}"
    typer.echo(f"{known.name} version {known.version}, {size}\n")
    typer.echo(rules_table(played))


@app.command()
def learned(
    bundle: Annotated[Path | None, typer.Argument(help="Policy bundle; default: the shipped.")] = None,
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or a .yaml file.")] = "reference",
    load: Annotated[float | None, typer.Option(help="Offered load; default: the scenario's.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes per cluster; default: the scenario's.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Test episodes.")] = 128,
    first: Annotated[int, typer.Option(min=0, help="Number of the first of them among the test seeds.")] = 0,
    completions: Annotated[str, typer.Option(help="Completed pods per node, separated by commas.")] = (
        "0,1,3,10,30,100"
    ),
) -> None:
    """Print what a policy is worth where nothing is labelled and speeds and urgency are learned, as Markdown."""
    from policy.bundle import load_bundle, shipped_bundle_path
    from training.evaluation.completions_curve import curve, curve_table, split, split_table
    from training.simulator.conditions import Condition
    from training.simulator.draws import TEST_SEEDS
    from training.simulator.scenarios import load_scenario

    try:
        counts = [int(number) for number in completions.split(",")]
    except ValueError:
        raise InvalidInputError(f"--completions is {completions!r}; give whole numbers such as 0,3,30") from None
    known = load_scenario(scenario)
    condition = Condition(known, known.load[0] if load is None else load, nodes, episodes)
    loaded = load_bundle(bundle or shipped_bundle_path())
    policy = loaded.scorer()
    console = Console(stderr=True)
    seeds = TEST_SEEDS[first:]
    points = curve(policy, condition, seeds, counts, lambda name: console.print(f"playing {name}"))
    found = split(policy, condition, seeds, lambda name: console.print(f"playing {name}"))
    size = f"{condition.sized().nodes} nodes, load {condition.load:g}"
    played = f"{episodes} test episodes from number {first} on"
    typer.echo(f"{loaded.manifest.name}, {known.name} version {known.version}, {size}, {played}\n")
    typer.echo(f"{curve_table(points)}\n\n{split_table(found)}")


@app.command()
def static_weights(
    scenario: Annotated[str, typer.Argument(help="Name of a scenario, or a .yaml file.")] = "reference",
) -> None:
    """Search the best constant bids on selection seeds, and print them."""
    from training.evaluation.static_weights import best_static
    from training.simulator.scenarios import load_scenario

    typer.echo(best_static(load_scenario(scenario)).weights)


@app.command()
def tune_rule(
    rule: Annotated[str, typer.Argument(help="marginal-cost or sufficient-speed.")],
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or a .yaml file.")] = "reference",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 1,
    generations: Annotated[int, typer.Option(min=1, help="Generations of the cross-entropy search.")] = 14,
    population: Annotated[int, typer.Option(min=4, help="Candidates of each generation.")] = 24,
    episodes: Annotated[int, typer.Option(min=1, help="Selection episodes for each load and candidate.")] = 8,
) -> None:
    """Search the constants of a rule on selection seeds, and print them with the rates they reach on others."""
    from training.evaluation.rule_search import tune
    from training.simulator.deviations import find_scenario

    found = tune(
        rule,
        find_scenario(scenario),
        seed=seed,
        generations=generations,
        population=population,
        episodes=episodes,
        watch=lambda number, score: typer.echo(f"generation {number + 1}: best score {score:.3f}", err=True),
    )
    for name, value in found.constants.items():
        typer.echo(f"{name}: {value:g}")
    for load, rate in found.rates.items():
        typer.echo(f"SLA violations at load {load:g}: {100.0 * rate:.2f} %")


@app.command()
def report(
    bundle: Annotated[Path, typer.Argument(help="The policy bundle that the goals are about.")],
    out: Annotated[Path, typer.Option(help="Folder of evaluation.json, evaluation.md and figures/.")],
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="A further bundle, or a folder of bundles; may be repeated. Folders named seed-* are training seeds, "
            "the others points of the trade-off."
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="A trace in the openb format, played besides the sample that ships.")
    ] = None,
    scale: Scale = None,
    ablations: Ablations = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one for each CPU. Results do not depend on it.")
    ] = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes instead of most of an hour; wide intervals.")
    ] = False,
) -> None:
    """Play the frozen suite (scenarios, loads, sizes, the oracle) and write the report with every goal."""
    from training.evaluation.contestants import SEED_PREFIX, contestant, gather
    from training.evaluation.plan import QUICK, Plan
    from training.evaluation.report.document import Provenance, all_goals
    from training.evaluation.report.evidence import measured
    from training.evaluation.report.markdown import write_report
    from training.evaluation.study import run_study

    subject, further = contestant(bundle), gather(also or [])
    if subject.name in {each.name for each in further}:
        raise InvalidInputError(f"--also holds a bundle called {subject.name!r}, as BUNDLE is; rename its folder")
    evidence = measured(scale, ablations)
    with _share_bar() as bar:
        task = bar.add_task("playing", total=2.0, note="")
        study = run_study(
            subject,
            QUICK if quick else Plan(),
            seeds=[each for each in further if each.name.startswith(SEED_PREFIX)],
            others=[each for each in further if not each.name.startswith(SEED_PREFIX)],
            trace=trace,
            jobs=jobs or os.cpu_count() or 1,
            watch=lambda label, share: bar.update(task, advance=share, note=label),
        )
    command = _report_command(bundle, also or [], trace, scale, ablations, quick=quick)
    provenance = Provenance(command, {each.name: each for each in (subject, *further)}, trace, evidence)
    for path in write_report(study, out, provenance):
        typer.echo(f"wrote {path}")
    goals = all_goals(study, provenance)
    typer.echo(f"{sum(goal.reached for goal in goals)} of {len(goals)} goals reached; {out}/evaluation.md lists them")


@app.command()
def renew(
    folder: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder of evaluation.json and evaluation.md.")],
    scale: Scale = None,
    ablations: Ablations = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="CPU time of each measurement of speed.")] = 1.0,
) -> None:
    """Measure the simulator again and read the cited files anew for a written report; no episode is played."""
    from training.evaluation.report.evidence import measured
    from training.evaluation.report.markdown import renew_report

    for path in renew_report(folder, measured(scale, ablations, seconds)):
        typer.echo(f"renewed {path}")


@app.command()
def headline(
    bundle: Annotated[Path, typer.Argument(help="Folder of the policy with its evaluation.json.")],
    files: Annotated[list[Path], typer.Argument(help="Documents with the two markers.")],
) -> None:
    """Put a report's headline into documents, between their markers."""
    from training.evaluation.report.summary import insert_into

    insert_into(files, bundle)
    for path in files:
        typer.echo(f"wrote the table into {path}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of a policy bundle, or the name of a rule.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    scenario: Annotated[list[str] | None, typer.Option(help="Scenario; may be repeated.  [default: reference]")] = None,
    loads: Annotated[str, typer.Option(help="Offered loads, separated by commas.")] = "0.3,0.4,0.55",
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes per cluster; default: the scenario's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Test episodes for each condition.")] = 64,
    metric: Annotated[str, typer.Option(help="What decides: sla_violation_rate, lateness, load_variance, ...")] = (
        "sla_violation_rate"
    ),
    told: Told = "labelled",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say whether two policies differ: both play the same held-out episodes, differences paired."""
    from training.evaluation import compare as comparison
    from training.simulator.conditions import Condition

    offered = _numbers(loads, "--loads")
    conditions = [Condition(name, load, nodes, seeds, told) for name in scenario or ["reference"] for load in offered]
    ours, theirs = comparison.pair(first, second)
    console = Console(stderr=True)
    found = comparison.compare(ours, theirs, conditions, metric, lambda name: console.print(f"playing {name}"))
    if as_json:
        typer.echo(json.dumps(comparison.as_document(found), indent=1))
    else:
        print_wide(comparison.rich_table(found))


@app.command()
def gate(
    bundle: Annotated[Path, typer.Argument(help="Policy bundle that asks to pass.")],
    against: Annotated[
        Path | None, typer.Option(help="Bundle it must not be worse than; default: the shipped.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute instead of eight; it shows less.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Refuse, with exit code 1, a bundle that is invalid, or worse than the shipped one or any rule anywhere."""
    from policy.bundle import load_bundle, shipped_bundle_path
    from training.evaluation import gate as judges

    incumbent = load_bundle(against or shipped_bundle_path())
    try:
        candidate = load_bundle(bundle)
    except BundleError as error:
        typer.echo(f"refused: {error}", err=True)
        raise typer.Exit(1) from error
    console = Console(stderr=True)
    suites = judges.QUICK if quick else judges.FROZEN
    ordered = judges.order(candidate, incumbent)
    results = judges.judge(candidate, incumbent, suites, lambda name: console.print(f"playing {name}"))
    failures = judges.failures(results, ordered)
    if as_json:
        typer.echo(json.dumps(judges.as_document(results, ordered), indent=1))
    else:
        print_wide(judges.rich_table(candidate.manifest.name, results))
        for kind, count in ordered.candidate.items():
            typer.echo(f"prefers the node that is {kind}: {count} of 10,000, the incumbent {ordered.incumbent[kind]}")
    for line in failures:
        typer.echo(f"refused: {line}", err=True)
    if failures:
        raise typer.Exit(1)
    typer.echo(f"passed: {candidate.manifest.name} is nowhere worse than the incumbent or a rule", err=True)


def _share_bar() -> Progress:
    """A bar of shares of the work, on stderr."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _report_command(
    bundle: Path,
    also: list[Path],
    trace: Path | None,
    scale: Path | None,
    ablations: Path | None,
    *,
    quick: bool,
) -> str:
    """The command that repeats a report; a trace by its file name, since it may lie anywhere."""
    words = ["maddpg-train", "report", str(bundle)]
    for folder in also:
        words += ["--also", str(folder)]
    if trace is not None:
        words += ["--trace", trace.name]
    for option, path in (("--scale", scale), ("--ablations", ablations)):
        words += [option, str(path)] if path else []
    return shlex.join([*words, *(["--quick"] if quick else []), "--out", "OUT"])


def print_wide(table: Table) -> None:
    """As wide as the terminal; where there is none (a log, a pipe), wide enough to read."""
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"{option} is {text!r}; give numbers separated by commas, such as 0.3,0.4") from None
