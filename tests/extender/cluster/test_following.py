"""The whole source over a scripted API server: the table holds what the server holds, whatever happens between."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from extender.cluster.decoding import WatchedPod
from extender.cluster.lines import GATHER, gathered
from extender.cluster.machines import SpeedRules
from extender.cluster.resource import Timing
from extender.cluster.status import ReadReport
from policy.errors import InvalidInputError
from tests.extender.cluster.fake_api import NODES, PODS, Answer, FakeApi, status
from tests.extender.cluster.following import Following, eventually, node, pod
from tests.extender.tables import node_names, node_of

Follow = Callable[..., Following]


def fill(api: FakeApi, nodes: int = 3, pods: int = 10) -> None:
    for i in range(nodes):
        api.put(NODES, f"n{i}", node(f"n{i}"))
    for i in range(pods):
        api.put(PODS, f"p{i}", pod(f"p{i}", on=f"n{i % nodes}"))


def synced(follow: Follow, **how: object) -> Following:
    following = follow(**how)
    eventually(lambda: following.source.synced, "first list")
    return following


def tally(following: Following, resource: str, event: str) -> int:
    return following.source.counts()[resource, event]


def test_a_list_longer_than_a_page_arrives_whole(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, page=4)
    assert following.pods() == {f"p{i}": f"n{i % 3}" for i in range(10)}
    assert following.requested() == {"n0": (2.0, 4.0), "n1": (1.5, 3.0), "n2": (1.5, 3.0)}
    assert api.requests[f"list {PODS}"] == 3
    assert tally(following, "pods", "lists") == 1


def test_ready_only_when_both_nodes_and_pods_are_listed(api: FakeApi, follow: Follow) -> None:
    fill(api)
    api.answers[PODS] = lambda: (403, status(403, "Forbidden", 'pods is forbidden: User "x" cannot list'), {})
    following = follow()
    eventually(
        lambda: len(following.source.waiting_for()) == 1 and "403 Forbidden" in following.source.waiting_for()[0], ""
    )
    assert following.source.waiting_for()[0].startswith("pods: ")
    assert not following.source.synced
    del api.answers[PODS]
    eventually(lambda: following.source.synced, "recovery")
    assert following.source.waiting_for() == ()


def test_asks_for_bookmarks_and_for_ended_pods_too(api: FakeApi, follow: Follow) -> None:
    synced(follow)
    eventually(lambda: api.requests[f"watch {PODS}"] and api.requests[f"watch {NODES}"], "watches")
    for path, query in list(api.queries):
        assert "fieldSelector" not in query, f"how a pod ended would never be seen: {path}"
        assert query.get("watch") != "true" or query["allowWatchBookmarks"] == "true"


def test_pods_come_move_grow_and_go(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=2, pods=1)
    following = synced(follow)
    api.put(PODS, "new", pod("new", on="n1", cpu="1"))
    following.wait(lambda table: node_of(table, "new") == "n1", "pod added")
    api.put(PODS, "new", pod("new", on="n1", cpu="2"))
    following.wait(lambda table: following_cpu(table, "n1") == 2.0, "pod resized in place")
    api.delete(PODS, "new")
    following.wait(lambda table: node_of(table, "new") is None, "pod deleted")
    assert following.requested() == {"n0": (0.5, 1.0), "n1": (0.0, 0.0)}


def following_cpu(table: object, name: str) -> float:
    state = table.state  # type: ignore[attr-defined]
    return float(state.cpu_requested[table.rows_of([name])[0]])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("phase", "reason", "told"),
    [
        pytest.param("Succeeded", None, "succeeded", id="succeeded"),
        pytest.param("Failed", "Error", "failed", id="failed"),
        pytest.param("Failed", "Evicted", "evicted", id="evicted"),
    ],
)
def test_a_pod_that_ended_releases_its_requests(
    api: FakeApi, follow: Follow, phase: str, reason: str | None, told: str
) -> None:
    fill(api, nodes=1, pods=2)
    following = synced(follow)
    heard: list[tuple[str, str]] = []

    class Listener:
        def pod_bound(self, uid: str, node: str, at: float) -> None:
            heard.append((uid, "bound"))

        def pod_removed(self, uid: str, reason: str, at: float) -> None:
            heard.append((uid, reason))

        def pod_reported(self, uid: str, read: ReadReport) -> None:
            assert read().phase == phase

        def assumption_expired(self, uid: str, node: str, at: float) -> None:
            raise AssertionError("nothing was assumed")

    following.see(lambda table: table.listeners.subscribe(Listener()))
    api.put(PODS, "p0", pod("p0", on="n0", phase=phase, reason=reason))
    following.wait(lambda table: node_of(table, "p0") is None, "release")
    assert following.requested() == {"n0": (0.5, 1.0)}
    assert heard == [("p0", told)]


def test_a_pending_pod_holds_nothing_until_it_is_bound(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=1, pods=0)
    api.put(PODS, "p", pod("p"))
    following = synced(follow)
    assert following.pods() == {}
    api.put(PODS, "p", pod("p", on="n0"))
    following.wait(lambda table: node_of(table, "p") == "n0", "bound")


def test_a_pod_deleted_before_it_was_bound_ends_what_was_assumed_of_it(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=1, pods=0)
    api.put(PODS, "p", pod("p"))
    following = synced(follow)
    following.see(lambda table: table.assume("p", "n0", 0.5, 1.0))
    assert following.requested() == {"n0": (0.5, 1.0)}
    api.delete(PODS, "p")
    following.wait(lambda table: table.assumed_count == 0, "assumption ended")
    assert following.requested() == {"n0": (0.0, 0.0)}


def test_pods_shown_before_their_node_count_once_it_appears(api: FakeApi, follow: Follow) -> None:
    api.put(PODS, "early", pod("early", on="late"))
    following = synced(follow)
    assert following.requested() == {}
    api.put(NODES, "late", node("late"))
    following.wait(lambda table: table.node_count == 1, "node")
    assert following.requested() == {"late": (0.5, 1.0)}


def test_a_deleted_node_goes_its_pods_follow_and_a_namesake_starts_empty(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=2, pods=2)
    following = synced(follow)
    api.delete(NODES, "n1")
    following.wait(lambda table: table.node_count == 1, "node gone")
    api.delete(PODS, "p1")
    following.wait(lambda table: node_of(table, "p1") is None, "its pod collected")
    api.put(NODES, "n1", node("n1", cpu="8"))
    following.wait(lambda table: table.node_count == 2, "namesake")
    assert following.requested() == {"n0": (0.5, 1.0), "n1": (0.0, 0.0)}


def test_what_a_watch_shows_of_unknown_objects_is_taken_as_it_is(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=1, pods=0)
    following = synced(follow)
    gone = pod("never-seen", on="n0")
    gone["metadata"]["resourceVersion"] = "500"
    changed = pod("never-added", on="n0")
    changed["metadata"]["resourceVersion"] = "501"
    api.send(PODS, json.dumps({"type": "DELETED", "object": gone}).encode() + b"\n")
    api.send(PODS, json.dumps({"type": "MODIFIED", "object": changed}).encode() + b"\n")
    following.wait(lambda table: node_of(table, "never-added") == "n0", "MODIFIED without ADDED")
    assert following.pods() == {"never-added": "n0"}


# ---- what was missed ---------------------------------------------------------------------------------------------


def test_410_lists_again_and_removes_what_is_missing(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    api.delete(PODS, "p0", watched=False)
    api.delete(NODES, "n2", watched=False)
    api.put(PODS, "unrelated", pod("unrelated", on="n0"))
    api.compact()
    api.cut_watches()
    following.wait(lambda table: node_of(table, "p0") is None and table.node_count == 2, "removals")
    following.wait(lambda table: node_of(table, "unrelated") == "n0", "additions")
    assert tally(following, "pods", "expired") == 1
    assert tally(following, "pods", "lists") == 2


def test_410_as_an_http_status_lists_again(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    api.delete(PODS, "p0", watched=False)
    once: Iterator[Answer] = iter([(410, status(410, "Expired", "too old"), {})])
    api.answers[PODS] = lambda: next(once, None)
    api.cut_watches()
    following.wait(lambda table: node_of(table, "p0") is None, "removal")
    assert tally(following, "pods", "expired") == 1


def test_a_list_that_expires_between_pages_starts_again(api: FakeApi, follow: Follow) -> None:
    fill(api)
    asked = iter(range(1000))
    expired: Answer = (410, status(410, "Expired", "The provided continue parameter is too old"), {})
    api.answers[PODS] = lambda: expired if next(asked) == 1 else None
    following = synced(follow, page=4)
    assert len(following.pods()) == 10
    assert api.requests[f"list {PODS}"] == 2 + 3
    assert tally(following, "pods", "expired") == 1


def test_a_bookmark_saves_the_list(api: FakeApi, follow: Follow) -> None:
    """Without it the watch of pods would go on from a version that is compacted."""
    fill(api, nodes=1, pods=1)
    api.bookmark_at_end = False
    following = synced(follow, watch=60.0)
    eventually(lambda: api.requests[f"watch {PODS}"] == 1, "watch")
    api.put(NODES, "n0", node("n0", cpu="8"))
    fresh = following.source._work.pods  # type: ignore[union-attr]
    api.bookmark(PODS)
    api.bookmark(NODES)
    eventually(lambda: fresh._version == str(api.version), "bookmark read")
    api.compact()
    api.cut_watches()
    eventually(lambda: api.requests[f"watch {PODS}"] == 2, "watch from the bookmark")
    api.put(PODS, "more", pod("more", on="n0"))
    following.wait(lambda table: node_of(table, "more") == "n0", "watch goes on")
    assert tally(following, "pods", "lists") == 1
    assert tally(following, "pods", "expired") == 0


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"<html>502 Bad Gateway</html>\n", id="html"),
        pytest.param(b'{"type":"ADDED","object":{"metadata"\n', id="truncated"),
        pytest.param(b'{"type":"ADDED"}\n', id="no-object"),
        pytest.param(b"[]\n", id="array"),
        pytest.param(b'{"type":"\xff","object":{}}\n', id="not-utf8"),
        pytest.param(b"[" * 100_000 + b"\n", id="deeply-nested"),
        pytest.param(b'{"type":"REPLACED","object":{}}\n', id="unknown-type"),
        pytest.param(b'{"type":"BOOKMARK","object":{"metadata":{}}}\n', id="bookmark-without-version"),
        pytest.param(
            b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}\n', id="bookmark-of-an-empty-version"
        ),
    ],
)
def test_garbage_in_a_watch_lists_again(api: FakeApi, follow: Follow, line: bytes) -> None:
    fill(api)
    following = synced(follow)
    api.delete(PODS, "p0", watched=False)
    api.send(PODS, line)
    following.wait(lambda table: node_of(table, "p0") is None, "a new list")
    assert tally(following, "pods", "undecodable") == 1
    eventually(lambda: tally(following, "pods", "lists") == 2, "it is counted, on the thread that lists")


def test_an_error_inside_a_watch_lists_again(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    api.delete(PODS, "p0", watched=False)
    api.send(PODS, b'{"type":"ERROR","object":%b}\n' % status(500, "InternalError", "etcd is on fire"))
    following.wait(lambda table: node_of(table, "p0") is None, "a new list")
    assert tally(following, "pods", "undecodable") == 0


@pytest.mark.parametrize("where", ["list", "watch"])
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"metadata": {"name": "x"}, "spec": {"nodeName": "n0"}}, id="no-uid"),
        pytest.param({"metadata": {"uid": "x"}, "spec": {"nodeName": 7}}, id="wrong-type"),
        pytest.param({"metadata": {"uid": "x", "resourceVersion": 7}}, id="wrong-version"),
    ],
)
def test_an_object_that_does_not_decode_costs_only_itself(
    api: FakeApi, follow: Follow, where: str, broken: dict[str, object]
) -> None:
    fill(api)
    if where == "list":
        api.collections[PODS].objects["broken"] = json.dumps(broken).encode()
    following = synced(follow)
    if where == "watch":
        api.send(PODS, json.dumps({"type": "ADDED", "object": broken}).encode() + b"\n")
    api.put(PODS, "after", pod("after", on="n1"))
    following.wait(lambda table: node_of(table, "after") == "n1", "the rest goes on")
    # the watch may tell of what changed before it sends the line that was put into it
    eventually(lambda: tally(following, "pods", "undecodable") == 1, "the broken object is counted")
    assert len(following.pods()) == 11


def test_members_that_are_null_cost_nothing(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    placed = {"metadata": {"uid": "x", "resourceVersion": None}, "spec": {"nodeName": "n0"}, "status": None}
    api.send(PODS, json.dumps({"type": "ADDED", "object": placed}).encode() + b"\n")
    following.wait(lambda table: node_of(table, "x") == "n0", "the pod counts")
    api.put(PODS, "after", pod("after", on="n1"))
    following.wait(lambda table: node_of(table, "after") == "n1", "the watch goes on")
    assert tally(following, "pods", "undecodable") == 0


@pytest.mark.parametrize(
    "page", [b"<html>", status(200, "", ""), b'{"metadata":{},"items":[]}', b'{"kind":"Status","metadata":{}}']
)
def test_a_page_that_is_none_is_asked_for_again(api: FakeApi, follow: Follow, page: bytes) -> None:
    """A gateway's answer must not pass for a cluster without nodes."""
    fill(api)
    once: Iterator[Answer] = iter([(200, page, {})])
    api.answers[NODES] = lambda: next(once, None)
    following = synced(follow)
    assert following.see(lambda table: table.node_count) == 3


