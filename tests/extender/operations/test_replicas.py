"""Whichever replica is asked answers for all; who does not answer, or answers badly, is named and spoils nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from extender.cli import app
from extender.operations import peers
from extender.operations.peers import LARGEST_ANSWER, MOST, Heard, Peers
from extender.operations.search import Search, merged
from extender.settings import Settings
from tests.control_plane.certificates import Authority
from tests.extender.operations.test_guard import READER, Reviewing
from tests.extender.service import Service, by_names, pod
from tests.extender.test_unasked import show

Run = Callable[..., Service]
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
PATIENT_S = 60.0
FOREIGN = '"><img src=x onerror=alert(1)>'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for peers that do answer: the machine may be busy."""
    monkeypatch.setattr(peers, "LIMIT_S", PATIENT_S)


@pytest.fixture
def port() -> int:
    """A port that is free at every address of `HOSTS`."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def replica(run_service: Run, port: int, host: str, hosts: list[str] = HOSTS, **settings: Any) -> Service:
    """One of the replicas at these hosts, with three nodes."""
    service = run_service(
        scorer="kube-default", operations_port=port, operations_host=host, peers=",".join(hosts), **settings
    )
    service.add_nodes(3)
    return service


def decide(service: Service, name: str) -> None:
    assert service.post("prioritize", by_names([f"node-{i}" for i in range(3)], pod(name))).status_code == 200


def explained(service: Service, name: str, **query: Any) -> dict[str, Any]:
    answer = service.operations.get(f"/v1/decisions/uid-{name}", params=query, timeout=PATIENT_S)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def listed(service: Service, **query: Any) -> dict[str, Any]:
    answer = service.operations.get("/v1/decisions", params=query, timeout=PATIENT_S)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class Peer:
    """Something at a replica's address that answers as a function says, and notes what it is asked."""

    def __init__(self, host: str, port: int, answer: Callable[[str], bytes | None]) -> None:
        self.asked: list[str] = []
        peer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                request = self.request.recv(65536).decode()
                peer.asked.append(request.split(" ")[1])
                told = answer(peer.asked[-1])
                if told is None:
                    peer.ended.wait()  # never answers
                else:
                    self.request.sendall(told)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that has heard enough closes its connection."""

        self.ended = threading.Event()
        self.server = Server((host, port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def peer(host: str, port: int, answer: Callable[[str], bytes | None]) -> Iterator[Peer]:
    made = Peer(host, port, answer)
    try:
        yield made
    finally:
        made.close()


def ok(body: bytes | str | dict[str, Any]) -> bytes:
    """An answer of 200."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)


def test_whichever_replica_is_asked_explains_every_decision(run_service: Run, port: int, tmp_path: Path) -> None:
    services = [replica(run_service, port, host) for host in HOSTS]
    for number, service in enumerate(services):
        decide(service, f"p{number}")
    for asked in services:
        for number, owner in enumerate(services):
            own = explained(owner, f"p{number}", why_not="node-2", ranking=1)
            told = explained(asked, f"p{number}", why_not="node-2", ranking=1)
            if asked is owner:
                assert "replica" not in told
            else:
                assert (told.pop("replica"), told.pop("silent")) == (HOSTS[number], {})
            assert told == own
    asked = services[0]
    case = asked.operations.get("/v1/decisions/uid-p2/case", timeout=PATIENT_S).json()
    assert case == services[2].operations.get("/v1/decisions/uid-p2/case").json()
    page = asked.operations.get("/dashboard/decisions/uid-p2", params={"node": "node-2"}, timeout=PATIENT_S)
    assert page.status_code == 200
    assert "This is what the replica 127.0.0.3 remembers." in page.text
    assert page.text.count("?node=node-") == 3, "every node, ranked"
    url, file = asked.background.operations_url, tmp_path / "case.json"
    by_name = CliRunner().invoke(app, ["explain", "p2", "--url", url])
    assert (by_name.exit_code, "Pod default/p2 asks for" in by_name.output) == (0, True), by_name.output
    assert CliRunner().invoke(app, ["explain", "p2", "--url", url, "--export", str(file)]).exit_code == 0
    assert json.loads(file.read_text())["names"] == case["names"]


