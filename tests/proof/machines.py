"""The cluster of the proof: one control plane and four workers, of which one is slow and one is throttled.

All are containers of one machine. What a worker can give its pods is a quota of CPU time on the cgroup above them, so
nodes do not share cores unless the machine has fewer than the quotas together. A *throttled* worker has a smaller quota
than it says: its pods stand still for part of the time. A *slow* worker is emulated: the workload does more work for
the same task there, by a factor from the node's name. Nothing of this stands in the API.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import yaml

from tests.kind import cluster as clusters
from tests.kind import engine as engines
from tests.kind import extender_image as images
from tests.kind.cluster import Cluster, wait_until
from tests.kind.engine import Engine
from tests.kind.machine import cut_off
from tests.kind.node_image import node

NAME: Final = "maddpg-proof"
CORES: Final = 0.3
"""What each worker says it can allocate, and what one that is not throttled has for pods."""
MEMORY_GIB: Final = 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What a worker is in truth."""

    name: str
    factor: float = 1.0
    """Work for the same task, relative to a fast node; its speed is the inverse."""
    cores: float = CORES
    """Quota of its pods."""


KINDS: Final = (Kind("fast"), Kind("slow", factor=2.5), Kind("throttled", cores=0.12), Kind("fast"))
"""The workers in the order of their names."""


@contextmanager
def cluster() -> Iterator[tuple[Cluster, str]]:
    """The cluster with the extender's image on all nodes, and that image's name, until the end of the block.

    Raises:
        BuildError: no engine, no image or no cluster can be had; the message says why.
        StartError: the engine did not come up.
    """
    with ExitStack() as kept:
        engine = kept.enter_context(engines.engine())
        image = images.build(engine).name
        made_of = os.environ.get("KIND_NODE_IMAGE") or (node.make(engine.environment) if engine.own else None)
        if engine.own:
            kept.enter_context(cut_off())
        given = yaml.safe_load(clusters.CONFIGURATION.read_text())
        given["nodes"] = [{"role": "control-plane"}, *({"role": "worker"} for _ in KINDS)]
        found = kept.enter_context(clusters.created(engine, made_of, NAME, given))
        clusters.load(found, image, found.nodes)
        for name, kind in kinds(found).items():
            _limit(engine, name, kind.cores)
        wait_until(
            lambda: _allocatable(found) == {f"{CORES * 1000:.0f}m"},
            f"workers say that they can allocate {CORES} cores",
            120.0,
        )
        found.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=120s")
        yield found, image


def kinds(cluster: Cluster) -> dict[str, Kind]:
    """Worker -> what it is."""
    return dict(zip(sorted(cluster.workers), KINDS, strict=True))


def _limit(engine: Engine, name: str, cores: float) -> None:
    """Let a node say that it can allocate `CORES`, and give its pods `cores`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") - int(MEMORY_GIB * 2**30)
    reserved = {
        "cpu": f"{(os.cpu_count() or 1) * 1000 - round(CORES * 1000)}m",
        "memory": f"{memory // 1024}Ki",
    }
    file = "/var/lib/kubelet/config.yaml"
    configuration = yaml.safe_load(engine.docker("exec", name, "cat", file))
    configuration |= {"systemReserved": reserved, "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"}}
    engine.docker("exec", "-i", name, "tee", file, stdin=yaml.safe_dump(configuration).encode())
    engine.docker("exec", name, "systemctl", "restart", "kubelet")
    quota = f"CPUQuota={100 * cores:g}%"
    engine.docker("exec", name, "systemctl", "set-property", "--runtime", "kubelet-kubepods.slice", quota)


def _allocatable(cluster: Cluster) -> set[str]:
    workers = cluster.workers
    return {
        each["status"]["allocatable"]["cpu"]
        for each in cluster.get("nodes")["items"]
        if each["metadata"]["name"] in workers
    }
