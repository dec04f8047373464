"""Command line of everything offline. Parses arguments and prints; the work is elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from policy.errors import BundleError, InvalidInputError, SchedulerError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Train, evaluate and export policies.")

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "default.yaml"
ABLATIONS = Path(__file__).parent / "configs" / "ablations.yaml"
SEARCH_SPACE = Path(__file__).parent / "configs" / "search.yaml"


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, metrics.jsonl, tensorboard.")],
    config: Annotated[Path | None, typer.Option(help="YAML settings; default: the shipped policy's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the configuration's seed.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several runs, each in OUT/seed-N: 1-5 or 1,3,7. Says which is the best.")
    ] = None,
    updates: Annotated[int | None, typer.Option(min=1, help="Overrides the updates of the whole run.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long, between episodes.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Torch threads, part of what makes runs repeat exactly; default: 2, or as before."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Seeds at a time here; default: CPUs / threads.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster whose machines share --out; auto: this machine's.")
    ] = None,
    *,
    ray: Annotated[bool, typer.Option("--ray", help="Run seeds as tasks of Ray; without an address, here.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the latest checkpoint in --out, of each seed not finished.")
    ] = False,
) -> None:
    """Train a policy. Rates and noise follow the configured updates, so --minutes only stops earlier."""
    from training.runs import command
    from training.runs.seeds import PLAN_FILE

    request = command.Request(
        out,
        DEFAULT_CONFIG,
        config,
        seed,
        seeds,
        updates,
        minutes,
        threads,
        jobs,
        ray=ray,
        ray_address=ray_address,
        resume=resume,
    )
    console = Console(stderr=True)
    if seeds is not None or (resume and (out / PLAN_FILE).exists()):
        outcomes = command.run_seeds(request, console)
        _print_wide(command.rich_table(outcomes))
        typer.echo(command.verdict(out, outcomes))
        return
    outcome = command.run_one(request, console)
    state = "finished" if outcome.finished else "stopped; --resume goes on"
    typer.echo(f"{state}: {outcome.updates} updates, {outcome.episodes} episodes, {outcome.seconds / 60:.1f} minutes")
    for name, value in outcome.best.items():
        typer.echo(f"  best {name}: {value:.4g}")


@app.command()
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the search: study.db, trial-N/, best.yaml.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole search, those of earlier calls included.")],
    config: Annotated[Path, typer.Option(help="YAML settings of every trial but for what is drawn.")] = DEFAULT_CONFIG,
    space: Annotated[Path, typer.Option(help="YAML: what is drawn, and when a trial is stopped.")] = SEARCH_SPACE,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws; every trial trains with the configuration's.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so long; the same command goes on.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads; part of what makes runs repeat exactly.")] = 2,
) -> None:
    """Search hyperparameters with Optuna. Stopped or killed, the same command goes on where it stood."""
    import torch

    from training.config import load_config
    from training.search.space import load_space
    from training.search.trials import BEST_FILE, Search, SearchSettings, Standing

    torch.set_num_threads(threads)
    words = ["--config", config, "--space", space, "--trials", trials, "--seed", seed, "--threads", threads]
    search = Search(
        SearchSettings(load_config(config), load_space(space), seed, threads),
        out,
        command=shlex.join(["maddpg-train", "tune", *map(str, words), "--out", "OUT"]),
    )
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("updates", total=None, note="")

        def watch(standing: Standing) -> None:
            now = standing.progress
            scores = (("now", now.score), ("best", standing.best))
            note = "  ".join(f"{name} {score:.3f}" for name, score in scores if score is not None)
            label = f"trial {standing.trial}, {standing.begun} of {trials}"
            bar.update(task, description=label, completed=now.updates, total=now.total, note=note)

        found = search.run(
            trials,
            max_seconds=None if minutes is None else 60.0 * minutes,
            watch=watch,
            say=lambda line: bar.console.print(line, markup=False, highlight=False),
        )
    ended = f"{found.completed} completed, {found.pruned} stopped early, {found.failed} failed"
    typer.echo(f"{ended}, {found.unfinished} unfinished; {trials} wanted")
    if found.best is not None:
        typer.echo(f"best: trial {found.best_trial}, selection score {found.best:.4g}; wrote {out / BEST_FILE}")
        for name, value in sorted(found.values.items()):
            typer.echo(f"  {name}: {value}")


@app.command()
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Policy bundles to compare, with each other and every rule.")],
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or a .yaml file.")] = "reference",
    seeds: Annotated[int, typer.Option(min=1, help="Test episodes for each load.")] = 64,
    loads: Annotated[str, typer.Option(help="Offered loads, separated by commas.")] = "0.4",
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes per cluster; default: the scenario's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the numbers as JSON here, too.")] = None,
) -> None:
    """Measure policies and every rule on the same held-out episodes, with 95 % intervals."""
    from policy.bundle import load_bundle
    from policy.scorers import ActorScorer
    from training.evaluation.baselines import baselines
    from training.evaluation.suites import Suite, measure, rich_table, to_document
    from training.files import write_json

    offered = _numbers(loads, "--loads")
    loaded = [load_bundle(bundle) for bundle in bundles]
    policies = [ActorScorer(bundle.actors, bundle.manifest.name) for bundle in loaded]
    suites = [Suite(scenario, load, nodes, seeds) for load in offered]
    results = measure([*policies, *baselines()], suites)
    console = Console()
    for name, scorers in results.items():
        console.print(rich_table(name, scorers))
    if out is not None:
        write_json(out, to_document(results, suites))
        typer.echo(f"wrote {out}")


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
    scale: Annotated[
        Path | None, typer.Option(help="The outcome.json of a run of more than 10,000 episodes, for its goal.")
    ] = None,
    ablations: Annotated[
        Path | None, typer.Option(help="The ablations.json of maddpg-train ablate, for its goal.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one for each CPU. Results do not depend on it.")
    ] = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes instead of half an hour; wide intervals.")
    ] = False,
) -> None:
    """Play the frozen suite (scenarios, loads, sizes, the oracle) and write the report with every goal."""
    from training.evaluation.contestants import SEED_PREFIX, contestant, gather
    from training.evaluation.plan import QUICK, Plan
    from training.evaluation.report.document import Provenance, all_goals
    from training.evaluation.report.evidence import Evidence, read_ablations, read_scale
    from training.evaluation.report.markdown import write_report
    from training.evaluation.study import run_study
    from training.simulator.speed import speeds

    subject, further = contestant(bundle), gather(also or [])
    if subject.name in {each.name for each in further}:
        raise InvalidInputError(f"--also holds a bundle called {subject.name!r}, as BUNDLE is; rename its folder")
    cited = read_scale(scale) if scale else None, read_ablations(ablations) if ablations else None
    evidence = Evidence(speeds(), *cited)
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
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say whether two policies differ: both play the same held-out episodes, differences paired."""
    from training.evaluation import compare as comparison
    from training.evaluation.suites import Suite

    offered = _numbers(loads, "--loads")
    suites = [Suite(name, load, nodes, seeds) for name in scenario or ["reference"] for load in offered]
    ours, theirs = comparison.pair(first, second)
    console = Console(stderr=True)
    found = comparison.compare(ours, theirs, suites, metric, lambda name: console.print(f"playing {name}"))
    if as_json:
        typer.echo(json.dumps(comparison.as_document(found), indent=1))
    else:
        _print_wide(comparison.rich_table(found))


