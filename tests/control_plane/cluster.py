"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, KWOK, metrics-server.

RBAC is on, every server speaks TLS from an authority made on the fly, every port is a free one. KWOK plays the
kubelets of nodes that carry FAKE_NODE and serves their metrics, which metrics-server scrapes: a pod's use is what its
annotations kwok.x-k8s.io/usage-cpu and kwok.x-k8s.io/usage-memory say. kube-schedulers are started by each test
(scheduler.py).
"""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kubernetes import client

from tests.control_plane import access, binaries
from tests.control_plane.certificates import Authority, KeyPair, signing_key
from tests.control_plane.processes import Process, StartError, answers_ok, free_ports
from tests.control_plane.toolchain import REPOSITORY

FAKE_NODE = ("kwok.x-k8s.io/node", "fake")
RBAC_MANIFESTS = REPOSITORY / "deploy" / "rbac.yaml"
EXTENDER_NAMESPACE = "maddpg-scheduler"
EXTENDER_SERVICE_ACCOUNT = "maddpg-extender"
KUBELET_METRICS = Path(__file__).resolve().parent / "kwok-metrics.yaml"
METRIC_RESOLUTION_S = 10  # the least that metrics-server accepts

_TOKEN_USERS = {
    # name here -> user and groups; RBAC decides what the rest may do, KWOK and metrics-server are not under test
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kwok": ("kwok", "system:masters"),
    "metrics-server": ("metrics-server", "system:masters"),
}


@dataclass(frozen=True)
class Binaries:
    """Folders with what the control plane runs."""

    etcd: Path
    kube: Path
    kwok: Path
    metrics_server: Path
    schedulers: dict[str, Path]
    """Version -> a kube-scheduler."""

    @classmethod
    def build(cls) -> "Binaries":
        """Build what the cache lacks.

        Raises:
            BuildError: the compiler failed, or there is none.
        """
        kube = binaries.build(binaries.KUBE)
        schedulers = {
            module.version: binaries.build(module) / "kube-scheduler"
            for module in (*binaries.OLDER_SCHEDULERS, binaries.KUBE)
        }
        etcd, kwok, metrics = map(binaries.build, (binaries.ETCD, binaries.KWOK, binaries.METRICS_SERVER))
        return cls(etcd, kube, kwok, metrics, schedulers)


class ControlPlane:
    """The processes, in the order they start; they stop in the opposite one, the API server before etcd."""

    def __init__(self, directory: Path, binaries: Binaries, lease_s: int = 40) -> None:
        """Write certificates, tokens and kubeconfigs into `directory`; `running` starts the processes there.

        Args:
            directory: what the processes keep and log.
            binaries: what is run.
            lease_s: validity of a node's lease, which KWOK renews four times as often.
        """
        self.directory = directory
        self.binaries = binaries
        self._lease_s = lease_s
        directory.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(directory, "ca")
        self._front_proxy = Authority(directory, "front-proxy-ca")
        api, self._etcd_client, etcd_peer, controllers, self._kwok_port, self._metrics_port, self.forwarded = (
            free_ports(7)
        )
        """`forwarded` is the port of 127.0.0.1 to which KWOK forwards every port of every pod."""
        self.endpoint = access.Endpoint(f"https://127.0.0.1:{api}", self._authority.certificate)
        self.server_certificate = self._authority.issue(
            "server",
            *("127.0.0.1", "localhost", "10.96.0.1", "kubernetes.default.svc", "metrics-server.kube-system.svc"),
        )
        self._kubeconfigs = self._write_tokens()
        account_key = signing_key(directory, "service-account")
        self.etcd = self._etcd(etcd_peer)
        self.api_server = self._api_server(api, account_key)
        self.controller_manager = self._controller_manager(controllers, account_key)
        self.kwok = self._kwok()
        self.metrics_server = self._metrics_server()
        self.others: list[Process] = []
        """kube-schedulers and extenders that tests have started, for their logs; they end before the rest."""

    @property
    def processes(self) -> list[Process]:
        """All of them, in the order they started."""
        core = [self.etcd, self.api_server, self.controller_manager, self.kwok, self.metrics_server]
        return [*core, *self.others]

    @cached_property
    def api(self) -> client.ApiClient:
        """A client that may do everything."""
        return access.connect(self.kubeconfig("admin"))

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of admin, controller-manager, scheduler, kwok or metrics-server."""
        return self._kubeconfigs[user]

    @contextmanager
    def running(self) -> Iterator["ControlPlane"]:
        """Start everything, wait until it is ready, and take it all down in the right order at the end.

        Raises:
            StartError: a process did not come up; with the end of its log.
        """
        try:
            self._start()
            yield self
        finally:
            if "api" in self.__dict__:
                self.api.close()  # type: ignore[no-untyped-call]
            for process in reversed(self.processes):
                process.stop()

    def extender_kubeconfig(self, path: Path | None = None) -> Path:
        """A kubeconfig with a fresh token of the extender's ServiceAccount and the rules of deploy/rbac.yaml."""
        access.apply(self.api, access.read_manifests(RBAC_MANIFESTS))
        token = access.service_account_token(self.api, EXTENDER_NAMESPACE, EXTENDER_SERVICE_ACCOUNT)
        return self.endpoint.kubeconfig(path or self.directory / "extender.kubeconfig", token)

    def launch(self, process: Process) -> Process:
        """Start a process of a test's own and wait for it; it is stopped before the control plane."""
        self.others.append(process)
        process.start()
        process.wait()
        return process

    def stop_api_server(self) -> None:
        """Take the API server away at once: politely it would wait for every watch. etcd keeps everything."""
        self.api_server.kill()

    def start_api_server(self) -> None:
        """Bring it back on the same port.

        KWOK is started anew: after an outage it may wait for longer than a minute before it lists again, and the next
        test's nodes would not become ready meanwhile.
        """
        self.api_server.start()
        self.api_server.wait()
        self.kwok.kill()
        self.kwok.start()
        self.kwok.wait()

    def _start(self) -> None:
        self.etcd.start()
        self.etcd.wait()
        self.api_server.start()
        self.api_server.wait()
        access.apply(self.api, self._metrics_api())
        for process in (self.controller_manager, self.kwok, self.metrics_server):
            process.start()
        for process in (self.controller_manager, self.kwok, self.metrics_server):
            process.wait()
        self._wait_for_default_account()

    def _wait_for_default_account(self, timeout_s: float = 30.0) -> None:
        """Until the controller manager has made it, no pod can be created."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                access.request(self.api, "GET", "/api/v1/namespaces/default/serviceaccounts/default")
            except client.ApiException as error:
                if error.status != 404:
                    raise
                if time.monotonic() > deadline:
                    message = f"no default ServiceAccount:\n{self.controller_manager.tail()}"
                    raise StartError(message) from error
                time.sleep(0.1)
            else:
                return

    def _write_tokens(self) -> dict[str, Path]:
        tokens = {name: secrets.token_hex(16) for name in _TOKEN_USERS}
        lines = [f'{tokens[name]},{user},{name},"{groups}"' for name, (user, groups) in _TOKEN_USERS.items()]
        (self.directory / "tokens.csv").write_text("\n".join(lines) + "\n")
        return {
            name: self.endpoint.kubeconfig(self.directory / f"{name}.kubeconfig", token)
            for name, token in tokens.items()
        }

    def _etcd(self, peer_port: int) -> Process:
        url, peer = f"http://127.0.0.1:{self._etcd_client}", f"http://127.0.0.1:{peer_port}"
        flags = {
            "data-dir": self.directory / "etcd",
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",  # what it holds is worth nothing after the session
            "quota-backend-bytes": 4 * 2**30,
        }
        command = [str(self.binaries.etcd / "etcd"), *_flags(flags)]
        return Process("etcd", command, self.directory, answers_ok(f"{url}/health"))

    def _api_server(self, port: int, account_key: KeyPair) -> Process:
        proxy = self._front_proxy.issue("front-proxy-client")
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_client}",
            "bind-address": "127.0.0.1",
            "secure-port": port,
            # the address in the kubernetes Service may not be loopback; with no reconciler nothing uses it
            "advertise-address": "192.0.2.2",
            "endpoint-reconciler-type": "none",
            **self._serving(),
            "client-ca-file": self._authority.certificate,
            "token-auth-file": self.directory / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": account_key.certificate,
            "service-account-signing-key-file": account_key.key,
            "service-cluster-ip-range": "10.96.0.0/16",
            # pod groups; without them in a kube-scheduler too, nothing is otherwise
            "feature-gates": "GenericWorkload=true",
            "runtime-config": "scheduling.k8s.io/v1beta1=true",
            "allow-privileged": "true",
            "profiling": "false",
            # the aggregation layer: metrics-server trusts the user names that this proxy puts into headers
            "requestheader-client-ca-file": self._front_proxy.certificate,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": proxy.certificate,
            "proxy-client-key-file": proxy.key,
        }
        command = [str(self.binaries.kube / "kube-apiserver"), *_flags(flags)]
        ready = answers_ok(f"{self.endpoint.url}/readyz", self._authority.certificate)
        return Process("kube-apiserver", command, self.directory, ready)

    def _controller_manager(self, port: int, account_key: KeyPair) -> Process:
        flags = {
            "kubeconfig": self.kubeconfig("controller-manager"),
            "bind-address": "127.0.0.1",
            "secure-port": port,
            **self._serving(),
            "service-account-private-key-file": account_key.key,
            "root-ca-file": self._authority.certificate,
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "node-monitor-grace-period": f"{self._lease_s + 10}s",
            # a thousand nodes lose their not-ready taint one request each
            "kube-api-qps": 300,
            "kube-api-burst": 600,
        }
        command = [str(self.binaries.kube / "kube-controller-manager"), *_flags(flags)]
        ready = answers_ok(f"https://127.0.0.1:{port}/healthz", self._authority.certificate)
        return Process("kube-controller-manager", command, self.directory, ready)

    def _kwok(self) -> Process:
        annotation, value = FAKE_NODE
        flags = {
            "kubeconfig": self.kubeconfig("kwok"),
            "config": f"{self.binaries.kwok / 'stages.yaml'},{KUBELET_METRICS},{self._forwarding()}",
            "manage-all-nodes": "false",
            "manage-nodes-with-annotation-selector": f"{annotation}={value}",
            "node-lease-duration-seconds": self._lease_s,
            "cidr": "10.0.0.1/8",
            # what nodes say of their kubelet: KWOK's own server, where metrics-server finds their metrics
            "node-ip": "127.0.0.1",
            "node-port": self._kwok_port,
            "server-address": f"127.0.0.1:{self._kwok_port}",
            **self._serving(),
            "v": "WARN",  # a line per pod and node otherwise
        }
        command = [str(self.binaries.kwok / "kwok"), *_flags(flags)]
        ready = answers_ok(f"https://127.0.0.1:{self._kwok_port}/healthz", self._authority.certificate)
        return Process("kwok", command, self.directory, ready)

    def _forwarding(self) -> Path:
        """What KWOK does, as a kubelet, where a port of a pod is forwarded."""
        target = {"address": "127.0.0.1", "port": self.forwarded}
        path = self.directory / "kwok-forwarding.json"
        kind = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ClusterPortForward", "metadata": {"name": "all"}}
        path.write_text(json.dumps({**kind, "spec": {"forwards": [{"target": target}]}}))
        return path

    def _metrics_server(self) -> Process:
        kubeconfig = self.kubeconfig("metrics-server")
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": self._metrics_port,
            **self._serving(),
            "kubelet-certificate-authority": self._authority.certificate,
            "kubelet-use-node-status-port": None,
            "kubelet-preferred-address-types": "InternalIP",
            "kubelet-request-timeout": "5s",
            "metric-resolution": f"{METRIC_RESOLUTION_S}s",
        }
        command = [str(self.binaries.metrics_server / "metrics-server"), *_flags(flags)]
        ready = answers_ok(f"https://127.0.0.1:{self._metrics_port}/livez", self._authority.certificate)
        return Process("metrics-server", command, self.directory, ready)

    def _metrics_api(self) -> list[access.Manifest]:
        """An ExternalName Service, since the endpoints of any other kind may not be loopback addresses."""
        place = {"name": "metrics-server", "namespace": "kube-system"}
        port = {"name": "https", "port": self._metrics_port}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [port]},
        }
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": base64.b64encode(self._authority.certificate.read_bytes()).decode(),
                "service": {**place, "port": self._metrics_port},
            },
        }
        return [service, registration]

    def _serving(self) -> dict[str, object]:
        certificate = self.server_certificate
        return {"tls-cert-file": certificate.certificate, "tls-private-key-file": certificate.key}


def _flags(flags: dict[str, object]) -> list[str]:
    """--name=value of each; a value of None is a flag without one."""
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items()]
