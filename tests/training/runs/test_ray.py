"""Seeds on Ray: the same runs as here, what is said where Ray is missing, and the manifest that KubeRay gets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from policy.errors import InvalidInputError
from tests.training.learning.test_checkpoint import assert_equal_runs
from tests.training.runs.test_seeds import invoke
from tests.training.tiny_runs import document, one_thread  # noqa: F401 - a fixture
from training.cli import app
from training.runs.order import train_seed
from training.runs.seeds import load_plan, parse_seeds, seed_folder

ROOT = Path(__file__).parents[3]
MANIFEST = ROOT / "deploy" / "ray" / "rayjob.yaml"
CONTAINERFILE = ROOT / "deploy" / "ray" / "Dockerfile"


def test_without_the_package_the_error_names_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what import finds of a package that is not installed
    settings = tmp_path / "tiny.yml"
    settings.write_text(yaml.safe_dump(document(tmp_path)))
    with pytest.raises(InvalidInputError, match=re.escape("pip install 'maddpg-scheduler[ray]'")):
        invoke("run", "--config", settings, "--out", tmp_path / "out", "--seeds", "1-2", "--ray")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def own_network() -> list[str]:
    """Words that run a command where there is nothing but a loopback: Ray listens on every interface it finds."""
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    up = "ip link set lo up"
    possible = shutil.which("unshare") and shutil.which("ip")
    if not possible or subprocess.run([*words, "sh", "-c", up], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    return [*words, "sh", "-c", f'{up} && exec "$@"', "sh"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets must fit in 107 characters, which pytest's folders leave no room for."""
    with tempfile.TemporaryDirectory(prefix="ray-") as name:
        yield Path(name)


@pytest.mark.timeout(600)  # Ray starts four services and a process for each seed
def test_seeds_on_ray_equal_seeds_here(tmp_path: Path, own_network: list[str], short_folder: Path) -> None:
    settings, out = tmp_path / "tiny.yml", tmp_path / "out"
    settings.write_text(yaml.safe_dump(document(tmp_path)))
    command = [sys.executable, "-m", "training.cli", "run", "--config", str(settings), "--out", str(out)]
    ended = subprocess.run(
        [*own_network, *command, "--seeds", "1-2", "--threads", "1", "--jobs", "1", "--ray"],
        env={**os.environ, "HOME": str(tmp_path), "RAY_TMPDIR": str(short_folder), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^best: seed [12], ", ended.stdout, flags=re.MULTILINE)
    assert list(short_folder.iterdir()), "Ray was not there"
    plan = load_plan(out)
    for seed in (1, 2):
        here = plan.order(tmp_path / "here", seed, None)
        train_seed(here)
        assert_equal_runs(here.folder, seed_folder(out, seed))


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (found,) = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "RayJob"]
    return dict(found)


@pytest.fixture(scope="module")
def options(job: dict[str, Any]) -> dict[str, Any]:
    """What our command line understands of the job's entrypoint."""
    program, name, *rest = shlex.split(job["spec"]["entrypoint"])
    assert program == "maddpg-train"
    group = typer.main.get_group(app)
    command = group.commands[name]
    return dict(command.make_context(name, rest).params)


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"], **{each["groupName"]: each for each in cluster["workerGroupSpecs"]}}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_the_entrypoint_trains_seeds_on_the_cluster_it_runs_in(options: dict[str, Any], job: dict[str, Any]) -> None:
    assert options["ray"]
    assert options["ray_address"] == "auto"
    assert options["resume"], "a job that is tried again must go on"
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == len(parse_seeds(options["seeds"]))
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["cpu"] == str(options["threads"])


def test_every_pod_reaches_the_folder_of_the_runs(options: dict[str, Any], job: dict[str, Any]) -> None:
    (claim,) = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(job).values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            folders = {Path(mount["mountPath"]): mount["name"] for mount in container["volumeMounts"]}
            (name,) = [folders[parent] for parent in options["out"].parents if parent in folders]
            assert volumes[name]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_every_pod_keeps_the_restricted_pod_security_standard(job: dict[str, Any]) -> None:
    for name, pod in pods(job).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert all(volume.keys() & {"persistentVolumeClaim", "emptyDir"} for volume in pod["volumes"]), name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, name


def test_one_version_of_ray_is_pinned_everywhere(job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==([\d.]+)", (ROOT / "requirements" / "test.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert f"rayproject/ray:{pinned[1]}-py" in CONTAINERFILE.read_text()
    images = {container["image"] for pod in pods(job).values() for container in pod["containers"]}
    assert len(images) == 1
    assert images.pop() in CONTAINERFILE.read_text(), "the Dockerfile says how to build what the job runs"
