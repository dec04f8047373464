"""Command line of everything offline; commands that evaluate are in `training.evaluation.cli`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from policy.errors import InvalidInputError, SchedulerError
from training.evaluation.cli import app as evaluation_commands
from training.evaluation.cli import print_wide

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Train, evaluate and export policies.")
app.add_typer(evaluation_commands)

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "default.yaml"
ABLATIONS = Path(__file__).parent / "configs" / "ablations.yaml"
PPO_CONFIG = Path(__file__).parent / "configs" / "ppo.yaml"
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
        print_wide(command.rich_table(outcomes))
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
def ppo(
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, metrics.jsonl, tensorboard.")],
    algorithm: Annotated[str, typer.Option(help="mappo or ippo.")] = "mappo",
    config: Annotated[Path, typer.Option(help="YAML settings.")] = PPO_CONFIG,
    seed: Annotated[int, typer.Option(min=0, help="Instead of the configuration's.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
) -> None:
    """Train by MAPPO or IPPO of BenchMARL, to compare; needs requirements/ppo.txt. `export` takes its checkpoints."""
    import torch

    from training.config import load_config, parse_config

    try:
        from training.ppo.proximal import ProximalRun
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"{error.name} is not installed; in an environment of its own, pip install -r requirements/ppo.txt"
        ) from error
    torch.set_num_threads(threads)
    settings = load_config(config).model_dump(mode="json") | {"name": algorithm, "algorithm": algorithm, "seed": seed}
    words = ["--config", config, "--algorithm", algorithm, "--seed", seed, "--threads", threads]
    command = shlex.join(["maddpg-train", "ppo", *map(str, words), "--out", "OUT"])
    outcome = ProximalRun(parse_config(settings, str(config)), out, command).run()
    typer.echo(
        f"{outcome.updates} updates, {outcome.episodes} episodes, {outcome.seconds / 60:.1f} minutes of CPU time"
    )
    for name, value in outcome.best.items():
        typer.echo(f"  best {name}: {value:.4g}")


@app.command()
def versus(
    bundles: Annotated[list[Path], typer.Argument(help="Policy bundles; their folders' names tell them apart.")],
    against: Annotated[Path | None, typer.Option(help="Bundle that all meet besides; default: the shipped.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Test episodes of each condition.")] = 128,
    out: Annotated[Path | None, typer.Option(help="Write the numbers as JSON here, too.")] = None,
) -> None:
    """Print what policies lose and win against the shipped one, marginal-cost and kube-default, as Markdown."""
    from policy.bundle import load_bundle, shipped_bundle_path
    from training.evaluation.compare import policy_or_rule
    from training.files import write_json
    from training.ppo.verdicts import RULES, conditions, markdown, provenance, verdicts

    loaded = {bundle.resolve().name: load_bundle(bundle) for bundle in bundles}
    policies = [bundle.scorer() for bundle in loaded.values()]
    for name, policy in zip(loaded, policies, strict=True):
        policy.name = name
    rivals = [load_bundle(against or shipped_bundle_path()).scorer(), *map(policy_or_rule, RULES)]
    found = verdicts(policies, rivals, conditions(episodes), lambda name: typer.echo(f"playing {name}", err=True))
    typer.echo(markdown(found))
    if out is not None:
        trained = {name: provenance(bundle.manifest.training) for name, bundle in loaded.items()}
        write_json(out, {"trained": trained, "played": found})
        typer.echo(f"wrote {out}", err=True)


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
    from training.evaluation.baselines import baselines
    from training.evaluation.report.curves import write_curve
    from training.evaluation.suites import measure, to_document
    from training.export import export_bundle
    from training.learning.loop import load_actor
    from training.learning.records import METRICS_FILE
    from training.learning.selection import ActorModuleScorer

    torch.set_num_threads(1)  # one row at a time, as parity asks, threads only wait for each other
    actor, config, known = load_actor(checkpoint)
    if name is not None:
        config = config.model_copy(update={"name": name})
    served = config.actor.model_copy(update={"memory_bound": True})
    scorers = [ActorModuleScorer(actor, config.name, served), *baselines()]
    results = measure(scorers, card.CARD_SUITES) if played else {}
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


@app.command()
def speed(
    seconds: Annotated[float, typer.Option(min=0.0, help="CPU time of each measurement.")] = 1.0,
) -> None:
    """Measure how many decisions a second the simulator takes on one core, by number of nodes."""
    from training.simulator.speed import CLUSTERS, speeds

    for nodes, decisions in speeds(seconds).items():
        typer.echo(f"{nodes} nodes, {CLUSTERS[nodes]} clusters: {decisions:,.0f} decisions/s")


@app.command()
def sample_trace() -> None:
    """Print the sample trace, which is of our own making, as CSV."""
    from training.simulator.sample import write

    write(sys.stdout)


def main() -> None:
    """Entry point: our own errors are one line on stderr and exit code 2."""
    try:
        app()
    except SchedulerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
