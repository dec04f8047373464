"""A real kube-scheduler shows who it is by a certificate, and goes on while certificates are exchanged."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from tests.bench.report import Result
from tests.control_plane.certificates import Authority, KeyPair
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import Extender, running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.workload import Binds, create, create_nodes, node, pod
from tests.extender.transport.test_tls_rotation import SecretVolume

INTERVAL_S = 0.2


def _configuration(extender: Extender, authority: Path, pair: KeyPair | None) -> dict[str, object]:
    """The shipped one, calling over TLS; with a client certificate or without."""
    shown = {} if pair is None else {"certFile": str(pair.certificate), "keyFile": str(pair.key)}
    return shipped_configuration(extender.url, enableHTTPS=True, tlsConfig={"caFile": str(authority), **shown})


def _until_loaded(extender: Extender, times: float) -> None:
    deadline = time.monotonic() + 30.0
    while extender.metric("maddpg_tls_loads_total", result="loaded") < times:
        assert time.monotonic() < deadline, "the new certificates were not read"
        time.sleep(0.05)


@pytest.mark.timeout(150, func_only=True)
def test_all_pods_are_bound_over_mutual_tls_while_certificates_and_authority_are_exchanged(
    cluster: ControlPlane, tmp_path: Path, record: Callable[[Result], None]
) -> None:
    (tmp_path / "next").mkdir()
    authority, following = Authority(tmp_path, "authority"), Authority(tmp_path / "next", "following")
    both = tmp_path / "both.crt"
    both.write_bytes(authority.certificate.read_bytes() + following.certificate.read_bytes())
    server, client = SecretVolume(tmp_path / "server"), SecretVolume(tmp_path / "client")
    server.replace(authority.issue("extender-0", "127.0.0.1"), authority.certificate)
    client.replace(authority.issue("kube-scheduler"), both)
    shown = KeyPair(client.path / "tls.crt", client.path / "tls.key")
    pods = [pod(f"pod-{number}", scheduler=PROFILE) for number in range(150)]
    names = [each["metadata"]["name"] for each in pods]
    last = [pod(f"last-{number}", scheduler=PROFILE) for number in range(20)]
    last_names = [each["metadata"]["name"] for each in last]
    create_nodes(cluster.api, [node(f"node-{number}") for number in range(8)])
    settings = {**server.settings(), "tls_client_names": '["kube-scheduler"]', "tls_reload_interval_s": INTERVAL_S}
    with (
        running_extender(cluster, **settings) as extender,
        kube_scheduler(cluster, _configuration(extender, client.path / "ca.crt", shown)),
        Binds(cluster.api) as binds,
    ):

        def arrive() -> None:
            for each in pods:
                create(cluster.api, [each], threads=1)
                time.sleep(0.03)

        load = Thread(target=arrive)
        load.start()
        for number in range(1, 5):  # the last two are of the next authority, and the last trusts it alone
            of, trusted = (authority, authority.certificate) if number < 3 else (following, following.certificate)
            pair = of.issue(f"extender-{number}", "127.0.0.1")
            server.replace(pair, trusted if number in (1, 4) else both)
            _until_loaded(extender, number + 1)
        exchanged_under_load = load.is_alive()
        client.replace(following.issue("kube-scheduler"), following.certificate)
        load.join()
        binds.wait(names, timeout_s=60)
        decided = extender.decisions().keys()
        refused = extender.metric("maddpg_tls_loads_total", result="refused")
        # its connection is gone now, and the next shows the new certificate to the new authority
        extender.process.kill()
        extender.process.start()
        extender.process.wait()
        create(cluster.api, last)
        binds.wait(last_names, timeout_s=60)
        decided_last = extender.decisions().keys()
    record(Result("certificates exchanged 4 times under load: bound of 150", len(names), "pods", at_least=150))
    record(Result("certificates exchanged 4 times under load: not asked", len(set(names) - decided), "pods", at_most=0))
    assert exchanged_under_load
    assert set(names) - decided == set()
    assert refused == 0
    assert set(last_names) <= decided_last, "kube-scheduler reads its certificate again for a new connection"


@pytest.mark.timeout(90, func_only=True)
def test_a_kube_scheduler_without_a_certificate_is_not_answered(cluster: ControlPlane, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    server = SecretVolume(tmp_path / "server")
    server.replace(authority.issue("extender", "127.0.0.1"), authority.certificate)
    pods = [pod(f"pod-{number}", scheduler=PROFILE) for number in range(5)]
    create_nodes(cluster.api, [node("node-0"), node("node-1")])
    with (
        running_extender(cluster, **server.settings(), tls_reload_interval_s=INTERVAL_S) as extender,
        kube_scheduler(cluster, _configuration(extender, authority.certificate, None)),
        Binds(cluster.api) as binds,
    ):
        create(cluster.api, pods)
        binds.wait([each["metadata"]["name"] for each in pods])
        deadline = time.monotonic() + 10.0
        while not extender.metric("maddpg_tls_handshake_failures_total", reason="no_certificate"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # nobody was asked; the watch cannot tell why, and takes it that one node was left
        assert {each["verb"] for each in extender.decisions().values()} <= {"watch"}
