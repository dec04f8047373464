"""The CustomResourceDefinitions that optional objects of the chart need, from their projects' Go modules.

Nothing of them is compiled. A module is pinned by the hash that go.sum would hold, and checked against it.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane.toolchain import BuildError, cache_directory, find_go, go_environment, locked


@dataclass(frozen=True)
class Source:
    """A module and the files of it that define kinds.

    Attributes:
        module: its path.
        version: as Go writes it.
        sum: its hash, as go.sum would hold it.
        files: paths within it.
    """

    module: str
    version: str
    sum: str
    files: tuple[str, ...]


SOURCES = (
    Source(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
    Source(
        "github.com/cert-manager/cert-manager",
        "v1.18.2",
        "h1:H2P75ycGcTMauV3gvpkDqLdS3RSXonWF2S49QGA1PZE=",
        ("deploy/crds/crd-certificates.yaml", "deploy/crds/crd-issuers.yaml"),
    ),
    Source(
        "github.com/kedacore/keda/v2",
        "v2.17.2",
        "h1:xlrcK5TKABJF9PebK79sgL07s/csGjL3H4m72OkZXxk=",
        ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    ),
)


def definitions() -> list[dict[str, Any]]:
    """Every CustomResourceDefinition of `SOURCES`, fetched first where the cache lacks it.

    Raises:
        BuildError: a module cannot be fetched, or is not the pinned one.
    """
    return [
        _bare(document)
        for source in SOURCES
        for path in _files(source)
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document
    ]


def _bare(definition: dict[str, Any]) -> dict[str, Any]:
    """Without labels, which in cert-manager's files are instructions for its own chart."""
    definition["metadata"].pop("labels", None)
    return definition


def _files(source: Source) -> list[Path]:
    folder = cache_directory() / f"definitions-{source.module.replace('/', '-')}-{source.version}"
    with locked("definitions"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                module = _download(source)
                for file in source.files:
                    (made / Path(file).name).write_bytes((module / file).read_bytes())
                made.rename(folder)
    return [folder / Path(file).name for file in source.files]


def _download(source: Source) -> Path:
    """The module's folder in Go's cache."""
    go = find_go((1, 21))
    environment = go_environment(go) | {"GOFLAGS": "-mod=mod"}
    command = [str(go), "mod", "download", "-json", f"{source.module}@{source.version}"]
    with tempfile.TemporaryDirectory() as outside:  # any go.mod here would be taken for the main module's
        done = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True)
    found = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0 or found.get("Error"):
        raise BuildError(f"{source.module} {source.version} cannot be fetched: {found.get('Error', done.stderr)}")
    if found["Sum"] != source.sum:
        raise BuildError(f"{source.module} {source.version} has the hash {found['Sum']}; {source.sum} is pinned")
    return Path(found["Dir"])
