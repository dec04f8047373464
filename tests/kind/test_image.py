"""The image, really built and run by a Docker Engine: as the chart runs it, and as it would be pulled."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART
from tests.control_plane.cluster import Binaries, ControlPlane
from tests.control_plane.processes import answers_ok, free_ports
from tests.kind.engine import Engine
from tests.kind.extender_image import ExtenderImage

LIMIT_MIB, COMPRESSED_LIMIT_MIB = 450, 200
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
PROBE = (CHART / "files" / "probe.py").read_text()
"""What `helm test` runs."""


def test_image_is_small(extender_image: ExtenderImage, capsys: pytest.CaptureFixture[str]) -> None:
    unpacked, compressed = extender_image.unpacked_bytes / 2**20, extender_image.compressed_bytes / 2**20
    with capsys.disabled():
        print(f"\nimage: {unpacked:.0f} MiB unpacked, {compressed:.0f} MiB compressed")
    assert unpacked < LIMIT_MIB
    assert compressed < COMPRESSED_LIMIT_MIB


def test_image_says_what_it_holds(extender_image: ExtenderImage, capsys: pytest.CaptureFixture[str]) -> None:
    components = extender_image.bill_of_materials["components"]
    with capsys.disabled():
        print("\nimage, bill of materials:")
        print("\n".join(f"{each['purl']} {json.dumps(each.get('licenses', []))}" for each in components))
    assert {"python", "onnxruntime", "maddpg-scheduler"} <= {each["name"] for each in components}
    labels = extender_image.described["Config"]["Labels"]
    assert (
        labels["org.opencontainers.image.version"] == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    )


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server on loopback for the container to follow."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), Binaries.build()).running() as plane:
        yield plane


def test_container_without_rights_serves_and_passes_the_probes_of_helm_test(
    engine: Engine, extender_image: ExtenderImage, control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubeconfig = control_plane.extender_kubeconfig(tmp_path / "kubeconfig")
    kubeconfig.chmod(0o644)
    verbs, operations = free_ports(2)
    mount = ["--network=host", f"--volume={kubeconfig}:/etc/kubeconfig:ro"]
    hosts = {"host": "127.0.0.1", "operations-host": "127.0.0.1"}
    settings = {**hosts, "port": verbs, "operations-port": operations, "kubeconfig": "/etc/kubeconfig"}
    environment = f"--env=MADDPG_OPERATIONS_PORT={operations}"  # for the image's own health check
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    container = engine.docker(
        "run", "--detach", *CONFINED, *mount, environment, extender_image.name, "serve", *flags
    ).strip()
    try:
        ready = answers_ok(f"http://127.0.0.1:{operations}/readyz")
        deadline = time.monotonic() + 60.0
        while not ready():
            assert time.monotonic() < deadline, engine.docker("logs", container)
            time.sleep(0.2)
        inside = ["exec", container, "/usr/bin/python3", "-c"]
        urls = [f"http://127.0.0.1:{operations}", f"http://127.0.0.1:{verbs}"]
        assert engine.docker(*inside, PROBE, *urls).strip() == "ready, and rates nodes"
        assert engine.docker(*inside, "import os; print(os.getuid(), os.getgid())").strip() == "65532 65532"
        writable = "import os; print([d for d, _, _ in os.walk('/') if not d.startswith(('/proc', '/dev', '/sys')) and os.access(d, os.W_OK)])"  # fmt: skip  # noqa: E501
        assert engine.docker(*inside, writable).strip() == "['/tmp']"
        while (health := _health(engine, container)) == "starting":
            time.sleep(0.5)
        assert health == "healthy"
        before = time.monotonic()
        engine.docker("stop", "--time=30", container)
        assert time.monotonic() - before < 25.0, "it ends when told to, not when killed"
        assert json.loads(engine.docker("inspect", container))[0]["State"]["ExitCode"] == 0
    finally:
        engine.docker("rm", "--force", container)


def _health(engine: Engine, container: str) -> str:
    return str(json.loads(engine.docker("inspect", container))[0]["State"]["Health"]["Status"])


def test_image_has_no_shell(engine: Engine, extender_image: ExtenderImage) -> None:
    for shell in ("/bin/sh", "/bin/bash", "/usr/bin/env"):
        with pytest.raises(Exception, match="no such file or directory"):
            engine.docker("run", "--rm", "--entrypoint", shell, extender_image.name)
