"""Every command of `maddpg-extender`.

No logic of its own. The module is long because it is a list: one function per command.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import io
import json
import os
import shlex
import signal
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from extender import configuration, logs
from extender.errors import ClientError, SettingsError, kind_of
from extender.operations.client import Client, plain
from extender.operations.tunnel import Kubectl
from extender.settings import Settings
from policy.errors import SchedulerError

REFUSED: Final = 2
"""Exit code where settings or the policy bundle are refused."""

FAILED: Final = 1
"""Exit code of everything else that fails."""

FILES: Final = ":0"
"""Directive to kubectl: complete names of files where nothing else was found."""

NO_FILES: Final = ":4"
"""Directive to kubectl: what was found is all."""

FLAGS: Final = {"allow_extra_args": True, "ignore_unknown_options": True}
FLAGS_HELP: Final = "Every setting is a flag too: --deadline-ms 20. `maddpg-extender reference` lists them."

HELP: Final = "A scheduler extender that rates nodes with a trained policy: serve it, try it, check it, ask it why."
PLUGIN_HELP: Final = "Ask the maddpg-scheduler of the kubeconfig's cluster why pods go where they go."

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
plugin = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=PLUGIN_HELP, add_completion=False)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("maddpg-scheduler"))
        raise typer.Exit


@app.callback()
@plugin.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="print the version and exit")
    ] = False,
) -> None:
    pass


ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="settings file, YAML or TOML")]
AsJson = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]
KubeContext = Annotated[
    str | None, typer.Option("--context", help="context of the kubeconfig; default: its current one")
]
LOCAL: Final = "http://127.0.0.1:8888"
WATCH_S: Final = 5.0
"""Seconds between two looks whether a service can still be reached."""


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with options that say which service it asks, in place of its first parameter."""

    def asking(
        *,
        url: Annotated[str | None, typer.Option(help=f"operations endpoints of the service; default: {LOCAL}")] = None,
        cluster: Annotated[
            bool, typer.Option("--cluster", help="ask the service in the kubeconfig's cluster, by kubectl port-forward")
        ] = False,
        service: Annotated[
            str | None, typer.Option(metavar="NAMESPACE/NAME", help="which Service in the cluster, of several")
        ] = None,
        kubeconfig: Annotated[Path | None, typer.Option(help="kubeconfig file; default: kubectl's")] = None,
        context: KubeContext = None,
        ca_file: Annotated[Path | None, typer.Option(help="authority of the service's certificate, in PEM")] = None,
        token_file: Annotated[Path | None, typer.Option(help="file with a bearer token to show to the service")] = None,
        cert_file: Annotated[Path | None, typer.Option(help="certificate to show to the service, in PEM")] = None,
        key_file: Annotated[Path | None, typer.Option(help="its private key; default: in the same file")] = None,
        **rest: Any,
    ) -> None:
        try:
            with _reached(url, cluster, service, Kubectl(kubeconfig, context), ca_file) as client:
                command(replace(client, token_file=token_file, cert_file=cert_file, key_file=key_file), **rest)
        except ClientError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(FAILED) from error

    own, options = ([*inspect.signature(it, eval_str=True).parameters.values()] for it in (command, asking))
    functools.update_wrapper(asking, command)
    asking.__signature__ = inspect.Signature([*own[1:], *options[:-1]])  # type: ignore[attr-defined]  # typer reads it
    return asking


def _reached(
    url: str | None, cluster: bool, service: str | None, kubectl: Kubectl, ca_file: Path | None
) -> contextlib.AbstractContextManager[Client]:
    """The service that these options name. Raises `ClientError` where they name two."""
    options = {
        "--cluster": cluster,
        "--service": service,
        "--kubeconfig": kubectl.kubeconfig,
        "--context": kubectl.context,
    }
    first = next((name for name, value in options.items() if value), None)
    if first is None:
        return contextlib.nullcontext(Client(url or LOCAL, ca_file))
    if url is not None:
        raise ClientError(f"--url and {first} name two services; give one of them")
    return kubectl.client(service, ca_file)


