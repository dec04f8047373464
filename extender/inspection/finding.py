"""What came of one thing that was tried, and settings as they may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from extender.settings import Settings

Verdict = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        name: what was tried: a part of the service, or a field of a file.
        verdict: `failed` where the service would not start, never be ready, or not be asked; `warning` where it works
            otherwise than most want; `skipped` where it could not be tried.
        told: what was found.
        fix: what to do about it; empty where there is nothing to do.
    """

    name: str
    verdict: Verdict
    told: str
    fix: str = ""

    def __str__(self) -> str:
        """One line."""
        return f"{self.verdict:<7} {self.name}: {self.told}" + (f"; {self.fix}" if self.fix else "")


def failed(findings: Iterable[Finding]) -> bool:
    """Return whether anything failed."""
    return any(finding.verdict == "failed" for finding in findings)


_USER: Final = re.compile(r"(?<=://)[^/?#]*@")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)


def shown(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON, without what URLs may hold of secrets: users, passwords, queries."""
    return {name: _masked(value) for name, value in settings.model_dump(mode="json").items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        return _QUERY.sub("?***", _USER.sub("***@", value))
    return value
