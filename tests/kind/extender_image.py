"""The extender's image, really built by a Docker Engine from deploy/Dockerfile."""

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import CHART
from tests.control_plane.toolchain import REPOSITORY
from tests.kind.engine import Engine
from tests.kind.node_image import debian

BASE = "maddpg-scheduler/python-base:test"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
PIP_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""Where this machine says how pip reaches its index; the build does it the same way."""
NAME = f"maddpg-scheduler/extender:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
SBOM = "/usr/share/maddpg-scheduler/sbom.cdx.json"
CHUNK = 1 << 20


@dataclass(frozen=True)
class ExtenderImage:
    """The built image."""

    engine: Engine
    name: str = NAME

    @cached_property
    def described(self) -> dict[str, Any]:
        """What the engine says of it."""
        return dict(json.loads(self.engine.docker("image", "inspect", self.name))[0])

    @cached_property
    def unpacked_bytes(self) -> int:
        """What it takes on a node."""
        return int(self.described["Size"])

    @cached_property
    def compressed_bytes(self) -> int:
        """What a registry would keep and a node would pull."""
        command = ["docker", "save", self.name]
        with subprocess.Popen(command, env=os.environ | self.engine.environment, stdout=subprocess.PIPE) as saved:
            assert saved.stdout is not None
            with tempfile.TemporaryFile() as file:
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6) as packed:
                    shutil.copyfileobj(saved.stdout, packed, CHUNK)
                return file.tell()

    @cached_property
    def bill_of_materials(self) -> dict[str, Any]:
        """The CycloneDX list that it carries."""
        read = f"print(open({SBOM!r}).read())"
        text = self.engine.docker("run", "--rm", "--entrypoint", "/usr/bin/python3", self.name, "-c", read)
        return dict(json.loads(text))


def build(engine: Engine) -> ExtenderImage:
    """Build it: from the Dockerfile's own base where the engine is the user's, else from a Debian made here.

    Raises:
        BuildError: the engine refused, or the base could not be made.
    """
    arguments = ["build", "--file", str(REPOSITORY / "deploy" / "Dockerfile"), "--tag", NAME]
    if engine.own:
        _make_base(engine)
        # the host's network, whose resolver and routes are the ones by which pip reaches its index here
        arguments += ["--build-arg", f"BASE_IMAGE={BASE}", "--network", "host"]
    engine.docker(*arguments, str(REPOSITORY), timeout_s=1200.0)
    return ExtenderImage(engine)


def _make_base(engine: Engine) -> None:
    with tempfile.TemporaryDirectory(prefix="python-base-") as scratch:
        debian.unpack(BASE_PACKAGES, Path(scratch))
        for name in PIP_FILES:
            if Path(name).exists():
                shutil.copyfile(name, Path(scratch, name.lstrip("/")))
        packed = subprocess.run(["tar", "-C", scratch, "-c", "."], capture_output=True, check=True)
    engine.docker("import", "-", BASE, stdin=packed.stdout)
