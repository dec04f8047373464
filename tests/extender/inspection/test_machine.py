"""check-config tries what the service finds on its own machine, and the command puts it all together."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extender.cli import REFUSED, app
from extender.inspection.finding import Finding
from extender.inspection.machine import inspect
from extender.settings import Settings
from tests.control_plane.certificates import Authority
from tests.policy.states import write_bundle


def found(**settings: Any) -> dict[str, Finding]:
    every = list(inspect(Settings(**{"port": 0, **settings})))
    assert all(str(each).isprintable() for each in every)
    return {each.name: each for each in every}


def test_the_shipped_policy_and_free_ports_are_ok() -> None:
    told = found(operations_port=0)
    assert {name: each.verdict for name, each in told.items()} == dict.fromkeys(
        ("policy bundle", "host, port", "operations_host, operations_port"), "ok"
    )


def test_a_bundle_that_is_refused_fails_and_where_none_is_required_is_told(tmp_path: Path) -> None:
    bad = write_bundle(tmp_path / "bad", temperature=0.0)
    assert found(bundle_path=bad)["policy bundle"].verdict == "failed"
    assert "temperature" in found(bundle_path=bad)["policy bundle"].told
    assert found(bundle_path=bad, policy_required=False)["policy bundle"].verdict == "warning"
    assert found(bundle_path=bad, scorer="least-used")["scorer"].verdict == "ok"


@pytest.mark.parametrize("setting", ["shadow", "experiment"])
def test_candidates_are_tried(tmp_path: Path, setting: str) -> None:
    assert found(**{setting: "least-used"})[setting].verdict == "ok"
    assert found(**{setting: str(write_bundle(tmp_path / "good"))})[setting].verdict == "ok"
    for bad in ("nobody", str(write_bundle(tmp_path / "bad", schema_version=9))):
        assert found(**{setting: bad})[setting].verdict == "failed"


def test_certificates_are_tried(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server", "localhost")
    good = {"tls_cert_file": pair.certificate, "tls_key_file": pair.key}
    told = found(**good)["certificates"]
    assert told.verdict == "ok"
    assert "valid until" in told.told
    other = authority.issue("other", "localhost")
    wrong = found(**good | {"tls_key_file": other.key})["certificates"]
    assert wrong.verdict == "failed"
    assert "tls_key_file" in wrong.told


def test_addresses_are_tried() -> None:
    assert found(host="192.0.2.1")["host, port"].verdict == "failed"
    assert found(host="no-such-name.invalid")["host, port"].verdict == "failed"
    assert found(operations_host="192.0.2.1", operations_port=0)["operations_host, operations_port"].verdict == "failed"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = found(host="127.0.0.1", port=taken.getsockname()[1])["host, port"]
    assert (told.verdict, "perhaps by this service" in told.told) == ("warning", True)


def test_the_ledgers_file_is_tried_and_not_touched(tmp_path: Path) -> None:
    assert found(ledger_path=tmp_path / "fresh.sqlite")["ledger_path"].verdict == "ok"
    assert list(tmp_path.iterdir()) == []
    assert found(ledger_path=tmp_path / "nowhere" / "file")["ledger_path"].verdict == "failed"
    assert found(ledger_path=tmp_path / ("a" * 300) / "file")["ledger_path"].verdict == "failed"
    other = tmp_path / "other"
    other.write_text("no database")
    assert found(ledger_path=other)["ledger_path"].verdict == "failed"
    assert found(ledger_path=tmp_path)["ledger_path"].verdict == "failed"


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["check-config", "--port", "0", *arguments])
    assert "Traceback" not in done.output
    return done.exit_code, done.stdout, done.stderr


def test_the_command_prints_settings_and_a_line_for_each_thing_tried(tmp_path: Path) -> None:
    code, out, err = run("--offline")
    assert code == 0
    assert json.loads(out)["port"] == 0
    assert err.splitlines()[0] == "ok      policy bundle: maddpg-default, temperature 0.012: accepted"
    code, _, err = run("--offline", "--bundle-path", str(tmp_path))
    assert code == REFUSED
    assert err.startswith("failed  policy bundle: policy bundle refused: manifest: ")


def test_the_command_prints_one_json_document(tmp_path: Path) -> None:
    code, out, err = run("--offline", "--json", "--scheduler-config", str(tmp_path / "nowhere"))
    document = json.loads(out)
    assert (code, err, document["failed"]) == (REFUSED, "", True)
    assert document["settings"]["port"] == 0
    assert {each["verdict"] for each in document["findings"]} == {"ok", "failed"}
    code, out, _ = run("--offline", "--json", "--deadline-ms", "-1")
    document = json.loads(out)
    assert (code, document["settings"], document["findings"][0]["name"]) == (REFUSED, None, "settings")


def test_two_ports_that_are_one_fail_as_they_would_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = found(host="127.0.0.1", port=port, operations_host="127.0.0.1", operations_port=port)
    assert told["host, port"].verdict == "ok"
    assert told["operations_host, operations_port"].verdict == "failed"
    assert "operations_port" in told["operations_host, operations_port"].fix


def test_a_ledger_that_is_no_file_fails(tmp_path: Path) -> None:
    assert found(ledger_path=Path("/dev/null"))["ledger_path"].verdict == "failed"
    assert found(ledger_path=tmp_path)["ledger_path"].verdict == "failed"
    assert found(ledger_path=tmp_path / "ledger.db")["ledger_path"].verdict == "ok"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"prometheus_url": "http://prometheus:9090"}, {"usage_source": "prometheus"}),
        ({"kubelet_connections": 8}, {"usage_source": "auto"}),
        ({"ledger_days": 3.0}, {"ledger_path": Path("ledger.db")}),
        ({"experiment_share": 0.5}, {"experiment": "least-used"}),
        ({"tracing_sample_share": 0.5}, {"tracing_endpoint": "http://collector:4318"}),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_that_nothing_reads_is_told(given: dict[str, Any], read: dict[str, Any]) -> None:
    (name,) = given
    told = found(**({"usage_source": "none"} | given))
    assert told[name].verdict == "warning"
    assert next(iter(read)) in told[name].fix
    assert name not in found(**(given | read))
