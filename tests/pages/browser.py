"""Chromium and axe for the tests of the pages: from PATH or Debian's packages, and from PyPI."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright

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


Launch = Callable[..., Any]
"""Starts a Chromium; one that gives way to other processes, with `gives_way=True`."""


@contextmanager
def launcher() -> Iterator[Launch]:
    """A function that starts a Chromium.

    Raises:
        BuildError: there is none, and it cannot be installed.
    """
    path = chromium()
    with sync_playwright() as driver, TemporaryDirectory() as folder:
        polite = Path(folder) / "chromium"
        polite.write_text(f'#!/bin/sh\nexec nice -n 19 {shlex.quote(str(path))} "$@"\n')
        polite.chmod(0o755)

        def start(gives_way: bool = False) -> Any:
            arguments = ["--no-sandbox", "--disable-gpu"]
            return driver.chromium.launch(executable_path=polite if gives_way else path, args=arguments)

        yield start


@contextmanager
def page_of(browser: Any, expected: str = "", **options: Any) -> Iterator[Any]:
    """A page that must stay without errors on its console and without failed requests, but for those `expected`."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda it: complaints.append(f"{it.status} {it.url}") if it.status >= 400 else None)
    try:
        yield page
        assert [told for told in complaints if not expected or re.search(expected, told) is None] == []
    finally:
        context.close()


def _found() -> Path | None:
    on_path = shutil.which("chromium") or shutil.which("google-chrome")
    return DEBIAN if DEBIAN.exists() else Path(on_path) if on_path else None


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{command[0]} failed: {getattr(error, 'stderr', None) or error}") from error
