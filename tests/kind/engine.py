"""A Docker Engine: the one that runs here, or one of the tests' own from Debian's packages, started and ended by hand.

The engine of our own lives in a temporary folder, socket and images included. What it changes on the machine (firewall,
kernel settings, its bridges) is put back.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.control_plane.processes import Process
from tests.control_plane.toolchain import BuildError
from tests.kind import runc_within_bounds
from tests.kind.machine import command, firewall_kept, kernel_settings_kept

PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap", "iptables": "iptables", "ip": "iproute2"}
"""Program -> the Debian package that has it."""


@dataclass(frozen=True)
class Engine:
    """Where an engine is, for docker and kind."""

    environment: dict[str, str]
    own: bool
    """Whether the tests started it, and may change what is around it."""

    def docker(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 600.0) -> str:
        """Run docker and return what it wrote on stdout.

        Raises:
            BuildError: it failed; with what it said.
        """
        done = subprocess.run(
            ["docker", *arguments],
            env=os.environ | self.environment,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise BuildError(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{said[-3000:]}")
        return done.stdout.decode(errors="replace")


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine that `docker` reaches here; where there is none, one of our own until the end of the block.

    Raises:
        BuildError: there is none and none can be had; the message says why.
        StartError: it did not come up.
    """
    if _answers({}):
        yield Engine({}, own=False)
        return
    if sys.platform != "linux" or os.geteuid() != 0:
        raise BuildError("no Docker Engine answers, and only root on Linux can start one: start yours")
    _install_packages()
    with ExitStack() as kept:
        directory = Path(
            kept.enter_context(tempfile.TemporaryDirectory(prefix="maddpg-kind-", ignore_cleanup_errors=True))
        )
        kept.callback(_unmount_below, directory)
        kept.enter_context(kernel_settings_kept())
        kept.enter_context(firewall_kept())
        kept.callback(_remove_bridges, keep=_bridges())
        found = Engine(_environment(directory), own=True)
        daemon = Process(
            "dockerd", _daemon(directory), directory, partial(_answers, found.environment), found.environment
        )
        kept.callback(daemon.stop, 60.0)
        daemon.start()
        daemon.wait()
        kept.callback(_remove_containers, found)
        yield found


def _answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker", path=environment.get("PATH")) is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(asked, env=os.environ | environment, capture_output=True).returncode == 0


def _environment(directory: Path) -> dict[str, str]:
    """Debian's client, whatever else PATH has, and nothing of the user's configuration."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "docker").symlink_to("/usr/bin/docker")
    if runc_within_bounds.lacking(Path("/proc/self/status").read_text()):
        wrapper = programs / "runc"
        source = Path(runc_within_bounds.__file__).read_text()
        wrapper.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{source}")
        wrapper.chmod(0o755)
    return {
        "PATH": f"{programs}{os.pathsep}/usr/sbin{os.pathsep}{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{directory}/docker.sock",
        "DOCKER_CONFIG": str(directory / "configuration"),
        "DOCKER_BUILDKIT": "1",
    }


def _daemon(directory: Path) -> list[str]:
    places = {
        "host": f"unix://{directory}/docker.sock",
        "data-root": directory / "data",
        "exec-root": directory / "run",
        "pidfile": directory / "dockerd.pid",
        "config-file": directory / "daemon.json",
    }
    (directory / "daemon.json").write_text(json.dumps({"log-level": "warn"}))
    return ["/usr/sbin/dockerd", *(f"--{name}={value}" for name, value in places.items())]


def _install_packages() -> None:
    """What Debian has and this machine lacks, without starting what the packages would start."""
    path = f"/usr/sbin{os.pathsep}{os.environ['PATH']}"
    missing = sorted({package for name, package in PACKAGES.items() if shutil.which(name, path=path) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BuildError(f"this is no Debian: install {', '.join(missing)} by its own means, or start a Docker Engine")
    print(f"installing {', '.join(missing)}", file=sys.stderr, flush=True)
    policy = Path("/usr/sbin/policy-rc.d")
    with ExitStack() as kept:
        if not policy.exists():
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            kept.callback(policy.unlink)
        command("apt-get", "update", "-qq")
        command(
            "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-yqq", "--no-install-recommends", *missing
        )


def _remove_containers(found: Engine) -> None:
    """Whatever a test left running: the daemon would wait for it."""
    if left := found.docker("ps", "--all", "--quiet").split():
        found.docker("rm", "--force", "--volumes", *left)


def _bridges() -> set[str]:
    """The machine's bridges that are named as an engine names them."""
    names = {link["ifname"] for link in json.loads(command("ip", "-json", "link", "show", "type", "bridge"))}
    return {name for name in names if name == "docker0" or name.startswith("br-")}


def _remove_bridges(keep: set[str]) -> None:
    """The engine's networks outlive it; bridges that were there before it are not its own."""
    for name in sorted(_bridges() - keep):
        command("ip", "link", "delete", name)


def _unmount_below(directory: Path) -> None:
    """What the daemon leaves mounted (the namespace of its first network) keeps the folder from being removed."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([each for each in points if Path(each).is_relative_to(directory)]):
        command("umount", point)