@app.command()
def gate(
    bundle: Annotated[Path, typer.Argument(help="Policy bundle that asks to pass.")],
    against: Annotated[
        Path | None, typer.Option(help="Bundle it must not be worse than; default: the shipped.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute instead of five; it shows less.")] = False,
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
    results = judges.judge(candidate.actors, incumbent.actors, suites, lambda name: console.print(f"playing {name}"))
    failures = judges.failures(results)
    if as_json:
        typer.echo(json.dumps(judges.as_document(results), indent=1))
    else:
        _print_wide(judges.rich_table(candidate.manifest.name, results))
    for line in failures:
        typer.echo(f"refused: {line}", err=True)
    if failures:
        raise typer.Exit(1)
    typer.echo(f"passed: {candidate.manifest.name} is nowhere worse than the incumbent or a rule", err=True)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or latest.pt of a run.")],
    out: Annotated[Path, typer.Option(help="Folder of the policy bundle.")],
    name: Annotated[str | None, typer.Option(help="Overrides the policy's name.")] = None,
    *,
    played: Annotated[bool, typer.Option("--played/--unplayed", help="Play held-out episodes for the card.")] = True,
) -> None:
    """Export a checkpoint as a policy bundle, measure it on held-out episodes and write its model card."""
    import torch

    from training import card
    from training.evaluation.report.curves import write_curve
    from training.evaluation.suites import to_document
    from training.export import export_bundle
    from training.learning.loop import load_actor
    from training.learning.records import METRICS_FILE
    from training.learning.selection import ActorModuleScorer

    torch.set_num_threads(1)  # one row at a time, as parity asks, threads only wait for each other
    actor, config, known = load_actor(checkpoint)
    if name is not None:
        config = config.model_copy(update={"name": name})
    results = card.held_out(ActorModuleScorer(actor, config.name), card.CARD_SUITES) if played else {}
    training = {**known, "held_out": to_document(results, card.CARD_SUITES)}
    manifest = export_bundle(actor, config, out, training=training, card=card.render_card(config, training, results))
    recorded = checkpoint.parent / METRICS_FILE
    if recorded.is_file():
        typer.echo(f"wrote {write_curve(recorded, out)}, how the training went")
    typer.echo(f"{out}: {manifest.name}, {manifest.parameters} parameters, model sha256 {manifest.model_sha256}")


@app.command()
def ablate(
    out: Annotated[Path, typer.Option(help="Folder of runs and report; finished runs in it are kept.")],
    config: Annotated[Path, typer.Option(help="YAML: base, variants, play.")] = ABLATIONS,
    seeds: Annotated[str, typer.Option(help="Training seeds, such as 1-5 or 1,2,7.")] = "1-5",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one thread each.")] = 2,
) -> None:
    """Train variants of one configuration with several seeds each, and say what every part is worth."""
    from training.ablation.findings import play_rules, summarise, write_report
    from training.ablation.runner import train_and_play
    from training.ablation.variants import load_plan
    from training.runs.seeds import parse_seeds

    plan = load_plan(config)
    results = train_and_play(plan, parse_seeds(seeds), out, jobs, lambda line: typer.echo(line, err=True))
    for path in write_report(summarise(plan, results, play_rules(plan)), out):
        typer.echo(f"wrote {path}")


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
    bundle: Path, also: list[Path], trace: Path | None, scale: Path | None, ablations: Path | None, *, quick: bool
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


def _print_wide(table: Table) -> None:
    """As wide as the terminal; where there is none (a log, a pipe), wide enough to read."""
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"{option} is {text!r}; give numbers separated by commas, such as 0.3,0.4") from None


def main() -> None:
    """Entry point: our own errors are one line on stderr and exit code 2."""
    try:
        app()
    except SchedulerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
