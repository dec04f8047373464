"""Assembles the root file system of the image: an interpreter, the packages, and the libraries that they load.

Runs in the build stage of the Dockerfile, with the interpreter that is to be in the image. What is not copied is not
there: no shell, no package manager, no compiler, no setuid program. Standard library only.

    python3 rootfs.py TARGET PACKAGES

TARGET is the new root; PACKAGES is a folder made by `pip install --target`, and becomes /opt/maddpg there.
"""

import compileall
import json
import re
import shutil
import subprocess  # nosec B404 # one call, below
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

USER_ID = 65532
HOME_OF_PACKAGES = Path("/opt/maddpg")
SBOM = Path("usr/share/maddpg-scheduler/sbom.cdx.json")
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "site-packages", "dist-packages", "config-*", "test", "tests", "idlelib", "tkinter", "turtledemo",
    "ensurepip", "lib2to3", "pydoc_data", "*.a", "*.pyi", "_tkinter*", "_test*"
)  # fmt: skip
"""Of the standard library: what a service never imports."""
LEFT_OUT_OF_PACKAGES = shutil.ignore_patterns(
    "__pycache__", "*.a", "*.pyi", "*.pyx", "*.pxd", "bin", "tests", "transformers", "quantization"
)
"""Of the packages: sources, tests, and ONNX Runtime's tools for making models, of which serving imports none."""
LEFT_OUT_FOLDERS = ("numpy/f2py",)
"""Of the packages, by place: the Kubernetes client's asyncio twin (63 MiB) and tools that serving never imports."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nmaddpg:x:{USER_ID}:{USER_ID}:maddpg:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nmaddpg:x:{USER_ID}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class RootError(RuntimeError):
    """The root cannot be assembled; the message says what is missing."""


def assemble(target: Path, packages: Path) -> None:
    """Fill `target`, which must be empty or absent.

    Raises:
        RootError: it is not, or a shared library cannot be found.
    """
    if target.exists() and any(target.iterdir()):
        raise RootError(f"{target} is not empty")
    target.mkdir(parents=True, exist_ok=True)
    _link_merged_folders(target)
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    _copy(interpreter, target)
    shutil.copytree(library, _inside(target, library), ignore=LEFT_OUT, symlinks=True)
    shutil.copytree(packages, _inside(target, HOME_OF_PACKAGES), ignore=LEFT_OUT_OF_PACKAGES, symlinks=True)
    for name in LEFT_OUT_FOLDERS:
        shutil.rmtree(_inside(target, HOME_OF_PACKAGES) / name)
    # asked of the originals, whose neighbours are where they expect them
    copied = {HOME_OF_PACKAGES: packages, library: library}
    modules = [
        there / path.relative_to(_inside(target, here))
        for here, there in copied.items()
        for path in _inside(target, here).rglob("*.so*")
    ]
    for path in _shared_libraries([interpreter, *modules]):
        _copy(path, target)
    link = target / "usr/bin/python3"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(interpreter)
    for name, text in FILES.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if CERTIFICATES.exists():
        _copy(CERTIFICATES, target)
    temporary = target / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    listing = target / SBOM
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps(bill_of_materials(packages), indent=1) + "\n")
    _compile(target, [library, HOME_OF_PACKAGES])
    _readable(target)


def bill_of_materials(packages: Path) -> dict[str, Any]:
    """What the image holds, in CycloneDX 1.5."""
    version = ".".join(map(str, sys.version_info[:3]))
    components: list[dict[str, Any]] = [
        {"type": "application", "name": "python", "version": version, "purl": f"pkg:generic/python@{version}"}
    ]
    for found in sorted(metadata.distributions(path=[str(packages)]), key=lambda each: str(each.metadata["Name"])):
        name = re.sub(r"[-_.]+", "-", str(found.metadata["Name"])).lower()
        component: dict[str, Any] = {"type": "library", "name": name, "version": found.version}
        fields = found.metadata.json
        terms = str(fields.get("license_expression") or fields.get("license") or "")
        if terms and "\n" not in terms:
            component["licenses"] = [{"license": {"name": terms}}]
        components.append({**component, "purl": f"pkg:pypi/{name}@{found.version}"})
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def _link_merged_folders(target: Path) -> None:
    """Where /lib is a link to usr/lib here, it is one there: libraries are asked for by either name."""
    for name in ("lib", "lib64"):
        here = Path("/", name)
        if here.is_symlink():
            there = here.readlink()
            (target / there).mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(there)


def _inside(target: Path, path: Path) -> Path:
    return target / path.relative_to("/")


def _copy(path: Path, target: Path) -> None:
    """Copy a file to the same path, with the links that lead to it."""
    there = _inside(target, path.parent) / path.name
    there.parent.mkdir(parents=True, exist_ok=True)
    if there.exists() or there.is_symlink():
        return
    if path.is_symlink():
        there.symlink_to(path.readlink())
        _copy(path.parent / path.readlink(), target)
    else:
        shutil.copy2(path, there)


def _shared_libraries(files: Iterable[Path]) -> Iterator[Path]:
    """What the dynamic linker would load for these files, itself included.

    Raises:
        RootError: something is not found on this machine.
    """
    elf = [str(each) for each in files if each.is_file() and each.open("rb").read(4) == b"\x7fELF"]
    said = subprocess.run(["ldd", *elf], capture_output=True, text=True).stdout  # noqa: S603, S607 # nosec B603 B607 # ldd
    if missing := re.findall(r"^\s+(\S+) => not found$", said, re.MULTILINE):
        # a plug-in may name a library of its package, which the package loads first
        shipped = {Path(each).name for each in elf}
        if lost := sorted(set(missing) - shipped):
            raise RootError(f"shared libraries not found: {', '.join(lost)}; install their packages in the build stage")
    paths = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE))
    # glibc loads this one by name when a thread is cancelled
    paths |= {str(each) for each in Path("/lib").glob("*-linux-gnu*/libgcc_s.so.1")}
    return map(Path, sorted(paths))


def _readable(target: Path) -> None:
    """Let the image's user read all of it and change none, whatever the build's umask was."""
    for path in target.rglob("*"):
        if not path.is_symlink() and path != target / "tmp":
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _compile(target: Path, folders: Iterable[Path]) -> None:
    """Byte code for everything: the root is read-only at run time, and each start would compile again."""
    for folder in folders:
        compileall.compile_dir(
            str(_inside(target, folder)),
            stripdir=str(target),
            prependdir="/",
            quiet=2,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )


if __name__ == "__main__":
    try:
        assemble(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    except RootError as error:
        sys.exit(f"rootfs: {error}")
