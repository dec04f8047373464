"""Writes a container image of a few static programs, as `docker save` writes one, without an engine."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

CREATED = "2026-01-01T00:00:00Z"
"""The same for every image, so that equal content gives an equal identity."""
USERS = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n"


def write(path: Path, names: Sequence[str], files: Mapping[str, Path], entrypoint: Sequence[str] = ()) -> None:
    """Write an image of one layer to `path`.

    Args:
        path: the archive.
        names: what the image is called, as repository:tag.
        files: place in the image -> the file that goes there, executable.
        entrypoint: what it runs; none where whoever starts it says so.
    """
    layer = _layer(files)
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": list(entrypoint) or None,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        "history": [{"created": CREATED}],
    }
    described = json.dumps(configuration).encode()
    parts = {f"{_digest(described)}.json": described, f"{_digest(layer)}/layer.tar": layer}
    about, content = parts
    parts["manifest.json"] = json.dumps([{"Config": about, "RepoTags": list(names), "Layers": [content]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in parts.items():
            _add(archive, name, data, 0o644)


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders = {parent for name in files for parent in PurePosixPath(name.lstrip("/")).parents}
        for folder in sorted(str(each) for each in folders | {PurePosixPath("etc"), PurePosixPath("tmp")}):
            if folder != ".":
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                archive.addfile(entry)
        for name, path in files.items():
            _add(archive, name.lstrip("/"), path.read_bytes(), 0o755)
        _add(archive, "etc/passwd", USERS.encode(), 0o644)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
