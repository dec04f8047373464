"""The client's commands find our Service in a cluster and reach it by kubectl, and say what keeps them from it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from extender import cli
from extender.cli import app, plugin
from extender.operations import tunnel
from tests.control_plane.certificates import Authority
from tests.extender.service import Service, pod

FAKE = """#!{python} -IS
import json, os, signal, socket, sys, threading, time
said = json.load(open({said!r}))
words = [word for word in sys.argv[1:] if not word.startswith("-")]
with open({asked!r}, "a") as log:
    print(json.dumps([os.getpid(), *sys.argv[1:]]), file=log)

def fail(text, status=1):
    print(text, file=sys.stderr)
    sys.exit(status)

def pass_on(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

if words[0] == "config":
    print(said["namespace"], end="")
elif words[0] == "get":
    if said["get"] is not None:
        fail(said["get"])
    found = said["services"]
    if words[1] == "services":
        print(json.dumps({{"kind": "List", "items": found}}))
    else:
        names = [each["metadata"]["name"] for each in found]
        if words[1][8:] not in names:
            fail(f'Error from server (NotFound): services "{{words[1][8:]}}" not found')
        print(json.dumps(found[names.index(words[1][8:])]))
elif said["forward"] is not None:
    fail(said["forward"])
elif said["mute"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
else:
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"Forwarding from 127.0.0.1:{{listening.getsockname()[1]}} -> 8889", flush=True)
    answered = 0
    while True:
        client, _ = listening.accept()
        if answered == said["dies_after"]:
            fail("error: lost connection to pod")
        answered += 1
        print("Handling connection for 8889", flush=True)
        server = socket.create_connection(("127.0.0.1", said["upstream"]))
        for pair in ((client, server), (server, client)):
            threading.Thread(target=pass_on, args=pair, daemon=True).start()
"""
"""kubectl, as far as it is needed: it finds Services that a file lists, and forwards to a port that the file names."""

LABELS = {
    "app.kubernetes.io/name": "maddpg-scheduler",
    "app.kubernetes.io/component": "extender",
    "helm.sh/chart": "maddpg-scheduler-0.1.0",
}


def listed(name: str = "m-extender", namespace: str = "sched", protocol: str | None = "http", **labels: str) -> Any:
    """A Service, as kubectl shows it."""
    ports: list[dict[str, Any]] = [{"name": "verbs", "port": 8888}, {"name": "operations", "port": 8889}]
    if protocol is not None:
        ports[1]["appProtocol"] = protocol
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {**LABELS, **labels}},
        "spec": {"ports": ports, "clusterIP": "10.0.0.1"},
    }


FOREIGN = listed(**{"app.kubernetes.io/name": "x", "helm.sh/chart": "x-1"})


@dataclass
class Fake:
    """A kubectl of this test, first on the PATH."""

    folder: Path
    said: dict[str, Any] = field(
        default_factory=lambda: {
            "services": [listed()], "namespace": "", "get": None, "forward": None, "mute": False, "dies_after": -1,
            "upstream": 0,
        }
    )  # fmt: skip

    def says(self, **said: Any) -> None:
        """Change what it answers."""
        self.said.update(said)
        (self.folder / "said").write_text(json.dumps(self.said))

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of each call so far, behind its process id."""
        file = self.folder / "asked"
        return [[str(word) for word in json.loads(line)] for line in file.read_text().splitlines()]

    def ended(self) -> bool:
        """Whether each process of it has ended."""
        return all(not Path(f"/proc/{call[0]}").exists() for call in self.asked)


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A kubectl that knows one Service of our chart, to which nothing is forwarded yet."""
    fake, program = Fake(tmp_path), tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable, said=str(tmp_path / "said"), asked=str(tmp_path / "asked")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    fake.says()
    return fake


@pytest.fixture
def service(run_service: Callable[..., Service], kubectl: Fake) -> Service:
    """A service that has decided about a pod, and that kubectl forwards to."""
    running = run_service(operations_port=0)
    running.prioritize(running.add_nodes(3), pod("web"))
    kubectl.says(upstream=running.background.operations_port)
    return running


def run(*arguments: str, of: Any = app) -> Result:
    return CliRunner().invoke(of, list(arguments))


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("given", [["--cluster"], ["--service", "sched/m-extender"], ["--context", "c"]])
def test_commands_find_the_service_in_the_cluster(kubectl: Fake, given: list[str]) -> None:
    assert json.loads(run("report", "--json", *given).output)["remembered"]["decisions"] == 1
    assert kubectl.ended()
    search, forward = kubectl.asked
    assert search[-1] == "--output=json"
    assert forward[1:][-6:] == [
        "port-forward", "--address=127.0.0.1", "--pod-running-timeout=20s", "--namespace=sched", "service/m-extender",
        ":8889",
    ]  # fmt: skip


@pytest.mark.usefixtures("service")
def test_the_plug_in_asks_the_cluster_unasked(kubectl: Fake) -> None:
    kubectl.says(services=[FOREIGN, listed(**{"app.kubernetes.io/name": "renamed"})])
    assert "default/web" in run("why", "web", of=plugin).output
    assert "node-1" in run("nodes", "--kubeconfig", "/a b/config", "--context", "other", of=plugin).output
    assert "--kubeconfig=/a b/config" in kubectl.asked[-1]
    assert "--context=other" in kubectl.asked[-1]
    refused = run("why", "web", "--url", "http://127.0.0.1:9", of=plugin)
    assert "--url and --cluster name two services" in refused.output


@pytest.mark.usefixtures("service")
def test_the_dashboard_stays_reachable_until_the_forwarding_is_lost(
    kubectl: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "WATCH_S", 0.01)
    kubectl.says(dies_after=3)
    done = run("dashboard", of=plugin)
    assert re.match(r"dashboard: http://127\.0\.0\.1:\d+/dashboard/ until Ctrl-C\n", done.output)
    assert "cannot ask Service sched/m-extender" in done.output


@pytest.mark.usefixtures("service")
def test_a_pod_is_looked_for_in_the_namespace_of_the_context(kubectl: Fake) -> None:
    kubectl.says(namespace="apps")
    assert "by name in namespace apps" in run("explain", "web", "--cluster").output
    assert "default/web" in run("explain", "web", "--cluster", "--namespace", "default").output


def test_an_encrypted_port_is_verified_by_the_name_of_the_service(
    run_service: Callable[..., Service], kubectl: Fake, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server", "m-extender.sched.svc")
    running = run_service(operations_port=0, operations_tls=True, tls_cert_file=pair.certificate, tls_key_file=pair.key)
    kubectl.says(upstream=running.background.operations_port, services=[listed(protocol="https")])
    given = ["report", "--json", "--cluster", "--ca-file", str(authority.certificate)]
    assert json.loads(run(*given).output)["remembered"]["decisions"] == 0
    assert "name the authority of its certificate with --ca-file" in run("report", "--cluster").output
    kubectl.says(services=[listed(protocol=None)])
    assert json.loads(run(*given).output)["remembered"]["decisions"] == 0
    kubectl.says(services=[listed("other", protocol="https")])
    assert "certificate verify failed: Hostname mismatch" in run(*given).output
    direct = ["report", "--url", running.background.operations_url, "--ca-file", str(authority.certificate)]
    assert "IP address mismatch" in run(*direct).output


def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("none")
    for url, file, complaint in (
        ("https://127.0.0.1:9", "no.pem", "no certificate in PEM"),
        ("https://127.0.0.1:9", "absent", "cannot be read: No such file"),
        ("http://127.0.0.1:9", "no.pem", "has no use"),
    ):
        refused = run("report", "--url", url, "--ca-file", str(tmp_path / file))
        assert refused.exit_code == 1
        assert "--ca-file" in refused.output
        assert complaint in refused.output


@pytest.mark.parametrize(
    ("said", "arguments", "complaint"),
    [
        ({"services": []}, ["--cluster"], "no Service in this cluster is of the chart maddpg-scheduler"),
        ({"services": [FOREIGN]}, ["--cluster"], "no Service in this cluster is of the chart"),
        ({"services": [listed(), listed(namespace="a")]}, ["--cluster"], "--service: a/m-extender, sched/m-extender"),
        ({"get": "Error from server (Forbidden)"}, ["--cluster"], "give --service NAMESPACE/NAME"),
        ({"get": "error: context \"c\" does not exist"}, ["--context", "c"], "failed with status 1 and says why above"),
        ({}, ["--service", "sched/nobody"], "is --service the NAMESPACE/NAME of a Service"),
        ({}, ["--service", "m-extender"], "--service is 'm-extender'; give NAMESPACE/NAME"),
        ({"services": [{}]}, ["--cluster"], "no Service that this version knows"),
        ({"services": [{**listed(), "spec": {}}]}, ["--cluster"], "has no port named operations"),
        ({"forward": "error: unable to forward port because pod is not running"}, ["--cluster"], "status 1"),
        ({"dies_after": 0}, ["--cluster"], "has `kubectl port-forward` ended?"),
        ({"upstream": 1}, ["--cluster"], "cannot ask Service sched/m-extender"),
    ],
    ids=[
        "none", "foreign", "several", "forbidden", "no context", "not found", "no namespace", "unknown", "no port",
        "exits", "dies", "nobody behind",
    ],
)  # fmt: skip
def test_what_keeps_us_from_the_service_is_told(
    kubectl: Fake, capfd: pytest.CaptureFixture[str], said: dict[str, Any], arguments: list[str], complaint: str
) -> None:
    kubectl.says(**said)
    done = run("report", *arguments)
    assert done.exit_code == 1
    assert complaint in done.output
    assert "Traceback" not in done.output
    own = next((said[name] for name in ("get", "forward") if name in said), "")
    assert own in capfd.readouterr().err, "what kubectl says itself"
    assert not (kubectl.folder / "asked").exists() or kubectl.ended()


@pytest.mark.usefixtures("service")
def test_a_forwarding_that_is_lost_between_two_questions_is_told(kubectl: Fake) -> None:
    kubectl.says(dies_after=1)
    done = run("explain", "web", "--cluster")
    assert done.exit_code == 1
    assert "cannot ask Service sched/m-extender" in done.output
    assert kubectl.ended()


def test_a_kubectl_that_says_nothing_is_given_up_and_killed(kubectl: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "TIMEOUT_S", 3.0)
    monkeypatch.setattr(tunnel, "END_S", 0.1)
    kubectl.says(mute=True)
    done = run("report", "--cluster")
    assert "did not begin within 3 s" in done.output
    assert kubectl.ended()


def test_without_kubectl_the_way_without_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "kubectl is not on the PATH; install it, or" in run("report", "--cluster").output


def test_a_signal_ends_kubectl_too(kubectl: Fake, run_service: Callable[..., Service]) -> None:
    kubectl.says(upstream=run_service(operations_port=0).background.operations_port)
    program = "import time\nfrom extender.operations.client import Client\nClient.known = lambda *_: time.sleep(60)\n"
    program += "from extender.cli import kubectl_plugin\nkubectl_plugin()\n"
    with subprocess.Popen([sys.executable, "-c", program, "report"]) as process:
        deadline = time.monotonic() + 60.0
        while len(kubectl.asked if (kubectl.folder / "asked").exists() else []) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30.0) == 128 + signal.SIGTERM
    assert kubectl.ended()


def test_observing_takes_the_options_of_kubectl(tmp_path: Path) -> None:
    file = tmp_path / "config"
    clusters = [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}]
    contexts = [{"name": "a", "context": {"cluster": "a", "user": "a"}}]
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "a", "users": [{"name": "a", "user": {}}]}
    file.write_text(json.dumps({**config, "clusters": clusters, "contexts": contexts}))
    done = run("observe", "--port", "0", "--kubeconfig", str(file), "--context", "other", of=plugin)
    assert done.exit_code == cli.REFUSED
    assert "there is no context 'other'; known: a" in done.output
