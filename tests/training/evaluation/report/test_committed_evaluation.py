"""The report committed beside the shipped policy is of that policy, and what is said elsewhere agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.bundle import MODEL_CARD_FILE, load_bundle, shipped_bundle_path
from training.evaluation.report.document import read_document
from training.evaluation.report.markdown import FIGURES_FOLDER, JSON_FILE, MARKDOWN_FILE, to_markdown
from training.evaluation.report.summary import BEGIN, END, render

REPOSITORY = Path(__file__).parents[4]
BUNDLE = shipped_bundle_path()


def test_the_report_is_of_the_policy_that_ships() -> None:
    document = read_document(BUNDLE)
    manifest = load_bundle(BUNDLE).manifest  # loads with the report and its figures beside it
    assert document["model_sha256"] == manifest.model_sha256, "run make evaluate EVALUATION=policy/models/default"
    assert document["policy"] == manifest.name


def test_its_markdown_and_figures_belong_to_its_json() -> None:
    figures = sorted(path.name for path in (BUNDLE / FIGURES_FOLDER).iterdir())
    text = (BUNDLE / MARKDOWN_FILE).read_text(encoding="utf-8")
    named = [line.rpartition("/")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert sorted(named) == figures
    assert text == to_markdown(read_document(BUNDLE), named)


def test_its_files_are_small() -> None:
    assert (BUNDLE / JSON_FILE).stat().st_size < 16_000 * len(read_document(BUNDLE)["scenarios"])
    assert all(path.stat().st_size < 100_000 for path in (BUNDLE / FIGURES_FOLDER).iterdir())


@pytest.mark.parametrize("path", [REPOSITORY / "README.md", BUNDLE / MODEL_CARD_FILE], ids=lambda path: path.name)
def test_what_is_said_elsewhere_is_what_the_report_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    inside = text.split(BEGIN)[1].split(END)[0].strip()
    assert inside == render(read_document(BUNDLE)), "run make evaluation-tables"
