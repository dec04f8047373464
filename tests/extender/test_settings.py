"""Settings come from file, environment and flags, and nothing unknown or unfit gets in."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from extender.cli import app, parse_flags
from extender.configuration import load
from extender.errors import SettingsError
from extender.operations.reference import describe
from extender.settings import Settings

SOURCES = Path(__file__).parents[2] / "extender"


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("yaml", "deadline_ms: 20\nurgency_by_priority_class: {critical: 1.0}\n"),
        ("toml", "deadline_ms = 20\n[urgency_by_priority_class]\ncritical = 1.0\n"),
    ],
)
def test_a_file_a_variable_and_a_flag_win_in_that_order(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"settings.{suffix}"
    file.write_text(text)
    assert load(file).deadline_ms == 20
    assert load(file).urgency_by_priority_class == {"critical": 1.0}
    assert load(file, {"MADDPG_DEADLINE_MS": "30"}).deadline_ms == 30
    assert load(file, {"MADDPG_DEADLINE_MS": "30"}, {"deadline_ms": "40"}).deadline_ms == 40
    assert load().deadline_ms == 50


def test_the_environment_counts_only_where_it_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADDPG_DEADLINE_MS", "7")
    assert Settings().deadline_ms == 50


def test_tables_and_empty_values_are_read_from_text() -> None:
    found = load(environment={"MADDPG_OPERATIONS_PORT": "9", "MADDPG_NODE_SPEED_BY_INSTANCE_TYPE": '{"m7": 1.5}'})
    assert (found.operations_port, found.node_speed_by_instance_type) == (9, {"m7": 1.5})
    assert load(environment={"MADDPG_OPERATIONS_PORT": ""}).operations_port is None


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"dead_line": "1"}, r"flag --dead-line is no setting; did you mean deadline_ms"),
        ({"deadline_ms": "soon"}, r"deadline_ms \(flag\).*'soon'"),
        ({"deadline_ms": "0"}, r"deadline_ms \(flag\).*greater than 0"),
        ({"scorer": "oracle"}, r"scorer.*'oracle' is unknown; choose one of"),
        ({"fallback": "policy"}, r"fallback.*unknown"),
        ({"keep_alive_s": "60"}, r"keep_alive_s.*greater than 90"),
        ({"urgency_by_qos": "fast"}, r"--urgency-by-qos: give a JSON table"),
        ({"urgency_by_qos": '{"Guaranteed": 1}'}, r"urgency_by_qos.*exactly the classes"),
        ({"urgency_by_priority_class": '{"a": 2}'}, r"urgency_by_priority_class.a"),
        ({"urgency_by_owner_kind": '{"Job": 2}'}, r"urgency_by_owner_kind.Job"),
        ({"node_speed_benchmark": "maddpg-benchmark"}, r"node_speed_benchmark"),
        ({"node_speed_benchmark": "a/b/c"}, r"node_speed_benchmark"),
        ({"usage_interval_s": "200"}, r"usage_time_limit_s must be at least twice"),
        ({"unknown_node_priority": "11"}, r"unknown_node_priority"),
        ({"port": "70000"}, r"port"),
        ({"prometheus_node_label": "nod\u00e9"}, r"prometheus_node_label"),
        ({"prometheus_selector": 'z\u00f6ne="a"'}, r"prometheus_selector"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(flags: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(flags=flags)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.yaml", "deadline: 3", r"deadline \(file .*a.yaml\) is no setting"),
        ("a.yaml", "- 1", "give a table of settings"),
        ("a.yaml", "a: [", "does not parse"),
        ("a.yaml", "a: " + "[" * 10_000, "does not parse: RecursionError"),
        ("a.yaml", "a: 2026-13-45", "does not parse: ValueError"),
        ("a.toml", "a =", "does not parse"),
        ("a.yaml", "port: 8888\nport: 9999", "a.yaml: line 2: 'port' stands twice"),
        ("a.yaml", "urgency_by_priority_class: {a: 0.1, a: 0.9}", "line 1: 'a' stands twice"),
        ("a.ini", "a", "ini: the name must end in"),
        ("missing/a.yaml", None, "cannot read"),
    ],
)
def test_a_file_that_does_not_read_is_refused(tmp_path: Path, name: str, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        load(tmp_path / name)


def test_an_empty_text_is_none_wherever_it_stands(tmp_path: Path) -> None:
    names = (
        "bundle_path",
        "kubeconfig",
        "kube_context",
        "ledger_path",
        "operations_port",
        "peers",
        "shadow",
        "range_tolerance",
    )
    (tmp_path / "a.yaml").write_text("".join(f"{name}: ''\n" for name in names))
    (tmp_path / "a.toml").write_text("".join(f"{name} = ''\n" for name in names))
    variables = {f"MADDPG_{name.upper()}": "" for name in names}
    for settings in (load(tmp_path / "a.yaml"), load(tmp_path / "a.toml"), load(environment=variables)):
        assert {name: getattr(settings, name) for name in names} == dict.fromkeys(names)


def test_a_version_that_yaml_reads_as_a_number_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kubernetes_version: 1.36\n")
    assert load(tmp_path / "a.yaml").kubernetes_version == "1.36"


SECRET = "s3cr3t"


@pytest.mark.parametrize("setting", ["prometheus_url", "tracing_endpoint"])
@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (f"http://reader:{SECRET}@prometheus:9090", "holds a user or a password; give them by"),
        (f"https://{SECRET}@prometheus", "holds a user or a password; give them by"),
        (f"http://prometheus/?api-key={SECRET}", "has a query or a fragment"),
        (f"reader:{SECRET}@prometheus:9090", "is no URL"),
        (f"http://:{SECRET}", "is no URL"),
        ("http://", "is no URL"),
        ("http://prometheus..svc:9090", "is no URL"),
        ("http://prometheus:9090 ", "is no URL"),
        (" http://prometheus:9090", "is no URL"),
        ("http://prome\ntheus:9090", "is no URL"),
    ],
)
def test_a_url_that_may_hold_a_secret_is_refused_by_name_and_never_shown(
    tmp_path: Path, setting: str, url: str, complaint: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f'{setting}: "{url}"\n')
    for refused in (
        lambda: load(file),
        lambda: load(environment={f"MADDPG_{setting.upper()}": url}),
        lambda: load(flags={setting: url}),
    ):
        with pytest.raises(SettingsError, match=f"{setting} .*{complaint}") as raised:
            refused()
        assert SECRET not in str(raised.value)
    with pytest.raises(ValidationError) as invalid:
        Settings.model_validate({setting: url})
    assert SECRET not in str(invalid.value)


def test_a_password_behind_a_user_is_never_shown() -> None:
    with pytest.raises(SettingsError, match="prometheus_username") as raised:
        load(flags={"prometheus_username": f"reader:{SECRET}"})
    assert SECRET not in str(raised.value)


def test_a_list_that_is_nested_deep_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"TLS_CLIENT_NAMES.*give a JSON list.*RecursionError"):
        load(environment={"MADDPG_TLS_CLIENT_NAMES": "[" * 100_000})


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.yaml", f"prometheus_url: {SECRET}\nx: [", r"does not parse: ParserError \(line 2"),
        ("a.toml", f"prometheus_url = {SECRET}", r"does not parse: TOMLDecodeError \(at line 1, column 18\)"),
    ],
)
def test_a_file_that_does_not_parse_is_told_by_the_place(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=complaint) as raised:
        load(tmp_path / name)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "selector",
    ["", 'cluster="ours"', '{cluster="ours"}', ' { cluster = "ours" , zone=~"eu-(a|b)" , } ', 'a=\'b\', c!~"d\\"e"'],
)
def test_a_selector_is_matchers_with_or_without_braces(selector: str) -> None:
    assert load(flags={"prometheus_selector": selector}).prometheus_selector == selector


@pytest.mark.parametrize("selector", ["ours", "{}", "a=b", 'a="b"} or up{', 'a="b" b="c"', '{a="b"', '1a="b"'])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(SettingsError, match="prometheus_selector"):
        load(flags={"prometheus_selector": selector})


def test_an_unknown_variable_is_refused_but_service_links_of_kubernetes_are_not() -> None:
    with pytest.raises(SettingsError, match="MADDPG_DEADLINE is no setting"):
        load(environment={"MADDPG_DEADLINE": "1"})
    links = {
        "MADDPG_SCHEDULER_SERVICE_HOST": "10.0.0.1",
        "MADDPG_SCHEDULER_SERVICE_PORT_HTTP": "80",
        "MADDPG_SCHEDULER_PORT": "tcp://10.0.0.1:80",
        "MADDPG_SCHEDULER_PORT_80_TCP_ADDR": "10.0.0.1",
        "MADDPG_PORT": "tcp://10.0.0.1:80",
    }
    assert load(environment=links).port == Settings().port


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_flags_are_split_with_and_without_an_equals_sign() -> None:
    assert parse_flags(["--deadline-ms", "2", "--port=3"]) == {"deadline_ms": "2", "port": "3"}
    for broken in (["deadline"], ["--deadline-ms"]):
        with pytest.raises(SettingsError):
            parse_flags(broken)


def test_every_setting_is_read_somewhere() -> None:
    code = "\n".join(file.read_text() for file in SOURCES.rglob("*.py") if file.name != "settings.py")
    read = set(re.findall(r"settings\.(\w+)", code)) | {
        f"enable_{verb}" for verb in ("filter", "prioritize", "preempt", "bind")
    }
    assert {name for name, *_ in describe()} - read == set()


def test_the_program_tells_its_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"{metadata.version('maddpg-scheduler')}\n")
