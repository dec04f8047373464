"""helm, and a control plane of the chart's own: its tests install CRDs and take rights away."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from tests.chart.audit import AuditedControlPlane
from tests.chart.helm import helm_binary
from tests.control_plane.cluster import Binaries
from tests.control_plane.processes import StartError
from tests.control_plane.scheduler import kube_scheduler, plain_configuration
from tests.control_plane.toolchain import BuildError
from tests.control_plane.workload import create_nodes, node, wipe


def _shown(pytestconfig: pytest.Config) -> AbstractContextManager[object]:
    """Where output is not captured: a cold build takes minutes, and shows that it goes on."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()


def skip_or_raise(error: Exception) -> NoReturn:
    """Where the run is to prove everything, nothing is left out."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        raise error
    pytest.skip(f"cannot run here: {error}")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Where helm keeps its caches; helm is built first where there is none."""
    try:
        with _shown(pytestconfig):
            helm_binary()
    except BuildError as error:
        skip_or_raise(error)
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="package")
def control_plane(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[AuditedControlPlane]:
    """A real control plane that writes down every request."""
    try:
        with _shown(pytestconfig):
            built = Binaries.build()
        plane = AuditedControlPlane(tmp_path_factory.mktemp("chart-control-plane"), built)
        running = plane.running()
        running.__enter__()
    except (BuildError, StartError) as error:
        skip_or_raise(error)
    try:
        yield plane
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="module")
def nodes(control_plane: AuditedControlPlane) -> Iterator[None]:
    """Three empty nodes, and the cluster's own scheduler."""
    wipe(control_plane.api)
    create_nodes(control_plane.api, [node(f"node-{number}") for number in range(3)])
    with kube_scheduler(control_plane, plain_configuration()):
        yield
    wipe(control_plane.api)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts the control plane, so that `-m "not control_plane"` leaves it out.

    The time limit of a test is for the test: whichever comes first would pay for a cold build otherwise.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if "control_plane" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.control_plane)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(func_only=True))
