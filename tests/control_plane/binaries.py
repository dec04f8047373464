"""Builds what the test control plane runs, from Go modules pinned in `modules/*/go.sum`, and keeps it cached.

`python -m tests.control_plane.binaries` builds all of it (10 to 20 minutes cold on two cores, nothing when
cached). A folder of the cache is named by the hash of go.mod, go.sum, the build's flags and, for our own Go, its
source: an unchanged pin is never built twice, a changed one never served stale. It never downloads a binary.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.control_plane.toolchain import (
    REPOSITORY,
    BuildError,
    cache_directory,
    find_go,
    go_environment,
    locked,
    parse_version,
)

MODULES = Path(__file__).resolve().parent / "modules"
HEARTBEAT_S = 30.0  # a cold build of kube-apiserver is silent for minutes


@dataclass(frozen=True)
class Module:
    """A folder with go.mod and go.sum, and what is built from it."""

    name: str
    directory: Path
    packages: dict[str, str]
    """Binary -> package."""
    pinned: str | None = None
    """The required module whose version is the binaries' version; None for Go of our own."""
    stamp: Callable[[str], dict[str, str]] = field(default=lambda _version: {})
    """Version -> the variables that the linker sets."""
    data: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """File -> YAML documents of the pinned module that it is put together from."""
    tags: tuple[str, ...] = ()
    """Build tags, for what is to be left out."""
    folders: dict[str, str] = field(default_factory=dict)
    """Folder -> folder of the pinned module that it is a copy of."""

    @property
    def version(self) -> str:
        """The version that go.mod pins, without its v; empty for Go of our own."""
        if self.pinned is None:
            return ""
        found = re.search(rf"^(?:require)?\s*{re.escape(self.pinned)} v(\S+)", self._text("go.mod"), re.MULTILINE)
        if not found:
            raise BuildError(f"{self.directory / 'go.mod'} does not require {self.pinned}")
        return found[1]

    @property
    def go(self) -> tuple[int, ...]:
        """The oldest Go that go.mod allows."""
        found = re.search(r"^go (\S+)$", self._text("go.mod"), re.MULTILINE)
        if not found:
            raise BuildError(f"{self.directory / 'go.mod'} has no go directive")
        return parse_version(found[1])

    @property
    def linker_flags(self) -> str:
        """-s -w drops the debugger's tables, which nobody reads here; stack traces keep their names."""
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in self.stamp(self.version).items())])

    @property
    def key(self) -> str:
        """The cache folder's name: it changes with whatever changes the binaries or the data, Go's version apart."""
        digest = hashlib.sha256()
        for path in sorted([*self.directory.glob("go.*"), *self.directory.glob("*.go")]):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
        made_of = (self.linker_flags, self.packages, self.data, platform.system(), platform.machine())
        digest.update(repr(made_of + self.tags + tuple(self.folders.items())).encode())
        return f"{self.name}-{self.version or 'source'}-{digest.hexdigest()[:16]}"

    def _text(self, name: str) -> str:
        return (self.directory / name).read_text()


def kubernetes_version(version: str) -> dict[str, str]:
    """Kubernetes' own release stamps; without them its binaries call themselves v0.0.0-master."""
    major, minor, _ = version.split(".", 2)
    prefix = "k8s.io/component-base/version"
    return {
        f"{prefix}.gitVersion": f"v{version}",
        f"{prefix}.gitMajor": major,
        f"{prefix}.gitMinor": minor,
        f"{prefix}.gitTreeState": "clean",
        f"{prefix}.gitCommit": "0" * 40,
        f"{prefix}.buildDate": "2026-01-01T00:00:00Z",
    }


def _kubernetes(name: str, *binaries: str) -> Module:
    packages = {binary: f"k8s.io/kubernetes/cmd/{binary}" for binary in binaries}
    return Module(name, MODULES / name, packages, "k8s.io/kubernetes", kubernetes_version)


