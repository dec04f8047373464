"""What a kind node is made of, built and kept like the test control plane's binaries, from pinned Go modules.

`python -m tests.kind.node_image.binaries` builds all of it (10 to 20 minutes cold on two cores, nothing when cached).
"""

import sys
from pathlib import Path

from tests.control_plane.binaries import ETCD, KUBE, Module, kubernetes_version, main

HERE = Path(__file__).resolve().parent
MODULES = HERE / "modules"

KIND = Module(
    "kind",
    MODULES / "kind",
    {"kind": "sigs.k8s.io/kind"},
    "sigs.k8s.io/kind",
    # the units and scripts of the node images that kind publishes
    folders={"base": "images/base/files"},
)
KUBE_NODE = Module(
    "kube-node",
    MODULES / "kube-node",
    {binary: f"k8s.io/kubernetes/cmd/{binary}" for binary in ("kubeadm", "kubectl", "kubelet", "kube-proxy")},
    "k8s.io/kubernetes",
    kubernetes_version,
)
CONTAINERD = Module(
    "containerd",
    MODULES / "containerd",
    {
        binary: f"github.com/containerd/containerd/v2/cmd/{binary}"
        for binary in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    "github.com/containerd/containerd/v2",
    lambda version: {"github.com/containerd/containerd/v2/version.Version": f"v{version}"},
    tags=("no_btrfs", "no_devmapper", "no_zfs"),
)
CNI = Module(
    "cni",
    MODULES / "cni",
    {
        plugin.rpartition("/")[2]: f"github.com/containernetworking/plugins/plugins/{plugin}"
        for plugin in ("main/bridge", "main/loopback", "ipam/host-local")
    },
    "github.com/containernetworking/plugins",
)
NETWORK = Module("network", HERE / "network", {"node-network": "."}, "github.com/flannel-io/flannel")
COREDNS = Module(
    "coredns", MODULES / "coredns", {"coredns": "github.com/coredns/coredns"}, "github.com/coredns/coredns"
)
PAUSE = Module("pause", HERE / "pause", {"pause": "."})

ALL = (KIND, PAUSE, CNI, KUBE_NODE, CONTAINERD, NETWORK, COREDNS)
IN_THE_NODE = (*ALL, ETCD, KUBE)
"""The control plane of the node is the one that the other tests run without containers."""

if __name__ == "__main__":
    sys.exit(main(modules=IN_THE_NODE))
