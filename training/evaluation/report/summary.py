"""A report's headline inside other documents, as `maddpg-train headline` writes it.

Writes the table between two markers of each file, so that a README or model card never says what the committed report
does not. Numbers come from `evaluation.json` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from policy.errors import InvalidInputError
from training.evaluation import tables
from training.evaluation.plan import GREEDY, RANDOM, REFERENCE
from training.evaluation.protocol import SLA
from training.evaluation.report.document import read_document
from training.files import write_text

BEGIN: Final = "<!-- evaluation -->"
END: Final = "<!-- /evaluation -->"

RULES: Final = 4
"""Of the rules, how many of the best are shown; kube-default and random always are."""


def render(document: dict[str, Any]) -> str:
    """SLA violations by load for the policy and the rules it is measured against, and how many goals are reached."""
    scenarios = document["scenarios"]
    sweep = sorted((label for label in scenarios if label.startswith(f"{REFERENCE}@")), key=_load)
    usual = next(iter(scenarios))
    others = set(document["bundles"]) | {document["policy"]}
    rules = sorted(set(scenarios[usual]) - others, key=lambda name: float(scenarios[usual][name][SLA]["mean"]))
    shown = list(dict.fromkeys([*rules[:RULES], GREEDY, RANDOM]))
    seeds = scenarios[usual][document["policy"]][SLA]["seeds"]
    rows = []
    for name in [document["policy"], *shown]:
        entries = [scenarios[label][name][SLA] for label in sweep]
        cells = [tables.percent(entry["mean"], entry["low"], entry["high"]) for entry in entries]
        rows.append([f"**{name}**" if name == document["policy"] else name, *cells])
    header = ["SLA violations, % (95 % interval)", *(f"load {_load(label):g}" for label in sweep)]
    version = document["about"].get("kubernetes")
    verdicts = [found["verdict"] for found in document["verdicts"].values()]
    reached = sum(goal["pass"] for goal in document["goals"])
    lines = [
        *tables.markdown(header, rows),
        "",
        f"{seeds} episodes a load, seeds from {document['about']['first_seed']}; against the best rule of each of "
        f"{len(verdicts)} conditions it wins {verdicts.count('wins')}, ties {verdicts.count('ties')} and loses "
        f"{verdicts.count('loses')}; {reached} of {len(document['goals'])} goals are reached."
        + (f" {GREEDY} gives the default scores of kube-scheduler {version}." if version else ""),
    ]
    return "\n".join(lines)


def insert(text: str, block: str, name: str) -> str:
    """The text with the block between its markers.

    Raises:
        InvalidInputError: it has not exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InvalidInputError(f"{name} has not one {BEGIN} before one {END}; add the two lines where the table goes")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def _load(label: str) -> float:
    return float(label.split("@")[1])


def insert_into(paths: Iterable[Path], bundle: Path) -> None:
    """Write the table of the report beside a policy into every file.

    Raises:
        InvalidInputError: there is no report, or a file does not read or has not one pair of markers.
    """
    block = render(read_document(bundle))
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"cannot read {path} ({error.strerror}); give an existing file") from error
        write_text(path, insert(text, block, path.name))
