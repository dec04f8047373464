"""What the kind tests are made of, without an engine."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.control_plane.binaries import Module
from tests.control_plane.toolchain import parse_version
from tests.kind import cluster
from tests.kind.node_image import archive, binaries
from tests.kind.runc_within_bounds import lacking, rewrite, within_bounds


@pytest.mark.parametrize(
    ("bounds", "lacks"),
    [pytest.param("000001ffffffffff", False, id="all"), pytest.param("000001fffeffffff", True, id="all but that one")],
)
def test_bounding_set_says_whether_the_capability_can_be_had(bounds: str, lacks: bool) -> None:
    assert lacking(f"CapPrm:\t{bounds}\nCapBnd:\t{bounds}\n") == lacks


def test_process_loses_what_the_capability_is_for_and_nothing_else() -> None:
    capabilities = {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]}
    given = {"args": ["sh"], "capabilities": capabilities, "oomScoreAdj": -999, "rlimits": [{"type": "RLIMIT_NOFILE"}]}
    kept = within_bounds(given)
    assert kept == {"args": ["sh"], "capabilities": {"bounding": ["CAP_KILL"], "effective": []}}
    assert within_bounds({"oomScoreAdj": 100}) == {"oomScoreAdj": 100}


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_specification_that_runc_is_pointed_to_is_changed(tmp_path: Path, verb: str) -> None:
    process = {"args": ["sh"], "oomScoreAdj": -1}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"process": process, "root": {}} if verb == "create" else process))
    rewrite(["--root", "/run", verb, *(["--bundle", str(tmp_path)] if verb == "create" else ["-p", str(file)]), "id"])
    changed = json.loads(file.read_text())
    assert (changed["process"] if verb == "create" else changed) == {"args": ["sh"]}


def test_image_is_one_layer_with_its_programs_and_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    for name in ("one.tar", "two.tar"):
        archive.write(tmp_path / name, ["a/b:1", "c/d:2"], {"/usr/bin/program": program}, ["/usr/bin/program"])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as image:
        (manifest,) = json.load(image.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert manifest["RepoTags"] == ["a/b:1", "c/d:2"]
        (layer,) = manifest["Layers"]
        assert json.load(image.extractfile(manifest["Config"]))["config"]["Entrypoint"] == ["/usr/bin/program"]  # type: ignore[arg-type]
        with tarfile.open(fileobj=image.extractfile(layer)) as files:
            assert files.getmember("usr/bin/program").mode == 0o755
            assert files.getmember("tmp").mode == 0o1777


def test_users_get_the_shape_that_is_tested() -> None:
    published, made_here = cluster.configuration(None), cluster.configuration("some/node:v1")
    assert [each["role"] for each in published["nodes"]] == ["control-plane", "worker", "worker"]
    assert {each.get("image") for each in published["nodes"]} == {None}
    assert {each["image"] for each in made_here["nodes"]} == {"some/node:v1"}


@pytest.mark.parametrize("pinned", binaries.ALL, ids=lambda pinned: pinned.name)
def test_every_module_pins_its_version_and_sums(pinned: Module) -> None:
    assert pinned.pinned is None or pinned.version.count(".") == 2
    assert pinned.pinned is None or (pinned.directory / "go.sum").stat().st_size > 0
    assert pinned.go <= parse_version("1.26.6"), "requirements/go.txt pins this Go: raise it too"