@app.command(context_settings=FLAGS, epilog=FLAGS_HELP)
def serve(context: typer.Context, config: ConfigFile = None) -> None:
    """Answer kube-scheduler until a signal to stop."""
    from extender.app import create_app
    from extender.cluster.kubernetes import KubernetesSource
    from extender.server import serve as serve_app

    try:
        settings = _settings(config, context.args)
        logs.configure(settings.log_level, settings.log_format)
        logs.log_uncaught()
        application = create_app(settings, KubernetesSource.from_settings(settings))
        uvloop.run(serve_app(application, _announce))
    except SchedulerError as error:
        _refuse(error)


@app.command(context_settings=FLAGS, epilog=FLAGS_HELP)
def observe(
    context: typer.Context,
    config: ConfigFile = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=1.0, help="seconds to look on; left out: until Ctrl-C")
    ] = None,
    every: Annotated[float, typer.Option(min=1.0, help="seconds between two reports of progress")] = 60.0,
    kube_context: KubeContext = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Look on while a cluster's own scheduler places pods, and say where they would have gone. Changes nothing.

    Needs to list and watch nodes and pods, and to read measured use. Meanwhile the operations endpoints answer:
    `explain` tells of each pod, `report` of all.
    """
    from extender.app import create_app
    from extender.cluster.kubernetes import KubernetesSource
    from extender.observer import as_text
    from extender.server import serve as serve_app

    try:
        flags = {**parse_flags(context.args), "observe": "true"}
        if kube_context is not None:
            flags["kube_context"] = kube_context
        settings = configuration.load(config, os.environ, flags)
        logs.configure(settings.log_level, settings.log_format)
        logs.log_uncaught()
        application = create_app(settings, KubernetesSource.from_settings(settings))
        observer = application.observer
        if observer is None:
            raise SettingsError("nothing is observed; `observe` must be true")

        async def look_on() -> None:
            end, loop = asyncio.Event(), asyncio.get_running_loop()

            def tell() -> None:
                typer.echo(f"{sum(observer.results.values())} pods observed", err=True)
                loop.call_later(every, tell)

            def begin(port: int, operations_port: int) -> None:
                _announce(port, operations_port, err=True)
                tell()
                if seconds is not None:
                    loop.call_later(seconds, end.set)

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, end.set)
            await serve_app(application, begin, until=end)

        uvloop.run(look_on())
    except SchedulerError as error:
        _refuse(error)
    found = observer.document()
    typer.echo(json.dumps(found, indent=2) if as_json else as_text(plain(found)))


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(envvar="DEMO_SECONDS", min=0.0, help="end by itself after this long")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1000.0, help="pods scheduled a second")] = 40.0,
    load: Annotated[float, typer.Option(min=0.05, max=2.0, help="offered work over capacity")] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="of the arrivals")] = 1,
    scenario: Annotated[str, typer.Option(help="what is simulated")] = "reference",
    bundle: Annotated[Path | None, typer.Option(help="folder of a policy bundle; the shipped one if left out")] = None,
) -> None:
    """Schedule a simulated cluster's pods through the real service, live, beside kube-default."""
    from extender.demo.run import Options
    from extender.demo.run import demo as run_demo

    try:
        run_demo(Options(seconds, rate, load, seed, scenario, bundle), Console())
    except SchedulerError as error:
        _refuse(error)


