"""What a newcomer reads is true: paths, links and commands exist, records are listed, one version stands everywhere."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import typer
import yaml

import extender.cli
import training.cli
from extender.engine import Engine
from extender.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("deploy", "docs", "extender", "helm", "policy", "requirements", "tests", "training")
FOLDER = rf"(?:{'|'.join(FOLDERS)})/"
PATH = re.compile(rf"`({FOLDER}[\w./-]*)`|(?<![\w./-])({FOLDER}[\w./-]+\.(?:py|yaml|json|md|toml|txt))\b")
"""In backticks anything that begins with a folder of ours, elsewhere what ends like a file."""

PROGRAMS = {
    "maddpg-extender": extender.cli.app,
    "maddpg-train": training.cli.app,
    "kubectl maddpg": extender.cli.plugin,
}
COMMAND = rf"(?:{'|'.join(PROGRAMS)}) "

PROTOCOL = "extender/v1"
"""The name of kube-scheduler's protocol, no path."""

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SECTION = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
RECORDS = ROOT / "docs" / "decisions"


def names(documents: list[Path]) -> list[str]:
    return [str(document.relative_to(ROOT)) for document in documents]


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {quoted or plain for quoted, plain in PATH.findall(text)} - {PROTOCOL}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_every_link_between_documents_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not ((ROOT / document).parent / target).exists()] == []


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_every_link_to_a_section_names_one_that_exists(document: str) -> None:
    page = ROOT / document
    missing = []
    for target, section in SECTION.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            headings = HEADING.findall((page.parent / target if target else page).read_text(encoding="utf-8"))
            if section not in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}:
                missing.append(f"{target}#{section}")
    assert missing == []


def test_the_index_lists_every_decision_record_with_its_number() -> None:
    index = (RECORDS / "README.md").read_text(encoding="utf-8")
    records = sorted(path.name for path in RECORDS.glob("[0-9]*.md"))
    assert re.findall(r"^\| \[\d{4}\]\((\S+)\) \|", index, re.MULTILINE) == records
    for name in records:
        number = int(name[:4])
        assert f"| [{number:04}]({name}) |" in index
        assert (RECORDS / name).read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_the_example_of_a_breakpoint_is_where_a_request_is_decided() -> None:
    example = re.findall(r"BREAK=(\S+):(\d+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert example == re.findall(r"BREAK=(\S+):(\d+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    ((file, line),) = example
    assert "received = " in (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    decide = inspect.getsourcelines(Engine.decide)
    assert decide[1] < int(line) < decide[1] + len(decide[0])


def test_one_version_stands_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    chart = yaml.safe_load((ROOT / "helm" / "maddpg-scheduler" / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == version
    found = {}
    for file in [*(ROOT / "deploy").rglob("*"), *DOCUMENTS]:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            tags = re.findall(r"maddpg-scheduler/(?:extender|training):(\d[\w.-]*\w)", text)
            tags += re.findall(r"^ARG VERSION=(\S+)", text, re.MULTILINE)
            found.update({(str(file.relative_to(ROOT)), tag): tag for tag in tags})
    assert {place for place, tag in found.items() if tag != version} == set()
    assert found


def test_the_changelog_dates_the_version_and_keeps_what_came_since_apart() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    heads = re.findall(
        r"^## \[(\S+)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert heads[0] == ("Unreleased", "")
    assert heads[1][0] == version
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) for _, date in heads[1:])


def shown() -> Iterator[tuple[str, str]]:
    """Document and text of each command of ours that a document shows; records and changelog may name former ones."""
    past = {ROOT / "CHANGELOG.md", *RECORDS.glob("0*.md")}
    for path in sorted({*DOCUMENTS, ROOT / "helm" / "maddpg-scheduler" / "README.md"} - past):
        text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
        for line in re.findall(rf"^ {{4,}}(?:\.venv/bin/)?({COMMAND}.+)$", text, re.MULTILINE):
            yield path.name, line
        for line in re.findall(rf"`({COMMAND}[^`]+)`", text):
            yield path.name, " ".join(line.split())


def unknown(line: str) -> list[str]:
    """What a command line has that its program does not know: the command, or options of it."""
    program = next(each for each in PROGRAMS if line.startswith(f"{each} "))
    words = [word.rstrip(",") for word in shlex.split(line.removeprefix(program), comments=True)]
    words = list(takewhile(lambda word: word not in {"|", "&", "&&", ";"}, words))
    known = typer.main.get_command(PROGRAMS[program]).commands  # type: ignore[attr-defined]
    if words[0].startswith("-"):
        return []
    if words[0] not in known:
        return words[:1]
    command = known[words[0]]
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    if command.context_settings.get("ignore_unknown_options"):
        options |= {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [word for word in given if word not in options]


def test_every_command_that_a_document_shows_exists_with_its_options() -> None:
    found = list(shown())
    assert len(found) > 80
    assert [(document, line, bad) for document, line in found if (bad := unknown(line))] == []


def test_every_target_of_make_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (path.name, target)
        for path in DOCUMENTS
        for target in re.findall(r"(?:`|^ {4,})make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {each for each in named if each[1] not in targets} == set()
    assert ("README.md", "demo") in named
