"""Tables and intervals as text, in the formats that reports, model cards and commands share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in (header, *rows))
    return [head, "|---" * len(header) + "|", *body]


def rich(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], folded: Sequence[str] = ()) -> Table:
    """Return a table for a terminal, on which the columns in `folded` may take several lines."""
    table = Table(title=title)
    for column in header:
        table.add_column(column, no_wrap=column not in folded, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def percent(value: float, low: float, high: float) -> str:
    """Return a share with its interval in percent: ``1.23 (1.01-1.45)`` for 0.0123."""
    return f"{100 * value:.2f} ({100 * low:.2f}-{100 * high:.2f})"


def bracketed(value: float, low: float, high: float, form: str = ".4f") -> str:
    """Return a number with its interval, each in the given format: ``0.0123 [0.0101, 0.0145]``."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
