"""Who may read the operations endpoints: whom a proxy names, and who shows a token that the API server accepts."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from extender.cluster.source import Reviewed
from extender.errors import SourceError
from extender.operations import guard as guards
from extender.operations.guard import KNOWN_S, MOST_ASKED, MOST_KEPT, UNKNOWN_S, Guard
from extender.settings import Settings
from tests.control_plane.certificates import Authority
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]
READER, OTHER, EXPIRED = "token-of-a-reader", "token-of-another", "token-that-expired"
TLS = {"tls_cert_file": "c", "tls_key_file": "k"}
BEARER = {"operations_bearer": True, "operations_users": ["readers"], **TLS}
PROXY = {"operations_user_header": "X-Forwarded-User", "operations_proxies": ["10.1.0.0/16", "fd00::7"]}


class Reviewing(EmbeddedSource):
    """A source whose API server knows two tokens, and is away or slow where wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = False
        self.slow = threading.Event()
        self.slow.set()
        self.own: str | None = None

    def review(self, token: str) -> Reviewed:
        self.asked.append(token)
        self.slow.wait(30.0)
        if self.away:
            raise SourceError("cannot reach the API server")
        known = {READER: frozenset({"ann", "readers"}), OTHER: frozenset({"bob", "writers"})}
        if self.own is not None and token == self.own:
            return Reviewed(frozenset({"system:serviceaccount:maddpg:extender"}), own=True)
        return Reviewed(known.get(token, frozenset()))

    def authorization(self) -> str | None:
        return None if self.own is None else f"Bearer {self.own}"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def judged(guard: Guard, token: str | None = None, address: str = "10.9.9.9", **headers: str) -> str:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    given += [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return asyncio.run(guard.judged(address, given))


# ---- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_counts_if_the_api_server_knows_it_and_its_user_is_named() -> None:
    source = Reviewing()
    guard = Guard(Settings(**BEARER), source)
    assert judged(guard, READER) == "admitted"
    assert judged(guard, OTHER) == "forbidden"
    assert judged(guard, EXPIRED) == "unauthenticated"
    assert judged(guard) == "unauthenticated"
    assert judged(guard, authorization=f"Basic {READER}") == "unauthenticated"
    assert judged(guard, authorization="Bearer ") == "unauthenticated"
    assert judged(guard, READER, authorization=f"Bearer {OTHER}") == "unauthenticated", "two say nothing"
    assert judged(guard, "x" * 20000) == "unauthenticated"
    assert source.asked == [READER, OTHER, EXPIRED], "nothing else is worth a question"


def test_what_the_api_server_said_counts_for_a_while_and_no_longer() -> None:
    source, clock = Reviewing(), Clock()
    guard = Guard(Settings(**BEARER), source, clock)
    for _ in range(3):
        assert (judged(guard, READER), judged(guard, EXPIRED)) == ("admitted", "unauthenticated")
    assert len(source.asked) == 2
    clock.now += UNKNOWN_S + 1.0
    assert (judged(guard, READER), judged(guard, EXPIRED)) == ("admitted", "unauthenticated")
    assert source.asked[2:] == [EXPIRED]
    clock.now += KNOWN_S
    source.review = lambda token: Reviewed(frozenset())  # type: ignore[method-assign]
    assert judged(guard, READER) == "unauthenticated", "it was revoked"


def test_an_api_server_that_is_away_is_asked_again_soon_and_nobody_is_let_in() -> None:
    source, clock = Reviewing(), Clock()
    guard = Guard(Settings(**BEARER), source, clock)
    source.away = True
    assert [judged(guard, READER) for _ in range(5)] == ["unchecked"] * 5
    assert len(source.asked) == 1
    source.away = False
    clock.now += 2.0
    assert judged(guard, READER) == "admitted"
    assert judged(Guard(Settings(**BEARER), EmbeddedSource()), READER) == "unchecked", "no API server, nobody is let in"


def test_memory_and_questions_are_bounded_and_strangers_push_no_reader_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "PATIENCE_S", 0.05)
    source = Reviewing()
    guard = Guard(Settings(**BEARER), source)
    assert judged(guard, READER) == "admitted"

    async def flood(count: int) -> list[str]:
        ask = (guard.judged("", [(b"authorization", f"Bearer wrong-{i}".encode())]) for i in range(count))
        return [await each for each in ask]

    asyncio.run(flood(MOST_KEPT + 50))
    assert [len(kept) for kept in guard._kept.values()] == [1, MOST_KEPT]
    assert judged(guard, READER) == "admitted"
    source.slow.clear()
    source.asked.clear()

    async def together() -> list[str]:
        headers = [[(b"authorization", f"Bearer slow-{i % 8}".encode())] for i in range(40)]
        found = await asyncio.gather(*(guard.judged("", each) for each in headers))
        source.slow.set()
        await asyncio.sleep(0.1)
        return found

    assert asyncio.run(together()) == ["unchecked"] * 40
    assert len(source.asked) == MOST_ASKED, "each token once, and so many at a time"


def test_no_token_is_kept_as_it_came() -> None:
    guard = Guard(Settings(**BEARER), Reviewing())
    judged(guard, READER)
    other = Guard(Settings(**BEARER), Reviewing())
    judged(other, READER)
    assert READER not in repr(vars(guard))
    assert guard._kept[True].keys().isdisjoint(other._kept[True]), "a key of each process"


