"""One kubelet: where it is, whom it is believed to be, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import uvloop

from extender.cluster import kubelet as kubelets
from extender.cluster import kubelet_connection as connections
from extender.cluster.decoding import decode_node
from extender.cluster.identity import Identity
from extender.cluster.kubelet import Endpoint, KubeletError, Trust, endpoint_of
from extender.cluster.kubelet_connection import Connection, is_for
from extender.cluster.stats import decode_summary
from extender.errors import CertificateError
from tests.control_plane.certificates import Authority
from tests.extender.cluster.fake_kubelet import FakeKubelet, chunked, head

T = TypeVar("T")

NOBODY = Identity()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "cluster-ca")


def trust(authority: Authority, **options: Any) -> Trust:
    return Trust(authority.certificate.read_bytes, **options)


def run(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns on the kind of event loop that asks kubelets."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def ask(fake: FakeKubelet, believed: Trust, identity: Identity = NOBODY, node: str = "") -> bytes:
    """One question on a connection of its own."""

    async def there() -> bytes:
        endpoint = Endpoint(node or fake.node, fake.host, fake.port)
        connection = await Connection.open(endpoint, believed, identity)
        try:
            async with asyncio.timeout(5):
                return await connection.ask(endpoint, identity)
        finally:
            connection.close()

    return run(there())


def why(fake: FakeKubelet, believed: Trust, identity: Identity = NOBODY, node: str = "") -> str:
    """Why the question has no answer."""
    with pytest.raises(KubeletError) as raised:
        ask(fake, believed, identity, node)
    return raised.value.reason


# ---- where it is -------------------------------------------------------------------------------------------------


def node(*addresses: tuple[str, str], port: int | None = None) -> Any:
    status: dict[str, Any] = {"addresses": [{"type": kind, "address": address} for kind, address in addresses]}
    if port is not None:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    return decode_node(msgspec.Raw(msgspec.json.encode({"metadata": {"name": "node-a"}, "status": status})))


@pytest.mark.parametrize(
    ("addresses", "port", "expected"),
    [
        ([("InternalIP", "10.0.0.7")], None, ("10.0.0.7", 10250)),
        ([("InternalIP", "10.0.0.7")], 0, ("10.0.0.7", 10250)),
        ([("InternalIP", "10.0.0.7")], 10259, ("10.0.0.7", 10259)),
        ([("Hostname", "node-a"), ("ExternalIP", "1.2.3.4"), ("InternalIP", "10.0.0.7")], None, ("10.0.0.7", 10250)),
        ([("InternalIP", "fd00:0:0:0::7")], None, ("fd00::7", 10250)),
        ([("InternalIP", "10.0.0.7"), ("InternalIP", "fd00::7")], None, ("10.0.0.7", 10250)),
        ([("InternalIP", "nonsense"), ("InternalIP", "10.0.0.8")], None, ("10.0.0.8", 10250)),
        ([("InternalIP", "10.0.0.7")], 70000, None),
        ([("InternalIP", "10.0.0.7")], -1, None),
        ([("Hostname", "node-a")], None, None),
        ([], None, None),
        ([("InternalIP", "127.0.0.1")], None, None),
        ([("InternalIP", "::1")], None, None),
        ([("InternalIP", "169.254.169.254")], None, None),
        ([("InternalIP", "fe80::1")], None, None),
        ([("InternalIP", "0.0.0.0")], None, None),
        ([("InternalIP", "224.0.0.1")], None, None),
        ([("InternalIP", "::ffff:127.0.0.1")], None, None),
        ([("InternalIP", "::ffff:169.254.169.254")], None, None),
        ([("InternalIP", "::ffff:10.0.0.7")], None, ("10.0.0.7", 10250)),
    ],
)
def test_a_kubelet_is_at_the_internal_address_of_its_node(
    addresses: list[tuple[str, str]], port: int | None, expected: tuple[str, int] | None
) -> None:
    found = endpoint_of(node(*addresses, port=port))
    assert found == (None if expected is None else Endpoint("node-a", *expected))


def test_a_status_without_addresses_gives_none() -> None:
    raw = msgspec.Raw(b'{"metadata": {"name": "node-a"}, "status": {"addresses": null, "daemonEndpoints": null}}')
    assert endpoint_of(decode_node(raw)) is None


# ---- whom it is believed to be -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["node-a"], ["NODE-A"], ["other", "10.0.0.1", "127.0.0.1"]])
def test_a_certificate_for_the_address_or_the_name_is_believed(authority: Authority, hosts: list[str]) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", *hosts)) as fake:
        assert decode_summary(ask(fake, trust(authority))).node == "node-a"


def test_the_token_is_sent(authority: Authority) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), token="abc") as fake:
        ask(fake, trust(authority), Identity("Bearer abc"))
        assert why(fake, trust(authority)) == "unauthorized"


@pytest.mark.parametrize(
    "hosts", [[], ["node-b"], ["127.0.0.2"], ["node-a.example.com"], ["*.example.com"]], ids=lambda hosts: str(hosts)
)
def test_a_certificate_for_another_node_is_refused_before_anything_is_sent(
    authority: Authority, hosts: list[str]
) -> None:
    with FakeKubelet("node-a", authority.issue("node-a", *hosts, file_name="kubelet")) as fake:
        assert why(fake, trust(authority), Identity("Bearer abc")) == "certificate"
        assert fake.heads == []


def test_a_self_signed_certificate_is_refused_unless_the_setting_says_otherwise(
    authority: Authority, tmp_path: Path
) -> None:
    (folder := tmp_path / "own").mkdir()
    own = Authority(folder, "node-a-ca@1764439200")
    with FakeKubelet("node-a", own.issue("node-a", "node-a")) as fake:
        assert why(fake, trust(authority), Identity("Bearer abc")) == "certificate"
        assert fake.heads == []
        assert decode_summary(ask(fake, trust(authority, insecure=True))).node == "node-a"
        assert decode_summary(ask(fake, trust(authority, file=own.certificate))).node == "node-a"


def test_a_certificate_out_of_date_is_refused(authority: Authority) -> None:
    ended = authority.issue("kubelet", "node-a", begins=-dt.timedelta(days=2), ends=-dt.timedelta(days=1))
    with FakeKubelet("node-a", ended) as fake:
        assert why(fake, trust(authority)) == "certificate"
        fake.rotate(authority.issue("kubelet", "node-a", file_name="next"))
        assert decode_summary(ask(fake, trust(authority))).node == "node-a"


def test_a_rotated_authority_is_read_again(authority: Authority, tmp_path: Path) -> None:
    (folder := tmp_path / "next").mkdir()
    following = Authority(folder, "kubelet-ca")
    file, now = tmp_path / "kubelets.crt", [0.0]
    file.write_bytes(authority.certificate.read_bytes())
    believed = trust(authority, file=file, timer=lambda: now[0])
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        ask(fake, believed)
        before = believed.context(NOBODY)
        fake.rotate(following.issue("kubelet", "node-a"))
        assert why(fake, believed) == "certificate"
        file.write_bytes(following.certificate.read_bytes())
        now[0] += kubelets.AUTHORITIES_CACHE_S
        ask(fake, believed)
        assert believed.context(NOBODY) is not before
        file.unlink()
        now[0] += kubelets.AUTHORITIES_CACHE_S
        ask(fake, believed)  # the last ones stay believed


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_authorities_believes_nobody(
    authority: Authority, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "kubelets.crt"
    if content is not None:
        file.write_bytes(content)
    believed = trust(authority, file=file)
    with pytest.raises(CertificateError, match="kubelet_ca_file"):
        believed.context(NOBODY)
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        assert why(fake, believed) == "authorities"
        assert fake.opened == 0


def test_the_context_is_made_once(authority: Authority) -> None:
    believed = trust(authority)
    assert believed.context(NOBODY) is believed.context(Identity("Bearer abc"))


def test_ipv6_names_of_certificates_compare_as_addresses() -> None:
    certificate = {"subjectAltName": (("IP Address", "FD00:0:0:0:0:0:0:7"), ("URI", "x"), ("IP Address", "bad"))}
    assert is_for(certificate, Endpoint("node-a", "fd00::7", 1))
    assert not is_for(certificate, Endpoint("node-a", "fd00::8", 1))
    assert not is_for(None, Endpoint("node-a", "fd00::8", 1))


# ---- its answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "unauthorized"), (403, "forbidden"), (404, "missing"), (500, "status"), (503, "status"), (302, "status")],
)
def test_a_refusal_is_told_by_its_kind(authority: Authority, status: int, reason: str) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), status=status) as fake:
        assert why(fake, trust(authority)) == reason
        assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "lost", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", "protocol", id="another protocol"),
        pytest.param(head(200, "Content-Length: 100") + b"{}", "truncated", id="short of its length"),
        pytest.param(head(200, "Transfer-Encoding: chunked") + b"5\r\nab", "truncated", id="inside a chunk"),
        pytest.param(head(200, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n", "truncated", id="without a last chunk"),
        pytest.param(head(200, "Transfer-Encoding: chunked") + b"zz\r\n", "protocol", id="a chunk without a size"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", "truncated", id="inside the head"),
        pytest.param(head(200) + b"{}", "truncated", id="without a length"),
    ],
)
def test_a_broken_answer_is_told_by_its_kind(authority: Authority, raw: bytes, reason: str) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), raw=raw) as fake:
        assert why(fake, trust(authority)) == reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(head(101, "Connection: Upgrade", "Upgrade: h2c"), "status", id="upgrades"),
        pytest.param(head(101, "Connection: Upgrade", "Upgrade: h2c") + b"\x00\x01", "status", id="and goes on"),
        pytest.param(head(101), "status", id="upgrades to nothing"),
        pytest.param(head(200, "Content-Length: 2") + b"{}\x00", None, id="more than an answer"),
        pytest.param(2 * (head(200, "Content-Length: 2") + b"{}"), None, id="two answers"),
        pytest.param(head(200, "Content-Length: 2", "Connection: close") + b"{}", None, id="says that it closes"),
        pytest.param(head(200, "Content-Length: 2").replace(b"/1.1", b"/1.0") + b"{}", None, id="HTTP/1.0"),
    ],
)
def test_a_connection_on_which_something_else_may_follow_is_not_used_again(
    authority: Authority, raw: bytes, reason: str | None
) -> None:
    async def there(connection: Connection, endpoint: Endpoint) -> str | None:
        try:
            assert await connection.ask(endpoint, NOBODY) == b"{}"
        except KubeletError as error:
            return error.reason
        finally:
            assert not connection.usable(believed, NOBODY)
        return None

    believed = trust(authority)
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), raw=raw) as fake:
        assert connected(fake, believed, there) == reason


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda size: head(200, f"Content-Length: {size}") + b" " * size, id="body"),
        pytest.param(lambda size: head(200, "Transfer-Encoding: chunked") + chunked(b" " * size), id="chunks"),
        pytest.param(lambda size: head(200, "X: " + "x" * size), id="head"),
    ],
)
def test_an_endless_answer_is_cut_off(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, make: Callable[[int], bytes]
) -> None:
    monkeypatch.setattr(connections, "LARGEST_ANSWER", 200_000)
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), raw=make(3_000_000)) as fake:
        assert why(fake, trust(authority)) in ("too_large", "protocol")


def test_one_that_is_not_there_is_not_reached(authority: Authority) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        pass
    assert why(fake, trust(authority)) == "connect"


def test_one_that_does_not_shake_hands_is_given_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT", 0.2)

    async def there(port: int) -> str:
        with pytest.raises(KubeletError) as raised:
            await Connection.open(Endpoint("node-a", "127.0.0.1", port), trust(authority), NOBODY)
        return raised.value.reason

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert run(there(silent.getsockname()[1])) == "timeout"
        assert time.monotonic() - began < 3.0


def connected(fake: FakeKubelet, believed: Trust, work: Callable[[Connection, Endpoint], Awaitable[T]]) -> T:
    """What comes of work on one connection."""

    async def there() -> T:
        endpoint = Endpoint(fake.node, fake.host, fake.port)
        connection = await Connection.open(endpoint, believed, NOBODY)
        try:
            async with asyncio.timeout(5):
                return await work(connection, endpoint)
        finally:
            connection.close()

    return run(there())


def test_a_connection_serves_more_than_one_question_until_it_is_closed(authority: Authority) -> None:
    async def there(connection: Connection, endpoint: Endpoint) -> None:
        for _ in range(3):
            await connection.ask(endpoint, NOBODY)
            assert connection.usable(believed, NOBODY)
        fake.drop()
        await asyncio.sleep(0.1)
        assert not connection.usable(believed, NOBODY)
        with pytest.raises(KubeletError, match="lost") as raised:
            await connection.ask(endpoint, NOBODY)
        assert raised.value.reason == "lost"

    believed = trust(authority)
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        connected(fake, believed, there)
        assert fake.opened == 1


def test_a_connection_of_another_trust_is_not_used_again(authority: Authority, tmp_path: Path) -> None:
    file, now = tmp_path / "kubelets.crt", [0.0]
    file.write_bytes(authority.certificate.read_bytes())
    believed = trust(authority, file=file, timer=lambda: now[0])

    async def there(connection: Connection, endpoint: Endpoint) -> None:
        await connection.ask(endpoint, NOBODY)
        assert connection.usable(believed, Identity("Bearer another"))
        pair = authority.issue("client")
        shown = Identity(None, pair.certificate.read_bytes(), pair.key.read_bytes())
        assert not connection.usable(believed, shown), "the kubelet would not see the new client certificate"
        file.write_bytes(b"no certificate")
        now[0] += kubelets.AUTHORITIES_CACHE_S
        assert not connection.usable(believed, NOBODY)

    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        connected(fake, believed, there)


def test_an_old_connection_is_not_used_again(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    believed = trust(authority)

    async def there(connection: Connection, endpoint: Endpoint) -> None:
        await connection.ask(endpoint, NOBODY)
        monkeypatch.setattr(connections, "CONNECTION_LIFE_S", 0.0)
        assert not connection.usable(believed, NOBODY)

    with FakeKubelet("node-a", authority.issue("kubelet", "node-a")) as fake:
        connected(fake, believed, there)


@pytest.mark.parametrize("size", [1, 17, 16_384, 200_000])
def test_a_body_comes_whole_however_it_is_cut(authority: Authority, size: int) -> None:
    body = bytes(range(256)) * 1000
    for raw in (
        head(200, f"Content-Length: {len(body)}") + body,
        head(200, "Transfer-Encoding: chunked") + chunked(body, size),
    ):
        with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), raw=raw) as fake:
            assert ask(fake, trust(authority)) == body


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_kubelet_may_have_an_ipv6_address(authority: Authority) -> None:
    with FakeKubelet("node-a", authority.issue("kubelet", "::1"), host="::1") as fake:
        assert decode_summary(ask(fake, trust(authority))).node == "node-a"
        assert f"\r\nHost: [::1]:{fake.port}\r\n" in fake.heads[0]


def test_giving_a_question_up_leaves_nothing_open(authority: Authority) -> None:
    async def there(connection: Connection, endpoint: Endpoint) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.ask(endpoint, NOBODY)
        assert not connection.usable(believed, NOBODY)

    believed = trust(authority)
    with FakeKubelet("node-a", authority.issue("kubelet", "node-a"), silent=True) as fake:
        connected(fake, believed, there)
        asyncio.run(asyncio.sleep(0.1))
        assert fake.open_now <= 1  # its own end
