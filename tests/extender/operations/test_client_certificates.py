"""The operations port demands a client certificate of readers, and of nobody who only asks whether it lives."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from extender.cli import app
from extender.errors import CertificateError
from extender.operations import peers
from extender.settings import Settings
from extender.transport.tls import Certificates
from tests.control_plane.certificates import Authority, KeyPair
from tests.extender.operations.test_guard import READER, Reviewing
from tests.extender.service import Service, by_names, pod
from tests.extender.transport.test_tls import client_context, tls

Run = Callable[..., Service]
PROBES = ["/healthz", "/readyz"]
READ = [
    "/metrics",
    "/v1/report",
    "/v1/decisions",
    "/dashboard/",
    "/dashboard/static/dashboard.css",
    "/openapi.json",
    "/no",
]
HOUR = dt.timedelta(hours=1)
HOSTS = ["127.0.0.1", "127.0.0.2"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def readers(tmp_path: Path) -> Authority:
    """Issues the certificates of those who read."""
    return Authority(tmp_path, "readers")


@pytest.fixture
def service(run_service: Run, authority: Authority, readers: Authority) -> Service:
    return guarded(run_service, authority, readers, operations_client_names=("prometheus", "ann"))


def guarded(run_service: Run, authority: Authority, readers: Authority, **more: Any) -> Service:
    server = authority.issue("extender", "127.0.0.1", "localhost")
    given = {"operations_client_ca_file": readers.certificate, "operations_port": 0, "scorer": "kube-default", **more}
    return run_service(**tls(server, operations_tls=True, **given))


def ask(service: Service, authority: Authority, shown: KeyPair | None, path: str, **versions: Any) -> int:
    """Status of an answer on a connection of its own."""
    context = client_context(authority, shown, **versions)
    with httpx.Client(verify=context, timeout=10.0, trust_env=False) as client:
        return client.get(service.background.operations_url + path).status_code


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_readers_need_a_valid_certificate_and_probes_none(
    service: Service, authority: Authority, readers: Authority, version: ssl.TLSVersion
) -> None:
    limits = {"minimum_version": version, "maximum_version": version}
    valid, other = readers.issue("prometheus"), readers.issue("mallory")
    bad = {
        "foreign": authority.issue("prometheus", file_name="foreign"),
        "expired": readers.issue("prometheus", file_name="expired", begins=-2 * HOUR, ends=-HOUR),
        "early": readers.issue("prometheus", file_name="early", begins=HOUR),
        "server's": readers.issue("prometheus", file_name="server", uses=[ExtendedKeyUsageOID.SERVER_AUTH]),
    }
    for path in PROBES:
        assert ask(service, authority, None, path, **limits) == 200
    for path in READ:
        assert ask(service, authority, None, path, **limits) == 401, path
        assert ask(service, authority, other, path, **limits) == 403, path
        assert ask(service, authority, valid, path, **limits) == (404 if path == "/no" else 200), path
    for name, pair in bad.items():
        for path in ("/metrics", "/healthz"):
            try:
                status = ask(service, authority, pair, path, **limits)
            except httpx.TransportError:
                continue
            pytest.fail(f"{path} answered {status} to a certificate that is {name}")
    told = service.background.app.metrics.registry.get_sample_value
    assert told("maddpg_tls_handshake_failures_total", {"reason": "bad_certificate"}) == 2 * len(bad)
    assert told("maddpg_operations_requests_total", {"result": "unauthenticated"}) == len(READ)
    assert told("maddpg_operations_requests_total", {"result": "forbidden"}) == len(READ)
    assert told("maddpg_tls_expiry_timestamp_seconds", {"file": "operations_client_ca"}) is not None


def test_one_connection_may_probe_and_read_and_keeps_its_names(
    service: Service, authority: Authority, readers: Authority
) -> None:
    context = client_context(authority, readers.issue("x", "ann"))
    with httpx.Client(verify=context, base_url=service.background.operations_url, trust_env=False) as client:
        assert [client.get(path).status_code for path in (*PROBES, "/metrics", "/v1/report") * 2] == [200] * 8
    context = client_context(authority)
    with httpx.Client(verify=context, base_url=service.background.operations_url, trust_env=False) as client:
        assert [client.get(path).status_code for path in (*PROBES, "/metrics") * 2] == [200, 200, 401] * 2
        told = client.get("/v1/report").json()["detail"]
    assert told == "show a client certificate of an authority in operations_client_ca_file"


def test_verbs_go_on_without_a_certificate(service: Service, authority: Authority) -> None:
    service.verify = client_context(authority)
    service.__post_init__()
    assert service.post("prioritize", by_names(["a", "b"], pod())).status_code == 200


def test_any_name_counts_where_none_is_named_and_a_token_instead_of_a_certificate(
    run_service: Run, authority: Authority, readers: Authority
) -> None:
    open_to_all = guarded(run_service, authority, readers)
    assert ask(open_to_all, authority, readers.issue("anybody"), "/metrics") == 200
    more = {"operations_bearer": True, "operations_users": ("readers",), "operations_client_names": ("ann",)}
    service = guarded(run_service, authority, readers, source=Reviewing(), **more)
    token = {"Authorization": f"Bearer {READER}"}
    for shown, headers, status in (
        (None, {}, 401),
        (None, token, 200),
        (readers.issue("bob"), {}, 403),
        (readers.issue("bob"), token, 200),
        (readers.issue("ann"), {}, 200),
    ):
        context = client_context(authority, shown)
        with httpx.Client(verify=context, trust_env=False) as client:
            assert client.get(f"{service.background.operations_url}/metrics", headers=headers).status_code == status


def test_replicas_show_each_other_their_certificate(
    run_service: Run, authority: Authority, readers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "LIMIT_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    both = tmp_path / "both.crt"
    both.write_bytes(authority.certificate.read_bytes() + readers.certificate.read_bytes())
    services = [
        run_service(
            scorer="kube-default", operations_port=port, operations_host=host, peers=",".join(HOSTS),
            **tls(authority.issue(f"replica-{host}", "extender.ns.svc"), operations_tls=True),
            operations_client_ca_file=both, operations_client_names=("prometheus",),
        )
        for host in HOSTS
    ]  # fmt: skip
    for service in services:
        context = client_context(authority, readers.issue("prometheus"))
        context.check_hostname = False
        service.verify = context
        service.__post_init__()
        service.add_nodes(3)
    assert services[1].post("prioritize", by_names(["node-0", "node-1"], pod("web"))).status_code == 200
    told = services[0].operations.get("/v1/decisions/uid-web", timeout=60.0).json()
    assert (told["replica"], told["silent"]) == (HOSTS[1], {})
    page = services[0].operations.get("/dashboard/decisions/uid-web", timeout=60.0)
    assert (page.status_code, "This is what the replica 127.0.0.2 remembers." in page.text) == (200, True)


@pytest.mark.parametrize("case", ["authority", "use", "good"])
def test_a_certificate_that_other_replicas_would_refuse_is_refused_at_the_start(
    authority: Authority, readers: Authority, case: str
) -> None:
    issuer = authority if case == "authority" else readers
    uses = {"uses": [ExtendedKeyUsageOID.SERVER_AUTH]} if case == "use" else {}
    pair = issuer.issue("extender", "extender.ns.svc", **uses)
    settings = Settings(
        **tls(pair, operations_tls=True),
        operations_client_ca_file=readers.certificate,
        operations_port=8889,
        peers="extender-peers",
    )
    if case == "good":
        assert Certificates(settings).identity.names == {"extender", "extender.ns.svc"}
        return
    with pytest.raises(CertificateError, match=r"another replica would not accept it .* operations_client_ca_file"):
        Certificates(settings)
    Certificates(settings.model_copy(update={"peers": None}))


def test_an_exchanged_authority_counts_at_once(
    run_service: Run, authority: Authority, readers: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(readers.certificate.read_bytes())
    service = guarded(run_service, authority, readers, operations_client_ca_file=file, tls_reload_interval_s=0.05)
    old, new = readers.issue("ann"), Authority(tmp_path, "new").issue("bob")
    assert ask(service, authority, old, "/metrics") == 200
    file.write_bytes((tmp_path / "new.crt").read_bytes())

    def refused() -> bool:
        try:
            return ask(service, authority, old, "/metrics") != 200
        except httpx.TransportError:
            return True

    service.eventually(refused)
    assert ask(service, authority, new, "/metrics") == 200


def test_commands_show_a_certificate(
    service: Service, authority: Authority, readers: Authority, tmp_path: Path
) -> None:
    def report(*options: str) -> tuple[int, str]:
        url = service.background.operations_url
        done = CliRunner().invoke(app, ["report", "--url", url, "--ca-file", str(authority.certificate), *options])
        return done.exit_code, done.output

    pair, other = readers.issue("ann"), readers.issue("bob")
    own = tmp_path / "both.pem"
    own.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert report("--cert-file", str(pair.certificate), "--key-file", str(pair.key))[0] == 0
    assert report("--cert-file", str(own))[0] == 0
    for options, complaint in (
        ((), "--cert-file and --key-file"),
        (("--cert-file", str(other.certificate), "--key-file", str(other.key)), "operations_client_names"),
        (("--cert-file", str(pair.certificate)), "cannot be used"),
        (("--cert-file", str(pair.certificate), "--key-file", str(other.key)), "cannot be used"),
        (("--cert-file", str(tmp_path / "absent")), "cannot be used"),
        (("--key-file", str(pair.key)), "--key-file has no use without --cert-file"),
    ):
        code, said = report(*options)
        assert (code, complaint in said) == (1, True), (options, said)
    plain = CliRunner().invoke(app, ["report", "--url", "http://127.0.0.1:1", "--cert-file", str(own)])
    assert (plain.exit_code, "--cert-file has no use" in plain.output) == (1, True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"operations_client_ca_file": "ca"}, "needs operations_tls"),
        ({"operations_client_ca_file": "ca", "tls_cert_file": "c", "tls_key_file": "k"}, "needs operations_tls"),
        ({"operations_client_names": ["ann"]}, "needs operations_client_ca_file"),
    ],
)
def test_settings_that_would_demand_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**settings)
