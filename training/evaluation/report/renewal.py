"""The evidence of a written report once more: `python -m training.evaluation.report.renewal REPORT --scale FILE ...`.

Measures the simulator's speed again and reads the cited files; no episode is played, and what episodes showed stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.evaluation.report.document import renewed, to_text
from training.evaluation.report.evidence import Evidence, read_ablations, read_scale
from training.evaluation.report.markdown import JSON_FILE, MARKDOWN_FILE, to_markdown
from training.evaluation.report.summary import read_document
from training.files import write_text
from training.simulator.speed import speeds


def renew(folder: Path, evidence: Evidence) -> None:
    """Write the report in `folder` with this evidence instead of its own; figures stay.

    Raises:
        InvalidInputError: there is no report.
    """
    before = read_document(folder)
    document = renewed(before, evidence)
    lines = (folder / MARKDOWN_FILE).read_text(encoding="utf-8").splitlines()
    figures = [line.rpartition("/")[2].rstrip(")") for line in lines if line.startswith("![")]
    write_text(folder / JSON_FILE, to_text(document))
    write_text(folder / MARKDOWN_FILE, to_markdown(document, figures))


def main(arguments: Sequence[str] | None = None) -> None:
    """Renew one report."""
    parser = argparse.ArgumentParser(description="Renew the evidence of a written report without playing it again.")
    parser.add_argument("report", type=Path, help="folder with evaluation.json and evaluation.md")
    parser.add_argument("--scale", type=Path, help="outcome.json of a run of more than 10,000 episodes")
    parser.add_argument("--ablations", type=Path, help="ablations.json of maddpg-train ablate")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement of speed (default: 1)")
    options = parser.parse_args(arguments)
    scale = read_scale(options.scale) if options.scale else None
    ablations = read_ablations(options.ablations) if options.ablations else None
    renew(options.report, Evidence(speeds(options.seconds), scale, ablations))
    print(f"renewed {options.report / JSON_FILE} and {options.report / MARKDOWN_FILE}")


if __name__ == "__main__":
    main()
