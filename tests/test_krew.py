"""krew's manifest of the plug-in is one that krew takes, and what it installs runs the commands of the package."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender import cli

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "krew"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMED = f"Python package {PROJECT['name']} {PROJECT['version']}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What the manifest's comment says how to make, unpacked as krew does."""
    (command,) = re.findall(r"^#   (tar .*)$", (FOLDER / "maddpg.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    made = tmp_path / "kubectl-maddpg.tar.gz"
    subprocess.run(shlex.split(command.replace(made.name, str(made))), cwd=ROOT, check=True)
    with tarfile.open(made) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    return tmp_path / "unpacked"


def test_manifest_is_one_that_krew_takes(archive: Path) -> None:
    """By ValidatePlugin and ValidatePlatform of sigs.k8s.io/krew/internal/index/validation."""
    manifest = yaml.safe_load((FOLDER / "maddpg.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert manifest["metadata"]["name"] == "maddpg"
    told = manifest["spec"]
    assert told["version"] == f"v{PROJECT['version']}"
    assert NAMED in told["caveats"]
    assert 0 < len(told["shortDescription"]) <= 50
    (platform,) = told["platforms"]
    (selector,) = platform["selector"]["matchExpressions"]
    assert selector == {"key": "os", "operator": "In", "values": ["linux", "darwin"]}
    assert platform["uri"].startswith("https://")
    assert f"/{told['version']}/" in platform["uri"]
    assert re.fullmatch(r"[0-9a-f]{64}", platform["sha256"])
    assert {each["from"] for each in platform["files"]} == {path.name for path in archive.iterdir()}
    assert platform["bin"] in {each["from"] for each in platform["files"] if each["to"] == "."}


def test_what_krew_installs_runs_the_package_beside_which_it_lies(archive: Path, tmp_path: Path) -> None:
    """As pipx lays it out: a link on the PATH, the scripts themselves in a virtual environment."""
    scripts, path = tmp_path / "a venv" / "bin", tmp_path / "path"
    scripts.mkdir(parents=True)
    path.mkdir()
    for name, said in (("maddpg-extender", "wrong"), ("kubectl-maddpg", '"$@"')):
        (scripts / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {said}\n")
        (scripts / name).chmod(0o755)
    (path / "maddpg-extender").symlink_to(scripts / "maddpg-extender")
    command = [str(archive / "kubectl-maddpg"), "why", "a pod", "--not", "node-1"]
    done = subprocess.run(
        command, env={"PATH": f"{path}{os.pathsep}/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == command[1:]


def test_without_the_package_what_krew_installs_says_how_to_get_it(archive: Path) -> None:
    done = subprocess.run(
        [archive / "kubectl-maddpg"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert NAMED in done.stderr


def test_package_installs_what_kubectl_looks_for() -> None:
    assert PROJECT["scripts"]["kubectl-maddpg"] == f"{cli.__name__}:{cli.kubectl_plugin.__name__}"
    completion = f"{cli.__name__}:{cli.kubectl_completion.__name__}"
    assert PROJECT["scripts"]["kubectl_complete-maddpg"] == completion
