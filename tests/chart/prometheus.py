"""prometheus and promtool: from PATH, or Debian's, unpacked into the cache.

Debian's package is not installed: it would start a server.
"""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.control_plane.toolchain import BuildError, cache_directory, locked


@cache
def prometheus_binary(name: str) -> Path:
    """`prometheus` or `promtool`.

    Raises:
        BuildError: neither PATH nor Debian's package has it.
    """
    on_path = shutil.which(name)
    return Path(on_path) if on_path else _unpacked() / name


def _unpacked() -> Path:
    """The folder of binaries of Debian's package."""
    folder = cache_directory() / "prometheus-debian"
    with locked("prometheus-debian"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
                try:
                    _run(scratch, "apt-get", "download", "-qq", "prometheus")
                    (package,) = Path(scratch).glob("prometheus_*.deb")
                    _run(scratch, "dpkg-deb", "--extract", str(package), "made")
                except (OSError, subprocess.CalledProcessError, ValueError) as error:
                    said = getattr(error, "stderr", None) or error
                    raise BuildError(f"no prometheus on PATH, and Debian's cannot be fetched: {said}") from error
                Path(scratch, "made", "usr", "bin").rename(folder)
    return folder


def _run(directory: str, *command: str) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