def test_decisions_of_all_replicas_are_listed_newest_first_page_by_page(run_service: Run, port: int) -> None:
    services = [replica(run_service, port, host) for host in HOSTS]
    names = [f"p{number}" for number in range(11)]
    for number, name in enumerate(names):
        decide(services[(number // 2) % 3], name)
    for limit in (1, 3, 4, 100):
        found: list[dict[str, Any]] = []
        before = ""
        while before is not None:
            told = listed(services[len(found) % 3], limit=limit, before=before)
            assert (sorted(told["replicas"]), told["silent"]) == (HOSTS, {})
            found += told["decisions"]
            before = told["next"]
        assert [each["pod"]["name"] for each in found] == names[::-1]
        assert [each["replica"] for each in found[::-1]] == [HOSTS[(number // 2) % 3] for number in range(11)]
        assert "place" not in found[0]
    assert [it["pod"]["name"] for it in listed(services[1], search="p7 default")["decisions"]] == ["p7"]
    own = listed(services[1], replicas="this")
    assert [it["pod"]["name"] for it in own["decisions"]] == ["p9", "p8", "p3", "p2"]
    page = services[1].operations.get("/dashboard/decisions", timeout=PATIENT_S).text
    assert "Decisions of 3 replicas" in page
    assert [page.count(f"<td>{host}</td>") for host in HOSTS] == [4, 4, 3]


def test_a_replica_that_is_killed_or_hangs_is_named_in_time(
    run_service: Run, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, other = (replica(run_service, port, host, [*HOSTS, "127.0.0.4"]) for host in ("127.0.0.1", "127.0.0.4"))
    decide(service, "own")
    decide(other, "of-another")
    with peer("127.0.0.2", port, lambda _: None):
        assert explained(service, "own")["pod"]["name"] == "own", "what it remembers itself needs nobody"
        monkeypatch.setattr(peers, "LIMIT_S", 3.0)
        began = time.monotonic()
        told, found = listed(service), explained(service, "of-another")
        missing = service.operations.get("/v1/decisions/nobody", timeout=PATIENT_S)
        page = service.operations.get("/dashboard/decisions", timeout=PATIENT_S).text
        lost = service.operations.get("/dashboard/decisions/nobody", timeout=PATIENT_S)
        assert time.monotonic() - began < 5 * 3.0 + 5.0
        said = CliRunner().invoke(app, ["explain", "nobody", "--url", service.background.operations_url])
    silent = {"127.0.0.2": "no answer within 3 s", "127.0.0.3": "Connection refused"}
    assert [each["pod"]["name"] for each in told["decisions"]] == ["of-another", "own"]
    assert told["silent"] == found["silent"] == silent
    for text in (missing.json()["detail"], page, lost.text, said.output):
        assert all(f"{who} ({why})" in " ".join(text.split()) for who, why in silent.items()), text
    assert (missing.status_code, lost.status_code, said.exit_code) == (404, 404, 1)


def test_a_question_of_a_peer_is_not_passed_on(run_service: Run, port: int) -> None:
    service = replica(run_service, port, "127.0.0.1", HOSTS[:2])
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with peer("127.0.0.2", port, lambda _: missing) as other:
        paths = ["decisions", "decisions/nobody", "decisions/nobody/case"]
        for path in paths:
            service.operations.get(f"/v1/{path}", params={"replicas": "this"}, timeout=PATIENT_S)
        assert other.asked == []
        for path in paths:
            service.operations.get(f"/v1/{path}", timeout=PATIENT_S)
        assert len(other.asked) == 3
        assert all("?replicas=this&" in path or path.endswith("?replicas=this") for path in other.asked)


def _changed(document: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**document, **values}


HOSTILE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "nothing": lambda _: b"",
    "no HTTP": lambda _: b"\x00\xff" * 64,
    "an upgrade": lambda _: b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nabc",
    "a redirect": lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
    "an error": lambda _: b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "cut off": lambda good: ok(good)[:-10],
    "too large": lambda _: ok(b'"%b"' % (b"x" * LARGEST_ANSWER)),
    "no JSON": lambda _: ok("<html>"),
    "no UTF-8": lambda _: ok(b'{"scorer": "\xff"}'),
    "deep": lambda _: ok(b'{"top":' * 100_000),
    "a list": lambda _: ok("[]"),
    "empty": lambda _: ok("{}"),
    "a date that is none": lambda good: ok(_changed(good, at=1e300)),
    "a number that is none": lambda good: ok(_changed(good, candidates=10**400)),
    "a half surrogate": lambda good: ok(_changed(good, scorer="\ud800")),
    "a choice of no node": lambda good: ok(_changed(good, nodes=[])),
    "nodes that differ": lambda good: ok(
        _changed(good, nodes=[{**good["nodes"][0], "features": {}}, *good["nodes"][1:]])
    ),
    "half an answer": lambda good: ok(_changed(good, why_not={"node": "node-2", "rank": 2, "why": None})),
}


@pytest.fixture
def tried(run_service: Run, port: int) -> tuple[Service, dict[str, Any], dict[str, Any]]:
    """A replica that remembers nothing, and what one at 127.0.0.3 tells that does."""
    service = replica(run_service, port, "127.0.0.1")
    other = replica(run_service, port, "127.0.0.3")
    decide(other, "web")
    return service, explained(other, "web", ranking=1, replicas="this"), listed(other, replicas="this")


def test_a_hostile_answer_spoils_nothing(
    tried: tuple[Service, dict[str, Any], dict[str, Any]], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, good, page = tried
    [row] = page["decisions"]
    for name, hostile in HOSTILE.items():

        def answer(path: str, hostile: Callable[[dict[str, Any]], bytes] = hostile) -> bytes:
            if "/case" in path:
                return hostile({"decision": {"at": "x"}, "nodes": [{}]})
            if "/uid-web" in path:
                return hostile(good)
            whole = hostile({**row, "nodes": [{}]})
            head, _, body = whole.partition(b"\r\n\r\n")
            if b" 200 " not in head or not body.startswith(b"{") or len(body) < 100 or len(body) > 5000:
                return whole
            return ok(b'{"decisions":[%b],"next":null}' % body)

        with peer("127.0.0.2", port, answer) as bad:
            told = explained(service, "web", ranking=1)
            shown = service.operations.get("/dashboard/decisions/uid-web", timeout=PATIENT_S)
            case = service.operations.get("/v1/decisions/uid-web/case", timeout=PATIENT_S)
            every = listed(service)
            table = service.operations.get("/dashboard/decisions", timeout=PATIENT_S)
            assert len(bad.asked) == 5, name
        assert told["replica"] == "127.0.0.3", name
        assert list(told["silent"]) == ["127.0.0.2"], name
        assert (shown.status_code, case.status_code, table.status_code) == (200, 200, 200), name
        of_good = [each for each in every["decisions"] if each["replica"] == "127.0.0.3"]
        assert [each["pod"]["name"] for each in of_good] == ["web"], name


def test_what_a_peer_says_is_escaped(tried: tuple[Service, dict[str, Any], dict[str, Any]], port: int) -> None:
    service, good, page = tried
    [row] = page["decisions"]
    later = {"at": good["at"] + 1.0, "scorer": FOREIGN, "state": FOREIGN, "assumed": FOREIGN}
    later |= {"pod": {"uid": FOREIGN, "namespace": FOREIGN, "name": FOREIGN}}
    nodes = [
        {**node, "node": FOREIGN, **{key: {FOREIGN: 1.0} for key in ("features", "criteria", "bids", "contributions")}}
        for node in good["nodes"]
    ]
    ranking = {**good["ranking"], "rows": [{**each, "node": FOREIGN} for each in good["ranking"]["rows"]]}
    forged = good | later | {"nodes": nodes, "ranking": ranking, "kube_default_choice": [FOREIGN]}
    body = {"decisions": [row | later], "next": None}
    with peer("127.0.0.2", port, lambda path: ok(forged if "/uid-web" in path else body)):
        for path in ("decisions/uid-web", "decisions"):
            answer = service.operations.get(f"/dashboard/{path}", timeout=PATIENT_S)
            assert answer.status_code == 200, answer.text
            assert "&lt;img src=x" in answer.text
            assert "<img" not in answer.text


def test_peers_over_tls_are_verified(
    run_service: Run, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, another = Authority(tmp_path, "authority"), Authority(tmp_path, "another")
    pairs = {
        "127.0.0.1": authority.issue("first", "extender.ns.svc"),
        "127.0.0.2": authority.issue("renewed", "extender.ns.svc"),
        "127.0.0.3": authority.issue("somebody", "somebody.ns.svc"),
        "127.0.0.4": another.issue("impostor", "extender.ns.svc"),
    }
    services = {}
    for host, pair in pairs.items():
        more = {"tls_client_ca_file": authority.certificate} if host == "127.0.0.1" else {}
        service = services[host] = replica(
            run_service,
            port,
            host,
            list(pairs),
            tls_cert_file=pair.certificate,
            tls_key_file=pair.key,
            operations_tls=True,
            **more,
        )
        service.verify = False  # the test looks at answers
        service.__post_init__()
    asked = services["127.0.0.1"]
    for host in ("127.0.0.2", "127.0.0.4"):
        decide(services[host], "web")
    told = explained(asked, "web")
    assert told["replica"] == "127.0.0.2"
    assert set(told["silent"]) == {"127.0.0.3", "127.0.0.4"}
    assert all(why.startswith("certificate verify failed") for why in told["silent"].values()), told["silent"]
    found = asked.background.app.peers
    assert found is not None
    found.identity = None
    monkeypatch.setattr(peers, "LIMIT_S", 3.0)
    answer = asked.operations.get("/v1/decisions/uid-web", timeout=PATIENT_S)
    assert answer.status_code == 404, "over plain HTTP nobody answers"


@pytest.mark.parametrize("own", ["token-of-the-replicas", None])
def test_guarded_replicas_show_each_other_their_own_token(
    run_service: Run, port: int, tmp_path: Path, own: str | None
) -> None:
    pair = Authority(tmp_path, "authority").issue("extender", "extender.ns.svc")
    services, sources = list[Service](), list[Reviewing]()
    for host in HOSTS[:2]:
        sources.append(Reviewing())
        sources[-1].own = own
        service = replica(
            run_service, port, host, HOSTS[:2], source=sources[-1], operations_bearer=True,
            operations_users=("readers",), operations_tls=True, tls_cert_file=pair.certificate, tls_key_file=pair.key,
        )  # fmt: skip
        service.verify = False
        service.__post_init__()
        service.operations.headers["Authorization"] = f"Bearer {READER}"
        services.append(service)
    decide(services[1], "web")
    answer = services[0].operations.get("/v1/decisions/uid-web", timeout=PATIENT_S)
    if own is None:
        assert (answer.status_code, "127.0.0.2 (it answered 401)" in answer.text) == (404, True)
    else:
        assert answer.json()["replica"] == "127.0.0.2"
        assert sources[1].asked == [own], "the reader's token goes no further"


def test_one_replica_answers_as_ever(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    service.add_nodes(3)
    for name in ("a", "b"):
        decide(service, name)
    told = listed(service, limit=1)
    assert set(told) == {"counts", "decisions", "next"}
    assert isinstance(told["next"], int)
    assert not {"place", "replica"} & set(told["decisions"][0])
    assert service.background.app.peers is None
    assert "Replica" not in service.operations.get("/dashboard/decisions").text


def test_peers_need_names_and_the_port_at_which_they_answer() -> None:
    for free in (None, 0):
        with pytest.raises(ValueError, match="peers needs operations_port"):
            Settings(peers="extender-peers", operations_port=free)
    with pytest.raises(ValueError, match="is no address"):
        Settings(peers="http://extender", operations_port=8889)


def ask(found: Peers) -> tuple[Heard[bytes], float]:
    """What comes of a question, and how long it takes."""

    async def asked() -> Heard[bytes]:
        return await found.ask(lambda _: "/", bytes)

    began = time.monotonic()
    return asyncio.run(asked()), time.monotonic() - began


def test_names_that_lead_nowhere_are_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LIMIT_S", 1.0)
    release = threading.Event()

    def resolve(host: str) -> list[str]:
        if host == "slow":
            release.wait()
        raise socket.gaierror(socket.EAI_NONAME, "secret")

    heard, _ = ask(Peers(["missing"], port, ["0.0.0.0"], resolve))
    assert heard == Heard(silent={"missing": "gaierror: unknown host name"})
    heard, took = ask(Peers(["slow"], port, ["0.0.0.0"], resolve))
    release.set()
    assert heard == Heard(silent={"slow": "its name was not resolved in time"})
    assert took < 10.0


def test_it_does_not_ask_itself_nor_too_many(port: int) -> None:
    many = [f"127.0.1.{number}" for number in range(MOST + 3)]
    heard, _ = ask(Peers(["all"], port, ["0.0.0.0", "::"], lambda _: ["127.0.0.1", *many]))
    assert heard.own == "127.0.0.1", "an address of this machine, where it listens on all"
    assert sum(why.startswith("not asked") for why in heard.silent.values()) == 3
    assert set(heard.silent) == set(many)
    heard, _ = ask(Peers(["all"], port, ["127.0.0.2"], lambda _: ["127.0.0.2"]))
    assert heard == Heard("127.0.0.2")


def test_questions_wait_for_one_another_no_longer_than_their_limit(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LIMIT_S", 1.0)
    found = Peers(["127.0.0.2"], port, ["127.0.0.1"])

    async def asked() -> list[Heard[bytes]]:
        return await asyncio.gather(*(found.ask(lambda _: "/", bytes) for _ in range(6)))

    with peer("127.0.0.2", port, lambda _: None) as hung:
        told = asyncio.run(asked())
    assert all(list(each.silent) == ["127.0.0.2"] for each in told)
    assert len(hung.asked) <= 4, "two at a time, and those that waited gave up"


def test_a_replica_that_was_asked_goes_before_one_that_saw_the_pod_bound(run_service: Run, port: int) -> None:
    asked, follower = (replica(run_service, port, host, HOSTS[:2]) for host in HOSTS[:2])
    decide(asked, "web")
    show(follower, "web")
    show(follower, "web", "node-1")
    assert explained(follower, "web", replicas="this")["verb"] == "watch"
    for service in (asked, follower):
        told = explained(service, "web")
        assert (told["verb"], told["candidates"]) == ("prioritize", 3)
        [one] = listed(service)["decisions"]
        assert (one["verb"], one["replica"]) == ("prioritize", HOSTS[0])
        case = service.operations.get("/v1/decisions/uid-web/case", timeout=PATIENT_S).json()
        assert len(case["names"]) == 3
        assert "Every node, ranked" in service.operations.get("/dashboard/decisions/uid-web", timeout=PATIENT_S).text


def row(at: float, place: int, verb: str = "prioritize", uid: str = "") -> dict[str, Any]:
    return {"at": at, "place": place, "verb": verb, "pod": {"uid": uid or str(at)}}


def test_a_replica_that_stays_silent_ends_no_list_and_is_no_reason_to_go_on() -> None:
    first, cursor = merged({"a": ([row(3.0, 7), row(1.0, 5)], None), "b": ([row(2.0, 9)], 9)}, Search(2))
    assert [(each["at"], each["replica"]) for each in first] == [(3.0, "a"), (2.0, "b")]
    assert cursor == "a=7,b=9"
    following = Search(2, cursor)
    assert (following.path("c"), following.before_of("a")) == (None, 7)
    rest, end = merged({"a": ([row(1.0, 5)], None)}, following)
    assert ([each["at"] for each in rest], end) == ([1.0], None), "b did not answer"
    assert Search(2, "a=0,b=9").path("a") == "", "it has no more"