KUBE = _kubernetes("kube", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
OLDER_SCHEDULERS = tuple(_kubernetes(f"kube-{minor}", "kube-scheduler") for minor in ("1.34", "1.35", "1.36"))
ETCD = Module("etcd", MODULES / "etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, "go.etcd.io/etcd/server/v3")
KWOK = Module(
    "kwok",
    MODULES / "kwok",
    {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    "sigs.k8s.io/kwok",
    data={
        # kwok 0.8 plays no stage unless told: nodes and pods that are ready at once, and node leases
        "stages.yaml": (
            "kustomize/stage/node/fast/node-initialize.yaml",
            "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
            "kustomize/stage/pod/fast/pod-ready.yaml",
            "kustomize/stage/pod/fast/pod-complete.yaml",
            "kustomize/stage/pod/fast/pod-delete.yaml",
        )
    },
)
METRICS_SERVER = Module(
    "metrics-server",
    MODULES / "metrics-server",
    {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
    "sigs.k8s.io/metrics-server",
    lambda version: {"k8s.io/client-go/pkg/version.gitVersion": f"v{version}"},
)
HELM = Module(
    "helm",
    MODULES / "helm",
    {"helm": "helm.sh/helm/v4/cmd/helm"},
    "helm.sh/helm/v4",
    lambda version: {"helm.sh/helm/v4/internal/version.version": f"v{version}"},
)
KUBECONFORM = Module(
    "kubeconform",
    MODULES / "kubeconform",
    {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
    "github.com/yannh/kubeconform",
    lambda version: {"main.version": f"v{version}"},
)
DONOTHING = Module("donothing", REPOSITORY / "tests" / "bench" / "donothing", {"donothing": "."})

ALL = (ETCD, KUBE, KWOK, METRICS_SERVER, *OLDER_SCHEDULERS, DONOTHING, HELM, KUBECONFORM)


def build(module: Module) -> Path:
    """The folder with that module's binaries and data, built first where the cache lacks it.

    Raises:
        BuildError: no Go, or the compiler failed: with the end of what it said.
    """
    folder = cache_directory() / module.key
    with locked(module.name):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                _compile(module, made)
                made.rename(folder)
    return folder


def _compile(module: Module, into: Path) -> None:
    go = find_go(module.go)
    environment = go_environment(go)
    started = time.monotonic()
    _say(f"building {' '.join(module.packages)} {module.version}".rstrip() + f" with {go}")
    for binary, package in module.packages.items():
        command = [str(go), "build", "-ldflags", module.linker_flags, "-o", str(into / binary)]
        command += [f"-tags={','.join(module.tags)}"] if module.tags else []
        command += [package]
        _run(command, module.directory, environment, f"{binary} {module.version}".strip())
    if module.data or module.folders:
        query = [str(go), "list", "-m", "-f", "{{.Dir}}", str(module.pinned)]
        found = subprocess.run(query, cwd=module.directory, env=environment, capture_output=True, text=True, check=True)
        source = Path(found.stdout.strip())
        for name, parts in module.data.items():
            documents = ((source / part).read_text().strip() for part in parts)
            (into / name).write_text("\n---\n".join(documents) + "\n")
        for name, part in module.folders.items():
            shutil.copytree(source / part, into / name, copy_function=shutil.copyfile)
            for path in [into / name, *(into / name).rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)  # the module cache is read-only
    _say(f"built {' '.join(module.packages)} in {time.monotonic() - started:.0f} s")


def _run(command: Sequence[str], directory: Path, environment: dict[str, str], what: str) -> None:
    """Run the compiler, saying every now and then that it still runs."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT_S)
                except subprocess.TimeoutExpired:
                    _say(f"  {what}: {time.monotonic() - started:.0f} s")
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            log.seek(0)
            tail = log.read()[-3000:]
            raise BuildError(f"{what} did not build: {' '.join(command)} in {directory} said\n{tail}")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None, modules: Sequence[Module] = ALL) -> int:
    """Build the named ones of these modules, or all, and print where each is."""
    names = {module.name: module for module in modules}
    parser = argparse.ArgumentParser(description="Builds binaries from pinned Go modules, once.")
    parser.add_argument("module", nargs="*", help=f"of {', '.join(names)}; all unless named")
    chosen = parser.parse_args(arguments).module or list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"no module {', '.join(unknown)}: there are {', '.join(names)}")
    try:
        for name in chosen:
            folder = build(names[name])
            size = sum((folder / binary).stat().st_size for binary in names[name].packages)
            print(f"{name} {names[name].version} {size / 2**20:.0f} MiB {os.fspath(folder)}".replace("  ", " "))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
