"""Over TLS the service answers whom it should, and refuses files and callers that it should."""

from __future__ import annotations

import datetime as dt
import io
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from extender import logs
from extender.certificates import names_of
from extender.cli import REFUSED
from extender.configuration import load
from extender.errors import CertificateError, SettingsError
from extender.settings import Settings
from extender.transport.tls import Certificates
from tests.control_plane.certificates import Authority, KeyPair
from tests.extender.service import Service, by_names
from tests.extender.test_process import cli

Run = Callable[..., Service]
DAY = dt.timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Issues the service's and the callers' certificates."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def server(authority: Authority) -> KeyPair:
    """The service's certificate."""
    return authority.issue("extender", "127.0.0.1", "localhost")


def tls(pair: KeyPair, **more: Any) -> dict[str, Any]:
    """Settings for that certificate."""
    return {"tls_cert_file": pair.certificate, "tls_key_file": pair.key, **more}


def client_context(authority: Authority, pair: KeyPair | None = None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A caller that trusts the authority and shows a certificate, or none."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


@pytest.fixture
def caller() -> Iterator[Callable[[str, ssl.SSLContext], httpx.Client]]:
    """HTTP clients, closed at the end."""
    made: list[httpx.Client] = []

    def make(url: str, context: ssl.SSLContext) -> httpx.Client:
        made.append(httpx.Client(base_url=url, verify=context, timeout=10.0, trust_env=False))
        return made[-1]

    yield make
    for client in made:
        client.close()


def counted(service: Service, name: str, **labels: str) -> float:
    """A metric, read without asking over HTTP."""
    return service.background.app.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_caller_with_a_certificate_is_answered(
    run_service: Run,
    authority: Authority,
    server: KeyPair,
    caller: Callable[[str, ssl.SSLContext], httpx.Client],
    version: ssl.TLSVersion,
) -> None:
    service = run_service(**tls(server, tls_client_ca_file=authority.certificate), operations_port=0)
    names = service.add_nodes(400)
    context = client_context(authority, authority.issue("kube-scheduler"), maximum_version=version)
    client = caller(service.background.url, context)
    for _ in range(3):
        answer = client.post("/prioritize", json=by_names(names))
        assert {host["Host"] for host in answer.json()} == set(names)
    assert service.operations.get("/readyz").status_code == 200, "plain HTTP, for the kubelet"


@pytest.mark.parametrize(
    ("caller_is", "reason"),
    [("nobody", "no_certificate"), ("a stranger", "bad_certificate"), ("expired", "bad_certificate")],
    ids=["without a certificate", "of another authority", "with one that has expired"],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_caller_without_a_good_certificate_is_refused_at_the_handshake(
    run_service: Run,
    tmp_path: Path,
    authority: Authority,
    server: KeyPair,
    caller: Callable[[str, ssl.SSLContext], httpx.Client],
    caller_is: str,
    reason: str,
    version: ssl.TLSVersion,
) -> None:
    (tmp_path / "other").mkdir()
    pairs = {
        "nobody": lambda: None,
        "a stranger": lambda: Authority(tmp_path / "other", "other").issue("kube-scheduler"),
        "expired": lambda: authority.issue("kube-scheduler", begins=-2 * DAY, ends=-DAY),
    }
    service = run_service(
        **tls(server, tls_client_ca_file=authority.certificate), operations_port=0, tls_reload_interval_s=0.05
    )
    client = caller(service.background.url, client_context(authority, pairs[caller_is](), maximum_version=version))
    with pytest.raises(httpx.TransportError):
        client.post("/prioritize", json=by_names(["node-0"]))
    service.eventually(lambda: counted(service, "maddpg_tls_handshake_failures_total", reason=reason) == 1)
    assert counted(service, "maddpg_request_duration_seconds_count", verb="prioritize") == 0


@pytest.mark.parametrize(
    ("name", "alternatives", "status"),
    [
        ("kube-scheduler", (), 200),
        ("someone", ("scheduler.kube-system.svc",), 200),
        ("someone", ("10.1.2.3",), 200),
        ("someone", (), 403),
        ("Kube-Scheduler", ("kube-scheduler.evil.example",), 403),
    ],
    ids=["common name", "DNS name", "address", "another", "nearly"],
)
def test_only_callers_with_an_allowed_name_are_answered(
    run_service: Run,
    authority: Authority,
    server: KeyPair,
    caller: Callable[[str, ssl.SSLContext], httpx.Client],
    name: str,
    alternatives: tuple[str, ...],
    status: int,
) -> None:
    allowed = ("kube-scheduler", "scheduler.kube-system.svc", "10.1.2.3")
    service = run_service(
        **tls(server, tls_client_ca_file=authority.certificate, tls_client_names=allowed), operations_port=0
    )
    names = service.add_nodes(3)
    client = caller(service.background.url, client_context(authority, authority.issue(name, *alternatives)))
    answers = [client.post(f"/{verb}", json=by_names(names)) for verb in ("filter", "prioritize") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status] * 4
    if status == 403:
        assert answers[0].json() == {"Error": "no name of the client certificate is in tls_client_names"}
    assert counted(service, "maddpg_refusals_total", reason="client_name") == (4 if status == 403 else 0)


def test_a_caller_that_speaks_too_old_a_version_is_refused(
    run_service: Run, authority: Authority, server: KeyPair, caller: Callable[[str, ssl.SSLContext], httpx.Client]
) -> None:
    service = run_service(**tls(server, tls_minimum_version="1.3"), tls_reload_interval_s=0.05)
    old = client_context(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(httpx.TransportError):
        caller(service.background.url, old).get("/healthz")
    assert caller(service.background.url, client_context(authority)).get("/healthz").status_code == 200
    service.eventually(lambda: counted(service, "maddpg_tls_handshake_failures_total", reason="version") == 1)


def test_tls_older_than_1_2_is_never_spoken(server: KeyPair) -> None:
    for minimum in ("1.2", "1.3"):
        identity = Certificates(Settings(**tls(server, tls_minimum_version=minimum))).identity
        assert identity.verbs.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert identity.operations.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_plain_http_on_the_tls_port_is_not_answered(run_service: Run, server: KeyPair) -> None:
    service = run_service(**tls(server), operations_port=0, tls_reload_interval_s=0.05)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.background.port}/healthz")
    service.eventually(lambda: counted(service, "maddpg_tls_handshake_failures_total", reason="plain_http") == 1)


def test_operations_over_tls_ask_for_no_certificate(
    run_service: Run, authority: Authority, server: KeyPair, caller: Callable[[str, ssl.SSLContext], httpx.Client]
) -> None:
    service = run_service(
        **tls(server, tls_client_ca_file=authority.certificate, tls_client_names=("x",), operations_tls=True),
        operations_port=0,
    )
    assert service.background.operations_url.startswith("https://")
    client = caller(service.background.operations_url, client_context(authority))
    assert client.get("/healthz").status_code == 200
    assert 'maddpg_tls_expiry_timestamp_seconds{file="client_ca"}' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tls_cert_file": "a"}, "tls_cert_file and tls_key_file belong together"),
        ({"tls_key_file": "a"}, "tls_cert_file and tls_key_file belong together"),
        ({"tls_client_ca_file": "a"}, "tls_client_ca_file needs tls_cert_file"),
        ({"operations_tls": "true"}, "operations_tls needs tls_cert_file"),
        ({"operations_tls": "true", "tls_cert_file": "a", "tls_key_file": "b"}, "operations_tls needs operations_port"),
        ({"tls_client_names": '["a"]', "tls_cert_file": "a", "tls_key_file": "b"}, "needs tls_client_ca_file"),
        ({"tls_client_names": "kube-scheduler"}, r'--tls-client-names: give a JSON list such as \["name"\]'),
        ({"tls_minimum_version": "1.1"}, r"tls_minimum_version.*'1.2' or '1.3'"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(values: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(flags=values)


def test_a_version_may_be_a_number_as_yaml_reads_it(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("tls_minimum_version: 1.3\ntls_client_names: []\n")
    assert load(tmp_path / "s.yaml").tls_minimum_version == "1.3"


def encrypted(directory: Path, pair: KeyPair) -> KeyPair:
    """The same pair, its key under a password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    secret = serialization.BestAvailableEncryption(b"s3cret")
    (directory / "locked.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
    return KeyPair(pair.certificate, directory / "locked.key")


def written(path: Path, content: str | bytes) -> Path:
    """A file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


BAD_FILES: dict[str, tuple[Callable[[Authority, Path], dict[str, Any]], str]] = {
    "no certificate": (
        lambda ca, at: tls(KeyPair(at / "absent.crt", ca.issue("a").key)),
        r"tls_cert_file .*absent.crt: cannot read it \(No such file",
    ),
    "no key": (
        lambda ca, at: tls(KeyPair(ca.issue("a").certificate, at / "absent.key")),
        r"tls_key_file .*absent.key: cannot read it",
    ),
    "another's key": (
        lambda ca, at: tls(KeyPair(ca.issue("a").certificate, ca.issue("b").key)),
        r"tls_key_file .*b.key: is not the key of the certificate in tls_cert_file .*a.crt; give the pair",
    ),
    "encrypted key": (lambda ca, at: tls(encrypted(at, ca.issue("a"))), r"tls_key_file .*locked.key: is encrypted"),
    "not PEM": (
        lambda ca, at: tls(KeyPair(written(at / "x.crt", "hello"), ca.issue("a").key)),
        r"tls_cert_file .*x.crt.*do not read as PEM",
    ),
    "DER": (
        lambda ca, at: tls(KeyPair(written(at / "x.crt", b"\x30\x82\xff\x00"), ca.issue("a").key)),
        r"tls_cert_file .*x.crt",
    ),
    "expired": (
        lambda ca, at: tls(ca.issue("a", begins=-2 * DAY, ends=-DAY)),
        r"tls_cert_file .*a.crt: expired on \d{4}-\d\d-\d\dT.*; renew it",
    ),
    "not yet valid": (
        lambda ca, at: tls(ca.issue("a", begins=DAY)),
        r"tls_cert_file .*a.crt: is not valid before .*; look at the clock",
    ),
    "for clients only": (
        lambda ca, at: tls(ca.issue("a", uses=[ExtendedKeyUsageOID.CLIENT_AUTH])),
        r"tls_cert_file .*a.crt: no client could accept it \(un.*purpose\).*serverAuth",
    ),
    "no authority file": (
        lambda ca, at: tls(ca.issue("a"), tls_client_ca_file=at / "absent"),
        r"tls_client_ca_file .*absent: cannot read it",
    ),
    "empty authority file": (
        lambda ca, at: tls(ca.issue("a"), tls_client_ca_file=written(at / "ca", "\n")),
        r"tls_client_ca_file .*ca: holds no certificate in PEM",
    ),
    "authorities in DER": (
        lambda ca, at: tls(ca.issue("a"), tls_client_ca_file=written(at / "ca", b"\x30\x82\xff\x00")),
        r"tls_client_ca_file .*ca: holds no certificate in PEM",
    ),
    "no authority in it": (
        lambda ca, at: tls(ca.issue("a"), tls_client_ca_file=ca.issue("b").certificate),
        r"tls_client_ca_file .*b.crt: none of its certificates is an authority",
    ),
    "authority expired": (
        lambda ca, at: tls(ca.issue("a"), tls_client_ca_file=Authority(at, "old", ends=-DAY).certificate),
        r"tls_client_ca_file .*old.crt: expired on",
    ),
}


@pytest.mark.parametrize(("settings", "complaint"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_cannot_serve_are_refused_with_setting_and_fix(
    tmp_path: Path, authority: Authority, settings: Callable[[Authority, Path], dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(CertificateError, match=complaint):
        Certificates(Settings(**settings(authority, tmp_path)))


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_the_commands_refuse_them_too(authority: Authority, bundle_path: Path, command: str) -> None:
    pair = KeyPair(authority.issue("a").certificate, authority.issue("b").key)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**tls(pair), "port": 0}.items()]
    result: subprocess.CompletedProcess[str] = cli(command, "--bundle-path", str(bundle_path), *flags)
    assert result.returncode == REFUSED
    assert {"serve": "maddpg-extender: tls_key_file", "check-config": "failed  certificates: tls_key_file"}[
        command
    ] in result.stderr
    assert "Traceback" not in result.stderr


def test_check_config_accepts_good_ones(authority: Authority, server: KeyPair, bundle_path: Path) -> None:
    flags = tls(server, tls_client_ca_file=authority.certificate, tls_client_names='["kube-scheduler"]')
    result = cli(
        "check-config", "--bundle-path", str(bundle_path), *(f"--{k.replace('_', '-')}={v}" for k, v in flags.items())
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tls_client_names"] == ["kube-scheduler"]


def test_a_chain_and_a_bundle_of_authorities_are_accepted(
    tmp_path: Path, authority: Authority, server: KeyPair
) -> None:
    chain = written(tmp_path / "chain.crt", server.certificate.read_bytes() + authority.certificate.read_bytes())
    old = Authority(tmp_path, "old", ends=-DAY).certificate
    both = written(tmp_path / "both.crt", old.read_bytes() + authority.certificate.read_bytes())
    identity = Certificates(Settings(**tls(KeyPair(chain, server.key), tls_client_ca_file=both))).identity
    assert set(identity.validity) == {"certificate", "client_ca"}
    assert identity.verbs.verify_mode is ssl.CERT_REQUIRED
    assert identity.operations.verify_mode is ssl.CERT_NONE


def test_expiry_is_measured_and_warned_of_when_a_fifth_of_the_lifetime_is_left(
    run_service: Run, authority: Authority
) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    short = authority.issue("short", "127.0.0.1", begins=dt.timedelta(hours=-9), ends=dt.timedelta(hours=1))
    service = run_service(**tls(short, tls_client_ca_file=authority.certificate), operations_port=0)
    service.eventually(lambda: "expires soon" in stream.getvalue())
    [warning] = [json.loads(line) for line in stream.getvalue().splitlines() if "expires soon" in line]
    assert (warning["level"], warning["file"], warning["hours_left"]) == ("warning", "certificate", 1.0)
    end = counted(service, "maddpg_tls_expiry_timestamp_seconds", file="certificate")
    begin = counted(service, "maddpg_tls_issue_timestamp_seconds", file="certificate")
    assert end - begin == pytest.approx(10 * 3600, abs=2)
    assert counted(service, "maddpg_tls_expiry_timestamp_seconds", file="client_ca") > end
    assert counted(service, "maddpg_tls_loads_total", result="loaded") == 1


@pytest.mark.parametrize(("hours_old", "files"), [(7.9, set()), (8.1, {"certificate"})], ids=["earlier", "then"])
def test_a_certificate_expires_soon_in_the_last_fifth_of_its_life(
    authority: Authority, hours_old: float, files: set[str]
) -> None:
    pair = authority.issue("short", begins=dt.timedelta(), ends=dt.timedelta(hours=10))
    clock = lambda: dt.datetime.now(dt.UTC).timestamp() + hours_old * 3600.0  # noqa: E731
    assert set(Certificates(Settings(**tls(pair)), clock).expiring()) == files


def test_names_are_common_and_alternative() -> None:
    shown = {
        "subject": ((("organizationName", "o"),), (("commonName", "cn"),)),
        "subjectAltName": (("DNS", "a.b"), ("URI", "spiffe://c/d"), ("IP Address", "::1")),
    }
    assert names_of(shown) == {"cn", "a.b", "spiffe://c/d", "::1"}
    assert names_of({}) == names_of(None) == frozenset()
