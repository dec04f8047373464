"""Makes kind's node image where none can be pulled: Debian, the binaries built here, and kind's own units and scripts.

What kind's published image has and this one lacks: crictl, NetworkPolicies (nothing here enforces them), volumes,
hostPorts. Everything else is the same software: containerd, kubelet, kubeadm, CoreDNS, kube-proxy with nftables.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.control_plane.binaries import ETCD, KUBE, build
from tests.control_plane.toolchain import BuildError
from tests.kind.node_image import archive, binaries, debian

FILES = Path(__file__).resolve().parent / "files"
NAME = f"maddpg-scheduler/kind-node:v{KUBE.version}"
NETWORK_IMAGE = "maddpg-scheduler/node-network:test"
PACKAGES = (
    *("systemd", "dbus", "iproute2", "iptables", "nftables", "conntrack", "ethtool", "kmod", "mount", "util-linux"),
    *("procps", "jq", "curl", "ca-certificates", "runc", "libseccomp2", "socat", "e2fsprogs"),
)
ENTRYPOINT = ["/usr/local/bin/entrypoint", "/sbin/init"]
UNWANTED = (
    # what kind's own image takes out of systemd: a container has no consoles, disks or devices to set up
    *("lib/systemd/system/multi-user.target.wants/*", "etc/systemd/system/*.wants/*"),
    *("lib/systemd/system/local-fs.target.wants/*", "lib/systemd/system/basic.target.wants/*"),
    *("lib/systemd/system/sockets.target.wants/*udev*", "lib/systemd/system/sockets.target.wants/*initctl*"),
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
)


def make(engine_environment: dict[str, str]) -> str:
    """Make the node image in the engine that these variables lead to, and return its name.

    Raises:
        BuildError: a part of it could not be built.
    """
    with tempfile.TemporaryDirectory(prefix="kind-node-") as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        debian.unpack(PACKAGES, root)
        _install(root)
        _configure(root)
        _put_images(root)
        _bring_in(root, engine_environment)
    return NAME


def _install(root: Path) -> None:
    """The programs, and kind's own files."""
    kind, node, runtime = (build(each) for each in (binaries.KIND, binaries.KUBE_NODE, binaries.CONTAINERD))
    for folder in ("kind/bin", "kind/images/control-plane", "kind/manifests", "opt/cni/bin", "etc/cni/net.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    shutil.copytree(kind / "base" / "etc", root / "etc", dirs_exist_ok=True)
    for script in (kind / "base" / "kind" / "bin").iterdir():
        _program(script, root / "kind/bin" / script.name)
    _program(kind / "base/usr/local/bin/entrypoint", root / "usr/local/bin/entrypoint")
    for name in ("kubelet", "kubeadm", "kubectl"):
        _program(node / name, root / "usr/bin" / name)
    for name in binaries.CONTAINERD.packages:
        _program(runtime / name, root / "usr/local/bin" / name)
    for name in binaries.CNI.packages:
        _program(build(binaries.CNI) / name, root / "opt/cni/bin" / name)
    _program(FILES / "import-images", root / "kind/bin/import-images")
    for unit in ("containerd", "kubelet"):
        place = root / f"etc/systemd/system/{unit}.service.d/20-images.conf"
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(FILES / f"{unit}-images.conf", place)


def _configure(root: Path) -> None:
    """What the steps of kind's own Dockerfile leave behind."""
    for pattern in UNWANTED:
        for path in root.glob(pattern):
            path.unlink()
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    for unit in ("containerd", "kubelet", "undo-mount-hacks"):
        (wanted / f"{unit}.service").symlink_to(f"/etc/systemd/system/{unit}.service")
    (root / "etc/systemd/system/systemd-binfmt.service").symlink_to("/dev/null")
    with (root / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")
    (root / "sbin/init").unlink(missing_ok=True)
    (root / "sbin/init").symlink_to("/lib/systemd/systemd")
    (root / "kind/version").write_text(f"v{KUBE.version}")
    configuration = root / "etc/containerd/config.toml"
    text = configuration.read_text()
    # the machine may lack the capability to lower a score
    text = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    configuration.write_text(text)
    specification = json.loads(debian.run([str(root / "usr/local/bin/ctr"), "oci", "spec"]))
    specification.setdefault("hooks", {})["createContainer"] = [{"path": "/kind/bin/mount-product-files.sh"}]
    del specification["process"]["rlimits"]
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(specification))
    network = (FILES / "network.yaml").read_text().replace("NETWORK_IMAGE", f"docker.io/{NETWORK_IMAGE}")
    (root / "kind/manifests/default-cni.yaml").write_text(network)
    shutil.copyfile(FILES / "storage.yaml", root / "kind/manifests/default-storage.yaml")


def _put_images(root: Path) -> None:
    """The images that kubeadm starts, under the names by which it asks for them."""
    kube, node = build(KUBE), build(binaries.KUBE_NODE)
    listed = debian.run([str(node / "kubeadm"), "config", "images", "list", f"--kubernetes-version=v{KUBE.version}"])
    names = {name.rpartition(":")[0].rpartition("/")[2]: name for name in listed.split()}
    sandbox = re.search(r'sandbox_image = "(\S+)"', (root / "etc/containerd/config.toml").read_text())
    if sandbox is None:
        raise BuildError("containerd's configuration names no sandbox image")
    common, control_plane = root / "kind/images", root / "kind/images/control-plane"
    filter_tool = _with_libraries(root, "/usr/sbin/nft")
    pauses = sorted({names["pause"], sandbox[1]})
    archive.write(common / "pause.tar", pauses, {"/pause": build(binaries.PAUSE) / "pause"}, ["/pause"])
    coredns = build(binaries.COREDNS) / "coredns"
    archive.write(common / "coredns.tar", [names["coredns"]], {"/coredns": coredns}, ["/coredns"])
    network = build(binaries.NETWORK) / "node-network"
    archive.write(
        common / "network.tar",
        [f"docker.io/{NETWORK_IMAGE}"],
        {"/node-network": network, **filter_tool},
        ["/node-network"],
    )
    for folder, name, program, more in (
        (common, "kube-proxy", node / "kube-proxy", filter_tool),
        (common, "kube-scheduler", kube / "kube-scheduler", {}),  # the chart's runs on workers
        (control_plane, "kube-apiserver", kube / "kube-apiserver", {}),
        (control_plane, "kube-controller-manager", kube / "kube-controller-manager", {}),
        (control_plane, "etcd", build(ETCD) / "etcd", {}),
    ):
        # no entrypoint: whoever runs them names the program, which is found on PATH
        archive.write(folder / f"{name}.tar", [names[name]], {f"/usr/local/bin/{name}": program, **more})


def _with_libraries(root: Path, program: str) -> dict[str, Path]:
    """A program of that Debian, and the shared libraries that it loads."""
    said = debian.run(["chroot", str(root), "ldd", program])
    paths = [program, *sorted(set(re.findall(r"/\S+\.so\S*", said)))]
    real = debian.run(["chroot", str(root), "readlink", "-f", *paths]).split()
    return {path: root / there.lstrip("/") for path, there in zip(paths, real, strict=True)}


def _bring_in(root: Path, environment: dict[str, str]) -> None:
    """Hand the file system to the engine."""
    command = [
        "docker",
        "import",
        "-c",
        f"ENTRYPOINT {json.dumps(ENTRYPOINT)}",
        "-c",
        "ENV container=docker",
        "-",
        NAME,
    ]
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packed:
        done = subprocess.run(
            command, stdin=packed.stdout, env=os.environ | environment, capture_output=True, text=True
        )
    if done.returncode != 0 or packed.returncode != 0:
        raise BuildError(f"docker import failed: {done.stderr}")


def _program(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
