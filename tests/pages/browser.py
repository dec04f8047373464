"""Chromium and axe for the tests of the pages: from PATH or Debian's packages, and from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from tests.control_plane.toolchain import BuildError, locked

DEBIAN = Path("/usr/lib/chromium/chromium")
"""What Debian's `chromium`, a script, starts."""


def chromium() -> Path:
    """Return the browser; as root on Debian it is installed where it is missing.

    Raises:
        BuildError: there is none, and it cannot be installed.
    """
    with locked("chromium"):
        found = _found()
        if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
            for command in (("update", "-qq"), ("install", "-yqq", "--no-install-recommends", "chromium")):
                _run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *command)
            found = _found()
    if found is None:
        raise BuildError("no chromium on PATH; install Debian's package chromium, or run as root")
    return found


def axe() -> str:
    """Return axe-core's script."""
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def _found() -> Path | None:
    on_path = shutil.which("chromium") or shutil.which("google-chrome")
    return DEBIAN if DEBIAN.exists() else Path(on_path) if on_path else None


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{command[0]} failed: {getattr(error, 'stderr', None) or error}") from error