@app.command("check-config", context_settings=FLAGS, epilog=FLAGS_HELP)
def check_config(
    context: typer.Context,
    config: ConfigFile = None,
    scheduler_config: Annotated[
        Path | None, typer.Option(help="a kube-scheduler's configuration, to be held against these settings")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="leave out what needs the network")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print settings and findings as one JSON document")] = False,
) -> None:
    """Try everything that `serve` would: settings, policy, certificates, addresses, API server, rights, measured use.

    Prints the settings in effect, and a line for each thing tried; exits with 2 if any failed.
    """
    from extender.inspection import machine, neighbours
    from extender.inspection import scheduler_config as caller
    from extender.inspection.finding import failed

    try:
        settings = _settings(config, context.args)
    except SettingsError as error:
        if as_json:
            refused = {"name": "settings", "verdict": "failed", "told": str(error), "fix": ""}
            typer.echo(json.dumps({"settings": None, "findings": [refused], "failed": True}, indent=2))
        _refuse(error)
    findings = list(machine.inspect(settings))
    if not offline:
        findings += neighbours.inspect(settings)
    if scheduler_config is not None:
        findings += caller.inspect(scheduler_config, settings)
    broken = failed(findings)
    if as_json:
        told = [asdict(finding) for finding in findings]
        typer.echo(
            json.dumps({"settings": settings.model_dump(mode="json"), "findings": told, "failed": broken}, indent=2)
        )
    else:
        typer.echo(json.dumps(settings.model_dump(mode="json"), indent=2))
        for finding in findings:
            typer.echo(str(finding), err=True)
    if broken:
        raise typer.Exit(REFUSED)


@app.command()
def reference(
    write: Annotated[Path | None, typer.Option(help="document in whose tables to write them instead")] = None,
) -> None:
    """Print every setting and every metric as Markdown tables."""
    from extender.operations.reference import metrics_table, renewed, settings_table

    if write is None:
        typer.echo(f"{settings_table()}\n\n{metrics_table()}")
        return
    try:
        write.write_text(renewed(write.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, ValueError) as error:
        _refuse(SettingsError(f"cannot write the tables to {write}: {kind_of(error)}"))


@app.command()
@asks
def explain(
    service: Client,
    pod: Annotated[str, typer.Argument(help="UID of the pod, or its name with --namespace")],
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="namespace of a pod given by name; default: the context's, else `default`"
        ),
    ] = None,
    other: Annotated[str | None, typer.Option("--not", help="a node: say why it was not preferred")] = None,
    export: Annotated[Path | None, typer.Option(help="file to write the decision to, for `replay`")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a pod's nodes were rated as they were."""
    from extender.operations.peers import Heard

    asked = "" if other is None else f"?{urllib.parse.urlencode({'why_not': other})}"
    uid, found = pod, service.ask(f"/v1/decisions/{urllib.parse.quote(pod, safe='')}{asked}")
    if found is None:
        namespace = namespace or service.namespace()
        query = urllib.parse.urlencode({"namespace": namespace, "name": pod, "limit": 1})
        with _answers(service):
            listed = service.ask(f"/v1/decisions?{query}") or {"decisions": []}
            uid = listed["decisions"][0]["pod"]["uid"] if listed["decisions"] else ""
            found = service.ask(f"/v1/decisions/{urllib.parse.quote(uid, safe='')}{asked}") if uid else None
            silent = Heard(silent=dict(listed.get("silent", {}))).told
    if found is None:
        typer.echo(
            f"no decision is remembered for pod {pod} (by UID, or by name in namespace {namespace}){silent}", err=True
        )
        raise typer.Exit(FAILED)
    if export is not None:
        _export(service, uid, export)
        return
    with _answers(service):
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _show(plain(found), Console())


@app.command()
@asks
def nodes(service: Client, as_json: AsJson = False) -> None:
    """Say what is known of each node: its speed and what shows it, use, requests, pressure."""
    from extender.operations.inventory import as_text

    found: dict[str, Any] = {"learning": None, "nodes": [], "next": 0}
    with _answers(service):
        while found["next"] is not None:
            page = service.known(f"/v1/nodes?limit=500&after={int(found['next'])}")
            if page["next"] is not None and not page["nodes"]:
                raise ValueError("a page without nodes that others follow")
            found = {**page, "nodes": [*found["nodes"], *page["nodes"]]}
        typer.echo(json.dumps(found, indent=2) if as_json else as_text(*plain([found["learning"], found["nodes"]])))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="file of `explain --export`")],
    bundle: Annotated[Path | None, typer.Option(help="folder of the policy that decided; default: shipped")] = None,
) -> None:
    """Decide an exported decision again, offline; exits with 1 if a preference or priority differs in one bit."""
    from extender.case import read, replayed

    try:
        case = read(file)
        result = replayed(case, bundle)
    except SchedulerError as error:
        _refuse(error)
    typer.echo(f"{case.scorer} {result}; {case.names[0]} is best")
    if result.differing or not result.same_priorities:
        raise typer.Exit(FAILED)


