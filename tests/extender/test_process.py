"""The service as a process: without torch, refusing what it must refuse, ending in good order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from extender.cli import REFUSED
from tests.extender.background import BackgroundService
from tests.extender.service import Service, by_names, pod
from tests.policy.states import write_bundle

BLOCKER = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "gymnasium", "pettingzoo", "onnx", "tensorboard", "scipy"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
        return None
sys.meta_path.insert(0, Absent())
"""

EMBEDDED = """
import asyncio, sys
from pathlib import Path
from extender.app import create_app
from tests.extender.embedded import EmbeddedSource
from extender import logs
from extender.server import serve
from extender.settings import Settings

class Prefilled(EmbeddedSource):
    async def start(self, table, supervisor):
        await super().start(table, supervisor)
        for i in range(20):
            table.upsert_node(f"node-{i}", 8.0, 32.0)

logs.configure("info", "json")
settings = Settings(port=0, bundle_path=Path(sys.argv[1]), deadline_ms=5000.0, shutdown_delay_s=float(sys.argv[2]),
    bundle_reload_s=3600.0)
app = create_app(settings, Prefilled())
asyncio.run(serve(app, lambda port, operations: print(port, flush=True)))
"""


@pytest.fixture
def start(bundle_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start a service with 20 nodes as a process of its own, torch being absent; returns it and its URL."""
    running: list[subprocess.Popen[str]] = []

    def run(delay: float = 0.0, bundle: Path = bundle_path) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", BLOCKER + EMBEDDED, str(bundle), str(delay)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # buffered output, as a user's shell has it, is the harder case for a log whose reader is gone
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        return process, f"http://127.0.0.1:{int(line)}"

    yield run
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_it_serves_where_torch_is_absent(start: Callable[[], tuple[subprocess.Popen[str], str]]) -> None:
    process, url = start()
    names = [f"node-{i}" for i in range(20)]
    answer = httpx.post(f"{url}/prioritize", json=by_names(names))
    assert {host["Host"] for host in answer.json()} == set(names)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines() if "stopping" in line] == ["stopping"]


def test_no_module_of_the_service_needs_torch() -> None:
    code = BLOCKER + textwrap.dedent("""
        import pkgutil, importlib, extender, policy
        for package in (extender, policy):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
        print("torch" in sys.modules)
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr


def test_a_signal_lets_answers_go_on_during_the_delay(
    start: Callable[[float], tuple[subprocess.Popen[str], str]],
) -> None:
    process, url = start(1.0)
    with httpx.Client(base_url=url) as client:
        client.get("/readyz").raise_for_status()
        process.send_signal(signal.SIGTERM)
        while (ready := client.get("/readyz")).status_code == 200:
            assert process.poll() is None
        assert ready.json()["reasons"] == ["the service is stopping"]
        assert client.post("/prioritize", json=by_names(["node-1"])).status_code == 200
    assert process.wait(timeout=20) == 0


def test_it_ends_though_nobody_reads_its_log_any_more(start: Callable[[], tuple[subprocess.Popen[str], str]]) -> None:
    process, _ = start()
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_a_second_signal_ends_at_once(start: Callable[[float], tuple[subprocess.Popen[str], str]]) -> None:
    process, _ = start(60.0)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_a_signal_takes_up_another_bundle_at_once(
    tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], str]]
) -> None:
    place = write_bundle(tmp_path / "served", name="first")
    process, url = start(bundle=place)
    with httpx.Client(base_url=url) as client:
        assert client.get("/v1/policy").json()["serving"]["scorer"] == "first"
        place.rename(tmp_path / "former")
        write_bundle(tmp_path / "fresh", seed=8, name="second").rename(place)
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20.0
        while client.get("/v1/policy").json()["serving"]["scorer"] != "second":
            assert time.monotonic() < deadline, "the signal was not heeded"
            time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "extender", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_sha256": "0" * 64}, "model_sha256"),
        ({"schema_version": 99}, "schema_version"),
        ({"features": ["one"]}, "features"),
        ({"temperature": -1.0}, "temperature"),
    ],
    ids=["hash", "version", "shape", "temperature"],
)
def test_a_bad_bundle_is_refused_at_start_with_the_field_named(
    tmp_path: Path, command: str, change: dict[str, object], field: str
) -> None:
    bundle = write_bundle(tmp_path / "bad", **change)
    result = cli(command, "--bundle-path", str(bundle), "--port=0")
    assert result.returncode == REFUSED
    assert f"policy bundle refused: {field}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_setting_is_refused_with_its_name() -> None:
    for result in (cli("check-config", "--dead-line", "3"), cli("serve", MADDPG_DEADLINE_MS="soon")):
        assert result.returncode == REFUSED
        assert "dead" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "ports",
    [["--port=0"], ["--port=0", "--operations-port=0", "--operations-host=127.0.0.1"]],
    ids=["one port", "two ports"],
)
def test_a_cluster_that_cannot_be_reached_ever_is_refused_with_the_setting_named(
    tmp_path: Path, bundle_path: Path, ports: list[str]
) -> None:
    result = cli("serve", "--bundle-path", str(bundle_path), *ports, HOME=str(tmp_path), KUBECONFIG="")
    assert result.returncode == REFUSED
    assert "maddpg-extender: no way to the cluster" in result.stderr
    assert "`kubeconfig`" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_config_prints_the_settings_in_effect(bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"bundle_path: {bundle_path}\ndeadline_ms: 20\n")
    result = cli("check-config", "--config", str(file), "--port", "9", MADDPG_FALLBACK="least-used")
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert (shown["deadline_ms"], shown["port"], shown["fallback"]) == (20, 9, "least-used")


def test_a_taken_port_is_said_plainly(run_service: Callable[..., Service]) -> None:
    from extender.app import create_app
    from extender.errors import SettingsError
    from tests.extender.embedded import EmbeddedSource

    first = run_service()
    settings = first.background.app.settings.model_copy(update={"port": first.background.port})
    with (
        pytest.raises(SettingsError, match=str(first.background.port)),
        BackgroundService(create_app(settings, EmbeddedSource())),
    ):
        pytest.fail("it cannot have started")


def test_explain_tells_why_by_uid_and_by_name(run_service: Callable[..., Service]) -> None:
    service = run_service()
    service.prioritize(service.add_nodes(6), pod("web"))
    url = service.background.operations_url
    for arguments in (["uid-web"], ["web"], ["web", "--namespace", "default"]):
        result = cli("explain", *arguments, "--url", url)
        assert result.returncode == 0, result.stderr
        assert "default/web" in result.stdout
        assert "headroom" in result.stdout
        assert "its urgency is 0.5 (QoS class Burstable)." in " ".join(result.stdout.split())
    exact = json.loads(cli("explain", "uid-web", "--json", "--url", url).stdout)
    assert exact["pod"]["uid"] == "uid-web"
    assert exact["urgency"] == {"value": 0.5, "source": "qos", "reason": "QoS class Burstable"}
    assert exact["expected"] is None


@pytest.mark.parametrize(
    ("pod_name", "url", "complaint"),
    [
        ("nobody", None, "no decision is remembered"),
        ("web", "http://127.0.0.1:9", "cannot ask"),
        ("web", "ftp://x", "URL"),
    ],
    ids=["unknown_pod", "nobody_there", "no_http"],
)
def test_explain_says_what_is_wrong(
    run_service: Callable[..., Service], pod_name: str, url: str | None, complaint: str
) -> None:
    result = cli("explain", pod_name, "--url", url or run_service().background.operations_url)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
