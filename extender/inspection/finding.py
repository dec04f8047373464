"""What came of one thing that was tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    name: str  # what was tried: a part of the service, or a field of a file
    # `failed` where the service would not start, never be ready, or not be asked; `warning` where it works otherwise
    # than most want; `skipped` where it could not be tried
    verdict: Verdict
    told: str  # what was found
    fix: str = ""  # what to do about it; empty where there is nothing to do

    def __str__(self) -> str:
        """One line."""
        return f"{self.verdict:<7} {self.name}: {self.told}" + (f"; {self.fix}" if self.fix else "")


def failed(findings: Iterable[Finding]) -> bool:
    """Return whether anything failed."""
    return any(finding.verdict == "failed" for finding in findings)
