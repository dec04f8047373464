"""Each port listens at all of its addresses, as far as the machine has their family, and at no other."""

from __future__ import annotations

import errno
import io
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from extender import logs
from extender.configuration import load
from extender.errors import SettingsError
from extender.settings import Settings
from extender.transport import addresses
from extender.transport.addresses import listen, shown
from tests.control_plane.certificates import Authority
from tests.extender.service import Service
from tests.extender.transport.test_tls import client_context, tls
from tests.extender.transport.wire import GET, statuses

Run = Callable[..., Service]
has_ipv6 = pytest.mark.skipif(not addresses._has(socket.AF_INET6), reason="this machine has no IPv6")


@contextmanager
def listening(hosts: str, port: int = 0) -> Iterator[list[socket.socket]]:
    """Sockets, closed at the end."""
    sockets = listen("host", hosts, port)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def names(sockets: list[socket.socket]) -> list[str]:
    """The address of each."""
    return [each.getsockname()[0] for each in sockets]


def lacking(monkeypatch: pytest.MonkeyPatch, family: int, code: int) -> None:
    """From now on this machine has no such address family: binding fails so."""
    bind = socket.socket.bind

    class Lacking(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == family:
                raise OSError(code, "lacking")
            bind(self, address)

    monkeypatch.setattr(socket, "socket", Lacking)


def test_the_defaults_are_loopback_for_verbs_and_all_addresses_for_operations() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1,::1"
    assert settings.operations_host == "0.0.0.0,::"


@has_ipv6
def test_all_addresses_of_a_list_share_a_port() -> None:
    with listening("127.0.0.1, [::1]") as sockets:
        assert names(sockets) == ["127.0.0.1", "::1"]
        (port,) = {each.getsockname()[1] for each in sockets}
        assert shown(sockets) == [f"127.0.0.1:{port}", f"[::1]:{port}"]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5.0).close()


def test_a_name_stands_for_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: found)
    with listening("localhost") as sockets:
        assert names(sockets) == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL], ids=["no family", "no address"])
@pytest.mark.parametrize(
    ("family", "hosts", "left"),
    [
        (socket.AF_INET6, "127.0.0.1,::1", ["127.0.0.1"]),
        (socket.AF_INET6, "127.0.0.1,fd00::9", ["127.0.0.1"]),
        (socket.AF_INET, "127.0.0.1,::1", ["::1"]),
    ],
    ids=["no IPv6", "no IPv6 for an address of its own", "no IPv4"],
)
def test_an_address_whose_family_is_lacking_is_skipped(
    monkeypatch: pytest.MonkeyPatch, family: int, hosts: str, left: list[str], code: int
) -> None:
    if left == ["::1"] and not addresses._has(socket.AF_INET6):
        pytest.skip("this machine has no IPv6")
    lacking(monkeypatch, family, code)
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    with listening(hosts) as sockets:
        assert names(sockets) == left
    (skipped,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert skipped["address"] in hosts
    assert skipped["setting"] == "host"


def test_it_is_refused_where_no_address_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, socket.AF_INET6, errno.EAFNOSUPPORT)
    with pytest.raises(SettingsError, match=r"operations_host: this machine lacks .* ::1, ::"):
        listen("operations_host", "::1,::", 0)


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 port \d+ .*set host"):
        listen("host", "127.0.0.1,192.0.2.1", 0)


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    with listening("127.0.0.1") as (first,):
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1 port {port} "):
            listen("host", "127.0.0.1", port)


def test_another_free_port_is_found_where_the_first_is_taken_at_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    create = socket.create_server

    def taken_at_first(address: Any, **more: Any) -> socket.socket:
        if address[0] == "127.0.0.2" and len(opened) < 3:
            opened.append(address[1])
            raise OSError(errno.EADDRINUSE, "taken")
        return create(address, **more)

    monkeypatch.setattr(socket, "create_server", taken_at_first)
    with listening("127.0.0.1,127.0.0.2") as sockets:
        assert len({each.getsockname()[1] for each in sockets} - set(opened)) == 1
    assert len(opened) == 3


@pytest.mark.parametrize(
    "value", ["", "127.0.0.1,", "127.0.0.1:80", "10.0.0.300", "http://x", "::1%", "a b", "a..b", "a" * 64]
)
def test_what_is_no_address_is_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match=r"host.*is no address; give"):
        load(flags={"host": value})


def test_an_address_for_operations_without_a_port_of_their_own_is_refused() -> None:
    with pytest.raises(SettingsError, match="operations_host needs operations_port"):
        load(flags={"operations_host": "127.0.0.1"})


def asked(host: str, port: int, context: ssl.SSLContext | None = None) -> list[int]:
    """Statuses of one GET there."""
    with socket.create_connection((host, port), timeout=10.0) as raw:
        connection = raw if context is None else context.wrap_socket(raw, server_hostname=host)
        with connection:
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            received = b""
            while part := connection.recv(1 << 16):
                received += part
    return statuses(received)


@has_ipv6
def test_every_address_is_served_also_over_tls_that_was_renewed(run_service: Run, tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    pair = first.issue("extender", "127.0.0.1", "::1")
    service = run_service(**tls(pair), tls_reload_interval_s=0.05, operations_port=0, operations_host="127.0.0.1,::1")
    port, operations = service.background.port, service.background.operations_port
    for host in ("127.0.0.1", "::1"):
        assert asked(host, port, client_context(first)) == [404], "operations have a port of their own"
        assert asked(host, operations) == [200]
    renewed = second.issue("renewed", "127.0.0.1", "::1")
    pair.certificate.write_bytes(renewed.certificate.read_bytes())
    pair.key.write_bytes(renewed.key.read_bytes())

    def shown_everywhere() -> bool:
        try:
            return all(asked(host, port, client_context(second)) == [404] for host in ("127.0.0.1", "::1"))
        except ssl.SSLError:
            return False

    service.eventually(shown_everywhere)
