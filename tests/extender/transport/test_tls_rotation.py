"""Certificates are exchanged while requests go on: new connections use the new ones, and no request fails."""

from __future__ import annotations

import datetime as dt
import http.client
import io
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from extender import logs
from extender.errors import CertificateError
from extender.settings import Settings
from extender.transport.tls import Certificates
from tests.control_plane.certificates import Authority, KeyPair
from tests.extender.service import Service, by_names
from tests.extender.transport.test_tls import client_context, counted

Run = Callable[..., Service]
FILES = ("tls.crt", "tls.key", "ca.crt")


class Volume:
    """A folder with tls.crt, tls.key and ca.crt; subclasses say how the files are replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        path.mkdir()

    def settings(self) -> dict[str, Path]:
        """The service's, for these files."""
        certificate, key, authority = (self.path / name for name in FILES)
        return {"tls_cert_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority}

    def replace(self, pair: KeyPair, authority: Path) -> None:
        """Put these files in place of those that are there."""
        raise NotImplementedError


class Folder(Volume):
    """Each file is renamed over the old one, as a careful script does."""

    def replace(self, pair: KeyPair, authority: Path) -> None:
        for name, source in zip(FILES, (pair.certificate, pair.key, authority), strict=True):
            shutil.copy(source, self.path / f"{name}.new")
            (self.path / f"{name}.new").replace(self.path / name)


class SecretVolume(Volume):
    """All files at once, by a swap of the link `..data`, as the kubelet does for Secrets and ConfigMaps."""

    def replace(self, pair: KeyPair, authority: Path) -> None:
        self.generation += 1
        content = self.path / f"..generation_{self.generation}"
        content.mkdir()
        for name, source in zip(FILES, (pair.certificate, pair.key, authority), strict=True):
            shutil.copy(source, content / name)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..data_tmp").symlink_to(content.name)
        (self.path / "..data_tmp").replace(self.path / "..data")


@pytest.fixture(params=[Folder, SecretVolume], ids=["renamed files", "a Secret's volume"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    """An empty folder for the service's files."""
    return request.param(tmp_path / "volume")  # type: ignore[no-any-return]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Issues the service's and the callers' certificates."""
    return Authority(tmp_path, "authority")


def issue(authority: Authority, name: str) -> KeyPair:
    """A certificate for the service on loopback."""
    return authority.issue(name, "127.0.0.1")


def serial(path: Path) -> int:
    """Of a certificate in PEM."""
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def shown(port: int, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
    ):
        certificate = wrapped.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """Connect and ask for something; raises `OSError` where that is refused. Returns the session."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as wrapped,
    ):
        wrapped.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if not wrapped.recv(1):
            raise ConnectionResetError("closed without an answer")
        return wrapped.session


@dataclass
class Load:
    """What callers got that never stop asking."""

    answers: int = 0
    connections: int = 0
    wrong: list[str] = field(default_factory=list)


@contextmanager
def load(port: int, context: ssl.SSLContext, names: list[str], *, keep_alive: int, reconnecting: int) -> Iterator[Load]:
    """Ask for priorities until the block ends: some on one connection all the time, some on a new one each time."""
    found, stopping, lock = Load(), threading.Event(), threading.Lock()
    body = json.dumps(by_names(names))

    def ask(reconnect: bool) -> None:
        connection: http.client.HTTPSConnection | None = None
        while not stopping.is_set():
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
                with lock:
                    found.connections += not reconnect
            try:
                connection.request("POST", "/prioritize", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                scores = {host["Host"] for host in json.loads(answer.read())}
                problem = "" if answer.status == 200 and scores == set(names) else f"{answer.status}: {scores}"
            except (OSError, ValueError, http.client.HTTPException) as error:
                problem = repr(error)
            with lock:
                found.answers += 1
                if problem:
                    found.wrong.append(problem)
            if reconnect or problem:
                connection.close()
                connection = None
            time.sleep(0.002)
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=ask, args=(i >= keep_alive,)) for i in range(keep_alive + reconnecting)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_a_certificate_is_exchanged_under_load_without_a_failed_request(
    run_service: Run, volume: Volume, authority: Authority
) -> None:
    first = issue(authority, "first")
    volume.replace(first, authority.certificate)
    service = run_service(**volume.settings(), operations_port=0, tls_reload_interval_s=0.1)
    names = service.add_nodes(20)
    context = client_context(authority, authority.issue("kube-scheduler"))
    port = service.background.port
    assert shown(port, context) == serial(first.certificate)
    with load(port, context, names, keep_alive=2, reconnecting=2) as found:
        for number in range(6):
            pair = issue(authority, f"renewed-{number}")
            volume.replace(pair, authority.certificate)
            service.eventually(lambda pair=pair: shown(port, context) == serial(pair.certificate))  # type: ignore[misc]
            enough = found.answers + 20
            service.eventually(lambda enough=enough: found.answers >= enough)  # type: ignore[misc]
    assert found.wrong == []
    assert found.connections == 2, "connections that stand are kept"
    assert counted(service, "maddpg_tls_loads_total", result="loaded") == 7
    assert counted(service, "maddpg_tls_loads_total", result="refused") == 0
    assert counted(service, "maddpg_tls_handshake_failures_total", reason="other") == 0


def test_an_authority_is_exchanged_too_and_connections_that_stand_go_on(
    run_service: Run, volume: Volume, tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "next").mkdir()
    following = Authority(tmp_path / "next", "following")
    volume.replace(issue(authority, "first"), authority.certificate)
    service = run_service(**volume.settings(), operations_port=0, tls_reload_interval_s=0.1)
    names = service.add_nodes(5)
    port = service.background.port
    old = client_context(authority, authority.issue("kube-scheduler"), maximum_version=ssl.TLSVersion.TLSv1_2)
    new = client_context(authority, following.issue("kube-scheduler"))
    session = handshake(port, old)
    with pytest.raises(OSError):  # noqa: PT011 - reset or an alert, as TCP has it
        handshake(port, new)
    with load(port, old, names, keep_alive=2, reconnecting=0) as found:
        pair = issue(authority, "second")
        volume.replace(pair, following.certificate)
        service.eventually(lambda: counted(service, "maddpg_tls_loads_total", result="loaded") == 2)
        handshake(port, new)
        with pytest.raises(OSError):  # noqa: PT011
            handshake(port, old)
        with pytest.raises(OSError):  # noqa: PT011
            handshake(port, old, session)
        enough = found.answers + 20
        service.eventually(lambda: found.answers >= enough)
    assert (found.wrong, found.connections) == ([], 2)


def test_a_bad_file_is_refused_counted_and_logged_and_the_old_one_serves_on(
    run_service: Run, volume: Volume, authority: Authority
) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    first = issue(authority, "first")
    volume.replace(first, authority.certificate)
    service = run_service(**volume.settings(), operations_port=0, tls_reload_interval_s=0.05)
    names = service.add_nodes(5)
    context = client_context(authority, authority.issue("kube-scheduler"))
    port = service.background.port
    with load(port, context, names, keep_alive=1, reconnecting=1) as found:
        mismatched = KeyPair(issue(authority, "a").certificate, issue(authority, "b").key)
        expired = authority.issue("c", "127.0.0.1", begins=dt.timedelta(hours=-2), ends=dt.timedelta(hours=-1))
        for count, bad in enumerate((mismatched, expired), start=1):
            volume.replace(bad, authority.certificate)
            service.eventually(
                lambda count=count: counted(service, "maddpg_tls_loads_total", result="refused") == count  # type: ignore[misc]
            )
            time.sleep(0.3)
            assert counted(service, "maddpg_tls_loads_total", result="refused") == count, "once for each content"
            assert shown(port, context) == serial(first.certificate)
            assert counted(service, "maddpg_tls_refused") == 1
        last = issue(authority, "last")
        volume.replace(last, authority.certificate)
        service.eventually(lambda: shown(port, context) == serial(last.certificate))
        service.eventually(lambda: counted(service, "maddpg_tls_refused") == 0)
    assert found.wrong == []
    refused = [json.loads(line) for line in stream.getvalue().splitlines() if "refused" in line]
    assert [line["level"] for line in refused] == ["error", "error"]
    assert "is not the key of the certificate" in refused[0]["error"]
    assert "expired on" in refused[1]["error"]


def loaded_from(volume: Volume, authority: Authority) -> Certificates:
    """What a service reads at its start."""
    volume.replace(issue(authority, "first"), authority.certificate)
    return Certificates(Settings(**volume.settings()))


def test_files_replaced_one_after_the_other_are_not_refused_in_between(tmp_path: Path, authority: Authority) -> None:
    folder = Folder(tmp_path / "volume")
    certificates = loaded_from(folder, authority)
    pair = issue(authority, "second")
    shutil.copy(pair.certificate, folder.path / "tls.crt")
    assert certificates.poll() is None
    shutil.copy(pair.key, folder.path / "tls.key")
    assert certificates.poll() is not None
    assert certificates.poll() is None


def test_what_is_bad_when_seen_twice_is_refused_once(tmp_path: Path, authority: Authority) -> None:
    folder = Folder(tmp_path / "volume")
    certificates = loaded_from(folder, authority)
    before = certificates.identity
    (folder.path / "tls.key").unlink()
    assert certificates.poll() is None
    with pytest.raises(CertificateError, match=r"tls_key_file .*cannot read it"):
        certificates.poll()
    assert certificates.poll() is None
    assert certificates.identity is before
    shutil.copy(issue(authority, "other").key, folder.path / "tls.key")
    assert certificates.poll() is None
    with pytest.raises(CertificateError, match="is not the key"):
        certificates.poll()


def test_files_put_back_are_no_change(tmp_path: Path, authority: Authority) -> None:
    folder = Folder(tmp_path / "volume")
    certificates = loaded_from(folder, authority)
    good = (folder.path / "tls.crt").read_bytes()
    for _ in range(2):
        (folder.path / "tls.crt").write_text("half")
        assert certificates.poll() is None
        (folder.path / "tls.crt").write_bytes(good)
        assert certificates.poll() is None


def test_a_certificate_that_comes_too_early_is_used_when_its_time_comes(tmp_path: Path, authority: Authority) -> None:
    folder = Folder(tmp_path / "volume")
    folder.replace(issue(authority, "first"), authority.certificate)
    passed = [0.0]
    certificates = Certificates(Settings(**folder.settings()), lambda: time.time() + passed[0])
    early = authority.issue("early", "127.0.0.1", begins=dt.timedelta(hours=1))
    folder.replace(early, authority.certificate)
    assert certificates.poll() is None
    with pytest.raises(CertificateError, match="not valid before"):
        certificates.poll()
    assert certificates.poll() is None
    passed[0] = 3700.0
    assert certificates.poll() is not None