# ---- a proxy's header --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "result"),
    [
        ("10.1.2.3", "admitted"),
        ("::ffff:10.1.2.3", "admitted"),
        ("fd00::7", "admitted"),
        ("fd00::7%eth0", "admitted"),
        ("10.2.2.3", "unauthenticated"),
        ("fd00::8", "unauthenticated"),
        ("127.0.0.1", "unauthenticated"),
        ("", "unauthenticated"),
        ("10.1.2.3.evil", "unauthenticated"),
    ],
)
def test_the_header_counts_from_a_proxy_alone(address: str, result: str) -> None:
    guard = Guard(Settings(**PROXY), EmbeddedSource())
    assert judged(guard, address=address, x_forwarded_user="ann") == result


def test_a_header_that_says_nothing_or_two_things_does_not_count() -> None:
    guard = Guard(Settings(**PROXY), EmbeddedSource())
    assert judged(guard, address="10.1.2.3") == "unauthenticated"
    assert judged(guard, address="10.1.2.3", x_forwarded_user="  ") == "unauthenticated"
    twice = [(b"x-forwarded-user", b"ann"), (b"x-forwarded-user", b"mallory")]
    assert asyncio.run(guard.judged("10.1.2.3", twice)) == "unauthenticated"
    assert judged(guard, READER, address="10.1.2.3") == "unauthenticated", "tokens count only where they are asked for"


# ---- over HTTP ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("extender", "127.0.0.1")
    settings = {"operations_tls": True, "tls_cert_file": pair.certificate, "tls_key_file": pair.key}
    return settings, ssl.create_default_context(cafile=authority.certificate)


def guarded(
    run_service: Run, tls: tuple[dict[str, Any], ssl.SSLContext], source: Reviewing, **more: Any
) -> tuple[Service, httpx.Client]:
    settings = {**BEARER, **tls[0], "scorer": "kube-default", "operations_port": 0, **more}
    service = run_service(source=source, **settings)
    service.verify = tls[1]
    service.__post_init__()
    return service, service.operations


def test_all_but_probes_and_metrics_is_guarded_and_verbs_go_on(
    run_service: Run, tls: tuple[dict[str, Any], ssl.SSLContext], capfd: pytest.CaptureFixture[str]
) -> None:
    source = Reviewing()
    _, client = guarded(run_service, tls, source)
    reader = {"Authorization": f"Bearer {READER}"}
    pages = "/dashboard/", "/dashboard/events", "/dashboard/static/app.css"
    paths = (
        *pages,
        "/v1/report",
        "/v1/decisions",
        "/openapi.json",
        "/",
        "/nothing",
        "/healthz/",
        "/metrics/../v1/report",
    )
    for path in paths:
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        assert client.head(path).status_code == 401, path
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    assert client.get("/v1/report", headers=reader).status_code == 200
    assert client.get("/dashboard/", headers=reader).status_code == 200
    wrong = client.get("/v1/report", headers={"Authorization": f"Bearer {EXPIRED}"})
    other = client.get("/v1/report", headers={"Authorization": f"Bearer {OTHER}"})
    assert (wrong.status_code, other.status_code) == (401, 403)
    metrics = client.get("/metrics").text
    assert 'maddpg_operations_requests_total{result="forbidden"} 1.0' in metrics
    logged = "".join(capfd.readouterr())
    for token in (READER, OTHER, EXPIRED):
        assert token not in logged + wrong.text + other.text + metrics
        assert token not in client.get("/dashboard/settings", headers=reader).text


def test_an_api_server_that_is_slow_delays_no_verb_and_no_probe(
    run_service: Run, tls: tuple[dict[str, Any], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "PATIENCE_S", 1.0)
    source = Reviewing()
    service, client = guarded(run_service, tls, source)
    source.slow.clear()
    statuses = list[int]()

    def ask(number: int) -> None:
        header = {"Authorization": f"Bearer slow-{number}"}
        statuses.append(client.get("/v1/report", headers=header).status_code)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    assert client.get("/healthz").status_code == 200
    assert service.http.post("/prioritize", json=by_names(["a", "b"], pod("web"))).status_code == 200
    assert time.monotonic() - begun < 0.9, "before the API server answered"
    for thread in threads:
        thread.join()
    source.slow.set()
    assert statuses == [503] * 8


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**BEARER, "operations_users": []}, "name who may read"),
        ({"operations_users": ["ann"]}, "belong together"),
        ({"operations_bearer": True, "operations_users": ["ann"]}, "in the clear"),
        ({**BEARER, "operations_port": 8889}, "needs operations_tls"),
        ({"operations_proxies": ["10.0.0.1"]}, "belong together"),
        ({"operations_user_header": "X-User"}, "belong together"),
        ({**PROXY, "operations_proxies": ["10.0.0.0/8", "proxy.example"]}, "no address or network"),
        ({**PROXY, "peers": "extender-peers", "operations_port": 8889}, "peers needs operations_bearer"),
    ],
)
def test_settings_that_would_guard_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**settings)
    assert Guard.of(Settings(), EmbeddedSource()) is None, "off by default"
