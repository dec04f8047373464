"""Calls of `maddpg-train` in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from training.cli import app


def call(*arguments: str | Path) -> Result:
    """The command's outcome; our own errors surface as their exceptions, as `main` meets them."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def invoke(*arguments: str | Path) -> str:
    """Output of a successful call."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output
