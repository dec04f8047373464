"""The image without an engine to build it: its root file system is assembled here, and run as the Dockerfile says."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from tests.chart.audit import AuditedControlPlane
from tests.chart.helm import CHART, template
from tests.control_plane import access
from tests.control_plane.cluster import EXTENDER_NAMESPACE
from tests.control_plane.processes import Process, answers_ok, free_ports
from tests.control_plane.toolchain import REPOSITORY

LIMIT_MIB, COMPRESSED_LIMIT_MIB = 450, 200
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()
INSTRUCTIONS = [
    re.sub(r"\s*\\\n\s*", " ", line).split(None, 1)
    for line in re.findall(r"^[A-Z]+ (?:.*\\\n)*.*$", DOCKERFILE, re.MULTILINE)
]
FINAL = INSTRUCTIONS[max(n for n, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM") :]
PINS = set(
    re.findall(
        # a pin for another system is not for the image
        r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?![^\n]*sys_platform == 'win32')",
        (REPOSITORY / "requirements" / "serve.txt").read_text(),
        re.MULTILINE,
    )
)
"""(name, version); some have one version for each Python."""
# chroot, then the user of the image, then the program: what an engine does first
ENTER = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); os.setgroups([]); u, g = map(int, sys.argv[2].split(':')); os.setgid(g); os.setuid(u); os.execv(sys.argv[3], sys.argv[3:])"  # fmt: skip  # noqa: E501


def _last(word: str) -> str:
    """The arguments of the last such instruction of the final stage."""
    return [arguments for found, arguments in FINAL if found == word][-1]


def _environment() -> dict[str, str]:
    return dict(part.split("=", 1) for word, arguments in FINAL if word == "ENV" for part in shlex.split(arguments))


def test_final_stage_starts_from_nothing_and_runs_as_a_numbered_user() -> None:
    assert _last("FROM") == "scratch"
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", _last("USER")), "Kubernetes checks runAsNonRoot by the number"
    assert not [arguments for word, arguments in FINAL if word == "RUN"], "there is no shell to run it"


def test_user_is_the_one_that_the_chart_sets() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    context = values["pods"]["securityContext"]
    assert _last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_build_installs_only_what_is_pinned_by_hash_or_our_own() -> None:
    installs = [
        part for word, text in INSTRUCTIONS if word == "RUN" for part in text.split("&&") if " install " in part
    ]
    assert len(installs) == 3
    for each in installs:
        pinned = "--require-hashes" in each and "--only-binary=:all:" in each
        assert pinned or ("--no-deps" in each and each.rstrip().endswith(" .")), each


def test_base_image_is_an_argument() -> None:
    assert DOCKERFILE.index("ARG BASE_IMAGE=") < DOCKERFILE.index("FROM ${BASE_IMAGE}")


def test_everything_that_is_copied_is_let_through_to_the_build() -> None:
    allowed = [line[1:] for line in (REPOSITORY / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]  # fmt: skip  # noqa: E501
    copied = [source for word, text in INSTRUCTIONS if word == "COPY" and "--from" not in text for source in text.split()[:-1]]  # fmt: skip  # noqa: E501
    for source in copied:
        assert (REPOSITORY / source).exists()
        assert any(Path(source).match(each) for each in allowed), source


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system, made by deploy/rootfs.py of what this environment has installed for serving."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can enter another root file system")
    packages, made = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("image") / "root"
    for name in {name for name, _ in PINS} | {"maddpg-scheduler"}:
        found = metadata.distribution(name)
        for file in found.files or ():
            if (
                ".." not in file.parts
                and file.suffix not in {".pyc", ".pth"}
                and Path(str(found.locate_file(file))).is_file()
            ):
                place = packages / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(found.locate_file(file)), place)
    for name in ("policy", "extender", "training"):  # installed in editable form here
        shutil.copytree(
            REPOSITORY / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    done = subprocess.run(
        [sys.executable, REPOSITORY / "deploy" / "rootfs.py", made, packages], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return made


def _entered(root: Path, *command: str) -> list[str]:
    return [sys.executable, "-c", ENTER, str(root), _last("USER"), *command]


def _run(root: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(_entered(root, *command), env=_environment(), capture_output=True, text=True)


def test_image_is_small(root: Path) -> None:
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files) / 2**20
    archive = subprocess.run(f"tar -C {shlex.quote(str(root))} -c . | gzip -1 | wc -c", shell=True, capture_output=True)  # noqa: S602
    compressed = int(archive.stdout) / 2**20
    print(f"image: {size:.0f} MiB in {len(files)} files, {compressed:.0f} MiB compressed")
    assert size < LIMIT_MIB
    assert compressed < COMPRESSED_LIMIT_MIB


def test_image_has_no_shell_no_package_manager_no_compiler_and_nothing_setuid(root: Path) -> None:
    programs = {path.name for path in root.rglob("*") if path.is_file() and "bin" in path.parts}
    assert {name for name in programs if not name.startswith("python3")} == set()
    special = stat.S_ISUID | stat.S_ISGID
    assert not [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & special]
    for module in ("pip", "setuptools", "torch", "gymnasium", "ensurepip"):
        assert "ModuleNotFoundError" in _run(root, "/usr/bin/python3", "-c", f"import {module}").stderr


def test_bill_of_materials_names_every_pin(root: Path) -> None:
    bill = json.loads((root / "usr/share/maddpg-scheduler/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    found = {(each["name"], each["version"]) for each in bill["components"]}
    ours = {(name, version) for name, version in found if name in {"python", "maddpg-scheduler"}}
    assert len(ours) == 2
    assert found - ours <= PINS
    assert {name for name, _ in found - ours} == {name for name, _ in PINS}


def test_image_writes_nowhere_but_into_tmp(root: Path) -> None:
    writable = "import os; print([d for d, _, _ in os.walk('/') if os.access(d, os.W_OK)])"
    assert _run(root, "/usr/bin/python3", "-c", writable).stdout.strip() == "['/tmp']"


def test_settings_and_the_shipped_policy_are_accepted_in_the_image(root: Path) -> None:
    done = _run(root, *json.loads(_last("ENTRYPOINT")), "check-config")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["host"] == "127.0.0.1,::1", "nothing in the image opens the verbs to others"


@contextmanager
def _serving(plane: AuditedControlPlane, root: Path, directory: Path) -> Iterator[tuple[int, int]]:
    """The image's own command over the control plane; yields the ports of verbs and operations."""
    kubeconfig = plane.extender_kubeconfig(root / "tmp" / "kubeconfig")
    kubeconfig.chmod(0o644)
    verbs, operations = free_ports(2)
    hosts = {"host": "127.0.0.1", "operations-host": "127.0.0.1"}
    flags = {**hosts, "port": verbs, "operations-port": operations, "kubeconfig": "/tmp/kubeconfig"}
    command = [*json.loads(_last("ENTRYPOINT")), *json.loads(_last("CMD"))]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    ready = answers_ok(f"http://127.0.0.1:{operations}/readyz")
    process = Process("image", _entered(root, *command), directory, ready, _environment())
    try:
        plane.launch(process)
        yield verbs, operations
    finally:
        process.stop()
        kubeconfig.unlink()


def test_image_serves_a_real_cluster_and_passes_its_checks(
    control_plane: AuditedControlPlane, root: Path, home: Path, tmp_path: Path
) -> None:
    access.apply(
        control_plane.api, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": EXTENDER_NAMESPACE}}]
    )
    hook = template(home, {"extender": {"mode": "service"}}).one("Pod", "maddpg-scheduler-test")
    (container,) = hook["spec"]["containers"]
    script, *_ = container["args"]
    with _serving(control_plane, root, tmp_path) as (verbs, operations):
        urls = [f"http://127.0.0.1:{operations}", f"http://127.0.0.1:{verbs}"]
        probe = _run(root, "/usr/bin/python3", *container["command"][1:], script, *urls)
        assert probe.stdout.strip() == "ready, and rates nodes", probe.stderr
        assert _health(root, operations) == 0
    assert _health(root, operations) != 0, "nothing serves any more"


def _health(root: Path, port: int) -> int:
    """The exit status of the HEALTHCHECK."""
    command = json.loads(_last("HEALTHCHECK").split("CMD ", 1)[1])
    environment = _environment() | {"MADDPG_OPERATIONS_PORT": str(port)}
    return subprocess.run(_entered(root, *command), env=environment, capture_output=True).returncode
