"""A kind cluster for the session: asked for by `make test-kind`, and made of what is given, or here from packages.

KIND_NODE_IMAGE names a node image that the engine has or can pull. KIND_KUBECONFIG names the kubeconfig of a cluster
with at least two workers, in which KIND_EXTENDER_IMAGE (repository:tag) can be started; nothing is built then.
"""

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from tests.control_plane.processes import StartError
from tests.control_plane.toolchain import BuildError
from tests.kind import cluster as clusters
from tests.kind import engine as engines
from tests.kind import extender_image as images
from tests.kind.cluster import Cluster, ClusterError
from tests.kind.engine import Engine
from tests.kind.extender_image import ExtenderImage
from tests.kind.machine import CutOff, cut_off
from tests.kind.node_image import node


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs an engine or a cluster to `make test-kind`: not skipped for want of it, but not asked for."""
    large = [
        item
        for item in items
        if Path(__file__).parent in item.path.parents and {"engine", "cluster"} & set(getattr(item, "fixturenames", ()))
    ]
    if large and not os.environ.get("KIND"):
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if item not in large]
    for item in large:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(func_only=True))  # whichever comes first pays for what is built


def _shown(pytestconfig: pytest.Config) -> AbstractContextManager[object]:
    """Where output is not captured: what takes minutes shows that it goes on."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()


def _unavailable(error: Exception) -> NoReturn:
    """Skip, saying why; where the run is to prove everything, nothing is left out."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        raise error
    pytest.skip(f"cannot run here: {error}")


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    """A Docker Engine. A SIGTERM from now on ends the session in order, so that no container outlives it."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", 128 + signal.SIGTERM))
    with ExitStack() as kept:
        try:
            with _shown(pytestconfig):
                found = kept.enter_context(engines.engine())
        except (BuildError, StartError) as error:
            _unavailable(error)
        yield found


@pytest.fixture(scope="session")
def extender_image(engine: Engine, pytestconfig: pytest.Config) -> ExtenderImage:
    """The image, built from this repository."""
    with _shown(pytestconfig):
        return images.build(engine)


@pytest.fixture(scope="session")
def node_image(engine: Engine, pytestconfig: pytest.Config) -> str | None:
    """What the nodes are made of; None for what kind publishes, where the user's engine can pull it."""
    if given := os.environ.get("KIND_NODE_IMAGE"):
        return given
    if not engine.own:
        return None
    with _shown(pytestconfig):
        return node.make(engine.environment)


@pytest.fixture(scope="session")
def cut(engine: Engine, extender_image: ExtenderImage, node_image: str | None) -> Iterator[CutOff]:
    """No container reaches anything beyond this machine, from when everything is built until the cluster is gone.

    An engine of the user's is not cut off: other containers of theirs may run in it.
    """
    if not engine.own:
        yield CutOff([])
        return
    with cut_off() as made:
        yield made


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """One control plane and two workers, with the extender's image on the workers."""
    with ExitStack() as kept:
        if given := os.environ.get("KIND_KUBECONFIG"):
            home = Path(kept.enter_context(tempfile.TemporaryDirectory()))
            yield Cluster(Path(given).resolve(), home)
            return
        engine, image = request.getfixturevalue("engine"), request.getfixturevalue("extender_image")
        request.getfixturevalue("cut")
        with _shown(pytestconfig):
            made = kept.enter_context(clusters.created(engine, request.getfixturevalue("node_image")))
            clusters.load(made, image.name)
        yield made


@pytest.fixture(scope="session")
def image_name(request: pytest.FixtureRequest) -> str:
    """repository:tag of the extender's image in the cluster."""
    if os.environ.get("KIND_KUBECONFIG"):
        return os.environ.get("KIND_EXTENDER_IMAGE", images.NAME)
    return str(request.getfixturevalue("extender_image").name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed on the cluster shows its pods and events."""
    report = yield
    found = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(found, Cluster):
        for words in (("get", "pods", "--all-namespaces", "--output=wide"), ("events", "--all-namespaces")):
            try:
                report.sections.append((f"kubectl {' '.join(words)}", found.kubectl(*words)[-6000:]))
            except ClusterError as error:
                report.sections.append((f"kubectl {' '.join(words)}", str(error)))
    return report
