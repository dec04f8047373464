"""The control plane as a fixture: one for the session, empty for each test."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from tests.bench.report import Result, publish
from tests.control_plane.binaries import DONOTHING
from tests.control_plane.cluster import Binaries, ControlPlane
from tests.control_plane.processes import StartError
from tests.control_plane.toolchain import REPOSITORY, BuildError, find_go
from tests.control_plane.workload import wipe

_running: list[ControlPlane] = []
_figures: list[Result] = []


def _unavailable(error: Exception) -> NoReturn:
    """Skip, saying why; in CI a control plane that cannot be had is a failure."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        raise error
    pytest.skip(f"no control plane here: {error}")


@pytest.fixture(scope="session")
def go() -> Path:
    """The Go that builds binaries here."""
    try:
        return find_go(DONOTHING.go)
    except BuildError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A real control plane, built first where the cache lacks it; it may hold what an earlier test left."""
    directory = tmp_path_factory.mktemp("control-plane")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    try:
        # a cold build takes minutes: show that it goes on
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            built = Binaries.build()
        plane = ControlPlane(directory, built)
        running = plane.running()
        running.__enter__()
    except (BuildError, StartError) as error:
        _unavailable(error)
    _running.append(plane)
    try:
        yield plane
    finally:
        _running.remove(plane)
        running.__exit__(None, None, None)


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The session's control plane without nodes, pods or priority classes of tests, before and after."""
    wipe(control_plane.api)
    yield control_plane
    wipe(control_plane.api)


@pytest.fixture
def record() -> Callable[[Result], None]:
    """Keep a figure that a test has measured: for build/control-plane.json and the table at the end of the run."""
    return _figures.append


def pytest_terminal_summary() -> None:
    """Show what was measured on the real control plane."""
    if _figures:
        publish("real control plane", _figures, REPOSITORY / "build" / "control-plane.json")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts the control plane, so that `-m "not control_plane"` leaves it out.

    The time limit of such a test is for the test: whichever comes first would pay for a cold build otherwise. Long
    faults are left to `make faults`: not skipped for want of anything, but not asked for.
    """
    left = [] if os.environ.get("FAULTS") else [item for item in items if item.get_closest_marker("long") is not None]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    for item in items:
        if Path(__file__).parent in item.path.parents and "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.control_plane)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows the end of every process's log."""
    report = yield
    if report.failed and "control_plane" in getattr(item, "fixturenames", ()):
        for plane in _running:
            for process in plane.processes:
                report.sections.append((f"{process.name} {process.log_file}", process.tail()))
    return report
