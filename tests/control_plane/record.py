"""Records what real kube-schedulers send to an extender: `python -m tests.control_plane.record`.

Each version of kube-scheduler, each mode of nodeCacheCapable, each verb: one request, written whole to
tests/extender/protocol/recorded/<version>/<verb>-<names|objects>.json. The cluster has three nodes, so that nothing
needs to be trimmed. The contract tests replay these files; run this again after a new version of Kubernetes is pinned.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.control_plane import access
from tests.control_plane.cluster import Binaries, ControlPlane
from tests.control_plane.recorder import Received, RecordingExtender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.toolchain import REPOSITORY
from tests.control_plane.workload import Binds, create, create_nodes, node, pod, priority_class, wipe

RECORDED = REPOSITORY / "tests" / "protocol" / "recorded"
MODES = {"names": True, "objects": False}
"""File name's part -> nodeCacheCapable."""
VERBS = ("filter", "prioritize", "preempt", "bind")


def record(control_plane: ControlPlane, version: str, mode: str) -> Iterator[Received]:
    """One request of each verb, in the order of VERBS.

    Every pod asks the extender; three low ones fill the nodes, so that the high one has to preempt.
    """
    api = control_plane.api
    wipe(api)
    create(api, [priority_class("low", 10), priority_class("high", 1000)])
    create_nodes(api, _nodes())
    with RecordingExtender(api, score=lambda name: {"node-a": 10, "node-b": 5}.get(name, 0)) as extender:
        configuration = shipped_configuration(
            extender.url, nodeCacheCapable=MODES[mode], filterVerb="filter", bindVerb="bind", ignorable=False
        )
        with kube_scheduler(control_plane, configuration, version), Binds(api) as binds:
            create(api, [_web_pod()])
            binds.wait(["web-0"])
            low = [pod(f"low-{zone}", cpu="3", scheduler=PROFILE, priority_class="low") for zone in "abc"]
            create(api, low)
            binds.wait([each["metadata"]["name"] for each in low])
            create(api, [pod("high", cpu="3", scheduler=PROFILE, priority_class="high")])
            binds.wait(["high"])
    wipe(api)
    for verb in VERBS:
        yield extender.calls(verb)[0]


def _nodes() -> list[access.Manifest]:
    """Three nodes that differ as a cloud's do."""
    machines = {"a": ("m5.xlarge", "16Gi"), "b": ("c5.xlarge", "8Gi"), "c": ("r5.xlarge", "32Gi")}
    return [
        node(
            f"node-{zone}",
            cpu="4",
            memory=memory,
            labels={
                "topology.kubernetes.io/zone": f"eu-central-1{zone}",
                "node.kubernetes.io/instance-type": machine,
            },
        )
        for zone, (machine, memory) in machines.items()
    ]


def _web_pod() -> access.Manifest:
    """A pod with what real ones have: two containers, an init container, limits, quantities in several spellings."""
    web = pod("web-0", scheduler=PROFILE, labels={"app": "web"}, annotations={"example.com/owner": "shop"})
    web["spec"] |= {
        "initContainers": [
            {"name": "migrate", "image": "fake", "resources": {"requests": {"cpu": "0.2", "memory": "64M"}}}
        ],
        "containers": [
            {
                "name": "web",
                "image": "fake",
                "ports": [{"containerPort": 8080}],
                "env": [{"name": "MODE", "value": "production"}],
                "resources": {
                    "requests": {"cpu": "250m", "memory": "128Mi"},
                    "limits": {"cpu": "1", "memory": "256Mi"},
                },
            },
            {"name": "proxy", "image": "fake", "resources": {"requests": {"cpu": "0.1", "memory": "1e8"}}},
        ],
    }
    return web


def write(received: Received, version: str, mode: str, directory: Path = RECORDED) -> Path:
    """Keep one request as JSON; `size` is the body's as it came, before this file's indentation."""
    path = directory / version / f"{received.verb}-{mode}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "kubeScheduler": version,
        "nodeCacheCapable": MODES[mode],
        "method": "POST",
        "path": f"/{received.verb}",
        "headers": received.headers,
        "size": received.size,
        "body": received.body,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Record everything, or the versions named."""
    binaries = Binaries.build()
    parser = argparse.ArgumentParser(prog="python -m tests.control_plane.record", description=__doc__)
    parser.add_argument("--version", action="append", choices=sorted(binaries.schedulers), help="all unless given")
    versions = parser.parse_args(arguments).version or sorted(binaries.schedulers)
    with tempfile.TemporaryDirectory() as scratch, ControlPlane(Path(scratch), binaries).running() as control_plane:
        for version in versions:
            for mode in MODES:
                for received in record(control_plane, version, mode):
                    path = write(received, version, mode)
                    print(f"{path.relative_to(REPOSITORY)} {received.size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