@app.command()
@asks
def report(service: Client, as_json: AsJson = False) -> None:
    """Say how well deciding has gone: who decided, how fast, and what became of the pods."""
    from extender.history.aggregate import as_text

    found = service.known("/v1/report")
    with _answers(service):
        typer.echo(json.dumps(found, indent=2) if as_json else as_text(plain(found)))


@app.command()
def benchmark(
    out: Annotated[
        Path | None, typer.Option(help="file that gets the result too, such as /dev/termination-log")
    ] = None,
    after_s: Annotated[float, typer.Option(min=0.0, help="seconds to wait before")] = 0.0,
) -> None:
    """Measure the speed of one core of this machine, relative to the reference core; takes some seconds."""
    from extender.benchmark import run

    try:
        run(out, after_s)
    except OSError as error:
        typer.echo(f"cannot write the result to {out}: {kind_of(error)}", err=True)
        raise typer.Exit(FAILED) from error


@app.command()
@asks
def experiment(service: Client, as_json: AsJson = False) -> None:
    """Say what came of the candidate that decides for a share of the workloads, and whether that tells anything."""
    from extender.trials.comparison import as_text

    found = service.known("/v1/experiment")
    with _answers(service):
        if found["candidate"] is None:
            why = f": {found['refused']}" if found["refused"] else "; set `experiment` to a candidate"
            typer.echo(f"there is no experiment{why}", err=True)
            raise typer.Exit(FAILED)
        typer.echo(json.dumps(found, indent=2) if as_json else as_text(plain(found)))


