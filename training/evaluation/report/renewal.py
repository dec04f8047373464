"""The evidence of a written report once more: no episode is played, and what episodes showed stays."""

from __future__ import annotations

from pathlib import Path

from training.evaluation.report.document import renewed, to_text
from training.evaluation.report.evidence import Evidence
from training.evaluation.report.markdown import JSON_FILE, MARKDOWN_FILE, to_markdown
from training.evaluation.report.summary import read_document
from training.files import write_text


def renew(folder: Path, evidence: Evidence) -> list[Path]:
    """Write the report in `folder` with this evidence instead of its own; figures stay. The paths written.

    Raises:
        InvalidInputError: there is no report.
    """
    before = read_document(folder)
    document = renewed(before, evidence)
    lines = (folder / MARKDOWN_FILE).read_text(encoding="utf-8").splitlines()
    figures = [line.rpartition("/")[2].rstrip(")") for line in lines if line.startswith("![")]
    write_text(folder / JSON_FILE, to_text(document))
    write_text(folder / MARKDOWN_FILE, to_markdown(document, figures))
    return [folder / JSON_FILE, folder / MARKDOWN_FILE]