def test_a_resync_repairs_what_no_watch_ever_told(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, resync=1.0)
    api.delete(PODS, "p0", watched=False)
    following.wait(lambda table: node_of(table, "p0") is None, "resync")
    assert tally(following, "pods", "failures") == 0


def test_a_bug_in_a_receiver_does_not_end_the_watch(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    changes = following.source._work.pod_changes  # type: ignore[union-attr]
    proper, failing = changes.present, iter([ZeroDivisionError("a bug")])

    def broken_once(received: WatchedPod) -> None:
        if (error := next(failing, None)) is not None:
            raise error
        proper(received)

    changes.present = broken_once  # type: ignore[method-assign]
    api.put(PODS, "after", pod("after", on="n0"))
    following.wait(lambda table: node_of(table, "after") == "n0", "a new list")
    assert tally(following, "pods", "lists") == 2


def test_a_node_without_a_name_is_skipped(api: FakeApi, follow: Follow) -> None:
    fill(api)
    api.collections[NODES].objects["nameless"] = b'{"metadata":{"name":""}}'
    following = synced(follow)
    assert following.see(lambda table: table.node_count) == 3
    assert tally(following, "nodes", "undecodable") == 1


@pytest.mark.parametrize("timing", [{"page": 0}, {"watch": 0.5}, {"grace": 0.0}, {"resync": -1.0}])
def test_a_timing_that_cannot_work_is_refused(timing: dict[str, float]) -> None:
    (name,) = timing
    with pytest.raises(InvalidInputError, match=f"Timing.{name} .*give at least"):
        Timing(**timing)  # type: ignore[arg-type]


def test_a_resync_that_fails_leaves_the_watch_at_work(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, resync=1.0)
    lists = api.page
    api.page = lambda path, query: (500, status(500, "InternalError", "no lists today"))  # type: ignore[method-assign]
    eventually(lambda: tally(following, "pods", "failures"), "failed resync", 5.0)
    api.put(PODS, "meanwhile", pod("meanwhile", on="n0"))
    following.wait(lambda table: node_of(table, "meanwhile") == "n0", "the watch goes on")
    assert tally(following, "pods", "lists") == 1
    api.page = lists  # type: ignore[method-assign]
    eventually(lambda: tally(following, "pods", "lists") > 1, "a later resync", 5.0)


# ---- a server that is away ---------------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_without_a_list(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    eventually(lambda: api.requests[f"watch {PODS}"], "watch")
    api.cut_watches()
    api.put(PODS, "meanwhile", pod("meanwhile", on="n0"))
    following.wait(lambda table: node_of(table, "meanwhile") == "n0", "nothing missed")
    assert tally(following, "pods", "lists") == 1


def test_an_api_server_that_goes_away_and_returns(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    api.stop()
    fresh = following.source.staleness()
    time.sleep(0.6)
    stale = following.source.staleness()
    assert stale["pods"] is not None
    assert fresh["pods"] is not None
    assert stale["pods"] >= fresh["pods"] + 0.5
    assert following.source.synced, "what is known still counts"
    assert len(following.pods()) == 10
    api.delete(PODS, "p0")
    api.put(PODS, "meanwhile", pod("meanwhile", on="n0"))
    api.start()
    following.wait(lambda table: node_of(table, "p0") is None and node_of(table, "meanwhile") == "n0", "repair")
    eventually(lambda: (following.source.staleness()["pods"] or 0.0) < 0.5, "fresh again")


def test_an_absent_api_server_is_not_hammered(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow)
    api.stop()
    time.sleep(1.5)
    assert 1 <= tally(following, "pods", "failures") <= 3


def test_watches_that_end_at_once_are_not_hammered(api: FakeApi, follow: Follow) -> None:
    fill(api)
    api.watch = lambda path, query: iter(())  # type: ignore[method-assign]
    follow()
    time.sleep(1.5)
    assert 1 <= api.requests[f"watch {PODS}"] <= 3


def test_a_connection_that_goes_silent_is_noticed(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, watch=1.0, grace=0.2)
    api.silent = True
    eventually(lambda: tally(following, "pods", "failures"), "silence noticed", 4.0)
    api.silent = False
    api.put(PODS, "after", pod("after", on="n0"))
    following.wait(lambda table: node_of(table, "after") == "n0", "a new watch")
    assert tally(following, "pods", "lists") == 1


def test_a_quiet_watch_stays_fresh(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, watch=1.0)
    time.sleep(2.5)
    assert (following.source.staleness()["pods"] or 0.0) < 1.3
    assert tally(following, "pods", "failures") == 0


def test_a_server_that_asks_for_patience_gets_it(api: FakeApi, follow: Follow) -> None:
    fill(api)
    busy = status(429, "TooManyRequests", "too many requests")
    once: Iterator[Answer] = iter([(429, busy, {"Retry-After": "2"})])
    api.answers[NODES] = lambda: next(once, None)
    began = time.monotonic()
    synced(follow)
    assert time.monotonic() - began >= 2.0


def test_a_refused_token_is_read_again(api: FakeApi, follow: Follow, kubeconfig: object, tmp_path: object) -> None:
    fill(api)
    api.kubeconfig(tmp_path, {"token": "old"})  # type: ignore[arg-type]
    api.accepted_token = "old"
    following = synced(follow)
    api.accepted_token = "new"
    api.kubeconfig(tmp_path, {"token": "new"})  # type: ignore[arg-type]
    api.cut_watches()
    api.put(PODS, "after", pod("after", on="n0"))
    following.wait(lambda table: node_of(table, "after") == "n0", "the new token")
    assert "Bearer old" in api.authorizations
    eventually(lambda: api.authorizations[-1] == "Bearer new", "the other watch, too")


def test_stop_ends_every_thread_even_one_that_waits_for_a_watch(api: FakeApi, follow: Follow) -> None:
    fill(api)
    following = synced(follow, watch=60.0)
    eventually(lambda: api.requests[f"watch {PODS}"], "watch")
    began = time.monotonic()
    following.run(following.source.stop())
    assert time.monotonic() - began < 2.0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
    following.run(following.source.stop())


def test_node_speed_follows_annotation_label_and_instance_type(api: FakeApi, follow: Follow) -> None:
    kind = {"node.kubernetes.io/instance-type": "fast.large"}
    api.put(NODES, "typed", node("typed", labels=kind))
    api.put(NODES, "said", node("said", labels=kind, annotations={"maddpg-scheduler.io/speed": "0.5"}))
    following = synced(follow, options={"speed": SpeedRules(by_instance_type={"fast.large": 1.75})})
    names = ["typed", "said"]
    assert following.see(lambda table: table.state.node_speed[table.rows_of(names)].tolist()) == [1.75, 0.5]
    api.put(NODES, "said", node("said", annotations={"maddpg-scheduler.io/speed": "2"}))
    following.wait(lambda table: table.state.node_speed[table.rows_of(["said"])].tolist() == [2.0], "annotation change")


def test_a_node_that_cannot_allocate_is_not_scored(api: FakeApi, follow: Follow) -> None:
    fill(api, nodes=1, pods=0)
    following = synced(follow)
    api.put(NODES, "n0", {"metadata": {"name": "n0"}, "status": {}})
    following.wait(lambda table: table.node_count == 0, "forgotten")
    api.put(NODES, "n0", node("n0", cpu="4 cores"))
    api.put(NODES, "n1", node("n1"))
    following.wait(lambda table: node_names(table) == ["n1"], "only the good one")
    assert tally(following, "nodes", "ignored") == 1


def test_events_in_quick_succession_are_taken_together_and_a_lone_one_at_once() -> None:
    now = 0.0
    reads: list[float] = []

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    def lines(times: Iterable[float]) -> Iterator[bytes]:
        """A line at each of these times; whoever asks sooner waits for it."""
        nonlocal now
        for at in times:
            if now < at:
                reads.append(at)
                now = at
            yield b"%g" % at

    seen = [
        (line, now) for line in gathered(lines([1.0, *(2.0 + 0.002 * i for i in range(50)), 9.0]), wait, lambda: now)
    ]
    assert len(seen) == 52
    assert seen[0] == (b"1", 1.0)
    assert seen[-1] == (b"9", 9.0)
    assert len(reads) < 15, "the reader was woken for most of them"
    assert all(late - float(line) <= GATHER for line, late in seen)
    reads.clear()
    now = 0.0
    assert list(gathered(lines([0.0] * 50), pytest.fail)) == [b"0"] * 50, "what is there already is not waited for"
