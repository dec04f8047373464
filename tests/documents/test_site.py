"""The documents build without a warning, links lead somewhere, nothing comes from other hosts, all is documented."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml

import extender.cli
import training.cli
from extender.app import create_app
from extender.operations.metrics import FAMILIES
from extender.settings import Settings
from helm.reference import CHART, read_values
from policy.cluster import COLUMNS
from policy.heuristics import DETERMINISTIC
from tests.control_plane.toolchain import REPOSITORY
from tests.documents.site import SITE, SITES, Page, build, lead, read
from tests.extender.embedded import EmbeddedSource

Site = dict[Path, Page]


@pytest.fixture(scope="module")
def built() -> subprocess.CompletedProcess[str]:
    return build(fresh=True)


@pytest.fixture(scope="module")
def site(built: subprocess.CompletedProcess[str]) -> Site:
    return read()


def words(site: Site, page: str) -> str:
    return "".join(site[SITE / f"{page}.html"].text)


def test_the_documents_build_without_a_warning(built: subprocess.CompletedProcess[str]) -> None:
    assert (built.returncode, built.stderr) == (0, "")


def test_the_table_of_contents_has_every_document(site: Site) -> None:
    contents = set(re.findall(r"\]\((\S+?\.md)\)", (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")))
    listed = {(REPOSITORY / "docs" / target).resolve() for target in contents}
    documents = {*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")}
    records = set((REPOSITORY / "docs" / "decisions").glob("0*.md"))  # their index lists them
    assert documents - listed - records == {REPOSITORY / "docs" / "README.md"}
    assert all((SITE / path.relative_to(REPOSITORY)).with_suffix(".html") in site for path in documents)


def dead(site: Site) -> Iterator[str]:
    for path, page in site.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = site[target].anchors if target in site else set()
            if not target.exists() or (parts.fragment and target in site and unquote(parts.fragment) not in anchors):
                yield f"{path.relative_to(SITE)}: {link}"


def test_every_link_and_anchor_of_a_page_exists(site: Site) -> None:
    assert sum(len(page.links) for page in site.values()) > 1000
    assert list(dead(site)) == []


def test_pages_load_nothing_from_other_hosts(site: Site) -> None:
    loads = {load for page in site.values() for load in page.loads}
    for style in SITE.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", style.read_text(encoding="utf-8"), flags=re.DOTALL)
        loads |= {
            first or second for first, second in re.findall(r"""url\(["']?([^"')]+)|@import\s+["']([^"']+)""", text)
        }
    assert any(urlsplit(load).path.endswith(".js") for load in loads)
    assert {load for load in loads if re.match(r"(https?:)?//", load)} == set()


def test_every_page_leads_to_the_other_versions(site: Site) -> None:
    without = [path for path, page in site.items() if not any(link.endswith("../versions.html") for link in page.links)]
    assert without == [SITE / "index.html"]
    assert SITE.name == tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_newest_version_comes_first_and_older_ones_stay(tmp_path: Path) -> None:
    for name in ("0.9.0", "0.10.0", "0.10.0rc1", "latest", "0.2.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").touch()
    lead(tmp_path)
    assert 'content="0; url=0.10.0/index.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    listed = re.findall('href="(.+?)/index.html"', (tmp_path / "versions.html").read_text(encoding="utf-8"))
    assert listed == ["0.10.0", "0.10.0rc1", "0.9.0", "0.2.0"]
    assert (tmp_path / "0.2.0" / "index.html").exists()
    assert (SITES / "versions.html").exists()


def commands(name: str, app: typer.Typer) -> Iterator[tuple[str, list[str]]]:
    """Each command as it is typed, and its options."""
    for word, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        yield f"{name} {word}", [option for each in command.params for option in each.opts if option.startswith("--")]


def test_every_command_and_option_is_documented(site: Site) -> None:
    text = words(site, "docs/commands")
    described = [*commands("maddpg-extender", extender.cli.app), *commands("maddpg-train", training.cli.app)]
    assert len(described) > 20
    for name, options in described:
        begin = text.index(f"$ {name}")
        section = text[begin : text.find("\n$ ", begin + 1) if text.find("\n$ ", begin + 1) > 0 else None]
        assert [f"{name} {option}" for option in options if option not in section] == []


def test_every_setting_metric_value_and_alert_is_documented(site: Site) -> None:
    operations = words(site, "docs/operations")
    assert [name for name in Settings.model_fields if name not in operations.split()] == []
    assert [each.name for each in FAMILIES if each.name not in operations] == []
    chart = words(site, "helm/maddpg-scheduler/README")
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert [value.name for value in values if value.name not in chart] == []
    rules = yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "rules.yaml").read_text(encoding="utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    anchors = site[SITE / "docs" / "troubleshooting.html"].anchors
    assert [alert for alert in alerts if alert.lower() not in anchors] == []
    assert alerts


def test_every_endpoint_parameter_and_answer_is_documented(site: Site) -> None:
    text = words(site, "docs/api")
    document = create_app(Settings(scorer="kube-default"), EmbeddedSource()).operations.openapi()
    for name, schema in document["components"]["schemas"].items():
        _, _, section = text.partition(f"\n{name}\N{PILCROW SIGN}")
        described = section.partition("\N{PILCROW SIGN}")[0].split()
        assert [each for each in schema["properties"] if each not in described] == [], name
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _, _, section = text.partition(f"{method.upper()} {path}\N{PILCROW SIGN}")
            assert section, path
            described = section.partition("\N{PILCROW SIGN}")[0]
            names = [each["name"] for each in operation.get("parameters", ())]
            assert [name for name in (*names, *operation["responses"]) if name not in described] == []


def test_every_rule_and_column_is_documented_for_those_who_write_one(site: Site) -> None:
    text = words(site, "docs/rules").split()
    assert [name for name in (*DETERMINISTIC, *COLUMNS) if not {name, f"{name},"} & set(text)] == []
