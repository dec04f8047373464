"""Debian file systems, made by debootstrap where no base image can be pulled, and kept beside the built binaries."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.control_plane.toolchain import BuildError, cache_directory, locked

SUITE = "bookworm"


def unpack(packages: Sequence[str], target: Path) -> None:
    """Lay a Debian with these packages into `target`, which must exist.

    Raises:
        BuildError: debootstrap failed; with the end of what it said.
    """
    run(["tar", "-C", str(target), "-xf", str(archive(packages))])


def archive(packages: Sequence[str]) -> Path:
    """A tar archive of a Debian with these packages, made once: delete it for newer ones.

    Raises:
        BuildError: debootstrap failed; with the end of what it said.
    """
    key = hashlib.sha256(" ".join([SUITE, *sorted(packages)]).encode()).hexdigest()[:16]
    path = cache_directory() / f"debian-{SUITE}-{key}.tar"
    with locked("debian"):
        if not path.exists():
            started = time.monotonic()
            print(f"making a Debian {SUITE} with {', '.join(packages)}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
                root, made = Path(scratch, "root"), Path(scratch, "made.tar")
                run(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(root)])
                for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
                    for file in (root / left).glob("*"):
                        if file.is_file():
                            file.unlink()
                run(["tar", "-C", str(root), "--exclude=./dev/*", "-cf", str(made), "."])
                made.rename(path)
            print(f"made it in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return path


def run(command: Sequence[str], stdin: bytes | None = None) -> str:
    """Run a step of a build and return what it wrote on stdout.

    Raises:
        BuildError: it failed, or is not installed.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, env=os.environ | {"LC_ALL": "C"})
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise BuildError(f"{' '.join(command)} ended with {done.returncode}:\n{said[-3000:]}")
    return done.stdout.decode(errors="replace")