@app.command()
@asks
def dashboard(service: Client) -> None:
    """Print the address of the dashboard, and keep it reachable until Ctrl-C."""
    service.known("/v1/policy")
    typer.echo(f"dashboard: {service.url}/dashboard/ until Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(WATCH_S)
            service.known("/v1/policy")


def _export(service: Client, uid: str, file: Path) -> None:
    """Write a decision to a file that `replay` reads."""
    case = service.ask(f"/v1/decisions/{urllib.parse.quote(uid, safe='')}/case")
    if case is None:
        typer.echo("the nodes of this decision are no longer remembered; raise ledger_memory_mib", err=True)
        raise typer.Exit(FAILED)
    try:
        file.write_text(json.dumps(case), encoding="utf-8")
    except OSError as error:
        typer.echo(f"cannot write {file}: {error.strerror}", err=True)
        raise typer.Exit(FAILED) from error
    typer.echo(f"wrote {file}; `maddpg-extender replay {file}` decides it again")


for named, command in {
    "why": explain,
    "nodes": nodes,
    "report": report,
    "experiment": experiment,
    "dashboard": dashboard,
}.items():
    plugin.command(named, context_settings={"default_map": {"cluster": True}})(command)
plugin.command(context_settings=FLAGS, epilog=FLAGS_HELP)(observe)
plugin.command()(replay)


def main() -> None:
    """Entry point of the console script."""
    app()


def kubectl_plugin() -> None:
    """Entry point of the console script that kubectl finds."""
    plugin(prog_name="kubectl maddpg")


def kubectl_completion() -> None:
    """Entry point of the script that kubectl asks for completions: prints one per line with its help, then a directive.

    typer prints lines of this form for fish. The directive is a number of cobra's ShellCompDirective.
    """
    words = shlex.join(["kubectl-maddpg", *sys.argv[1:]])
    os.environ.update(
        _KUBECTL_MADDPG_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS=words, _TYPER_COMPLETE_FISH_ACTION="get-args"
    )
    typer.main.get_command(app)  # typer registers its shells with a program that offers to install completion
    found = io.StringIO()
    with contextlib.redirect_stdout(found), contextlib.suppress(SystemExit):
        plugin(prog_name="kubectl-maddpg")
    lines = [line for line in found.getvalue().splitlines() if line]
    typer.echo("\n".join([*lines, NO_FILES if lines else FILES]))


def _announce(port: int, operations_port: int, *, err: bool = False) -> None:
    """One line on stdout, or stderr, for whoever started us on port 0 and waits for the number."""
    typer.echo(json.dumps({"port": port, "operations_port": operations_port}), err=err)
    sys.stdout.flush()


def _settings(file: Path | None, arguments: Sequence[str]) -> Settings:
    return configuration.load(file, os.environ, parse_flags(arguments))


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """``["--deadline-ms", "20", "--port=1"]`` to names and texts.

    Raises:
        SettingsError: an argument is no flag, or a flag has no value.
    """
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise SettingsError(f"argument {argument!r} is no flag; give --name value")
        name, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest:
                raise SettingsError(f"flag --{name} has no value; give --{name} value")
            value = rest.pop(0)
        flags[name.replace("-", "_")] = value
    return flags


def _refuse(error: SchedulerError) -> NoReturn:
    typer.echo(f"maddpg-extender: {error}", err=True)
    raise typer.Exit(REFUSED)


@contextlib.contextmanager
def _answers(service: Client) -> Iterator[None]:
    """End the program with a message where what was answered is not what this version of the service answers."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ClientError(f"{service.name} answered what this version does not know; {service.hint}") from error


def _told_speed(speed: dict[str, Any]) -> str:
    """A speed, its interval and its source."""
    interval = "" if speed["low"] is None else f" ({speed['low']:.2f}-{speed['high']:.2f})"
    return f"{speed['value']:.2f}{interval}, {speed['source']}"


def _show(decision: dict[str, Any], console: Console) -> None:
    """Say why the nodes were rated as they were: sentences, then the best nodes as a table."""
    from extender.history import sentences

    asked = decision["why_not"]
    of_nodes = sentences.of_decision(decision) if asked is None else sentences.of_node(asked, decision)
    for said in [*of_nodes, *sentences.of_replicas(decision)]:
        console.print(said, markup=False, highlight=False)
    nodes = decision["nodes"] if asked is None else [decision["nodes"][0], asked] if asked["rank"] else []
    if not nodes:
        return
    table = Table("", *(escape(node["node"]) for node in nodes))
    table.add_row("priority", *(str(node["priority"]) for node in nodes))
    table.add_row("preference", *(f"{node['preference']:.3f}" for node in nodes))
    table.add_row("speed", *(_told_speed(node["speed"]) for node in nodes))
    for title in ("contributions", "criteria", "features"):
        told_of = [node[title] for node in nodes]  # None of a node without finite bids
        table.add_section()
        for name in next(filter(None, told_of), ()):
            table.add_row(f"{title}: {name}", *("-" if each is None else f"{each[name]:.3f}" for each in told_of))
    table.add_section()
    table.add_row("chance that memory runs out", *(f"{node['memory_shortage_chance']:.1%}" for node in nodes))
    usual = [node["kube_default"] for node in nodes]
    told = (f"{score['preference']:.2f} ({score['rank'] or '?'})" for score in usual)
    table.add_row(f"kube-default {decision['kube_default_version']} (rank)", *told)
    console.print(table)


if __name__ == "__main__":
    main()
