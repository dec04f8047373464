"""What is said on a pod comes once, bounded, off the path of any request, and its failure costs nothing else."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extender import logs
from extender.app import create_app
from extender.cluster.source import PodNote
from extender.errors import NoteError, SettingsError
from extender.history import notes
from extender.history.explain import short_reason
from extender.history.ledger import Decision
from extender.settings import Settings
from policy import heuristics
from policy.bundle import shipped_bundle_path
from tests.extender.embedded import EmbeddedSource
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, pod

Run = Callable[..., Service]


def place(service: Service, names: list[str], *pods: str) -> dict[str, str]:
    """Decide about these pods and show each bound where it was rated best; the node of each."""
    nodes = {}
    for name in pods:
        scores = service.prioritize(names, pod(name))
        nodes[name] = max(scores, key=lambda node: scores[node])
        service.change(lambda table, n=name: table.pod_bound(f"uid-{n}", nodes[n], 0.5, 1.0))
    return nodes


def written(service: Service, result: str = "written") -> float:
    return service.metric("maddpg_pod_notes_total", result=result)


@pytest.mark.parametrize("form", ["event", "annotation"])
def test_it_is_said_once_on_which_node_and_why(run_service: Run, form: str) -> None:
    said: list[PodNote] = []
    service = run_service(EmbeddedSource(on_note=said.append), explain_on_pod=form)
    names = service.add_nodes(4)
    (node,) = place(service, names, "web").values()
    service.eventually(lambda: written(service) == 1)
    service.change(lambda table: table.pod_bound("uid-web", node, 0.5, 1.0))  # the watch shows it again
    service.change(lambda table: table.pod_bound("uid-other", node, 0.5, 1.0))  # nobody asked us
    place(service, names, "last")
    service.eventually(lambda: written(service) == 2)
    first, second = said
    assert (first.namespace, first.name, first.uid, first.form) == ("default", "web", "uid-web", form)
    assert first.text.startswith(f"{node}: number 1 of 4 nodes by test, priority 10 of 10, preference ")
    assert second.name == "last"


def test_nothing_is_said_unless_asked_for(run_service: Run) -> None:
    said: list[PodNote] = []
    service = run_service(EmbeddedSource(on_note=said.append))
    place(service, service.add_nodes(2), "web")
    assert not said


def test_refusals_are_counted_and_logged_now_and_then(run_service: Run) -> None:
    def refuse(_note: PodNote) -> None:
        raise NoteError("forbidden")

    service = run_service(EmbeddedSource(on_note=refuse), explain_on_pod="event", explain_on_pod_rate=1000.0)
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    names = service.add_nodes(2)
    place(service, names, *(f"pod-{i}" for i in range(5)))
    service.eventually(lambda: written(service, "failed") == 5)
    assert written(service) == 0
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["error"] for line in lines if "note was not written" in line["event"]] == ["forbidden"]


def test_no_more_are_written_a_second_than_the_setting_says(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[float] = []
    write = notes.Notes._write

    async def begun(self: notes.Notes, decision: Decision, node: str) -> None:
        at.append(time.monotonic())  # not when it is done: a busy machine takes its time for the first
        await write(self, decision, node)

    monkeypatch.setattr(notes.Notes, "_write", begun)
    source = EmbeddedSource(on_note=lambda _note: None)
    service = run_service(source, explain_on_pod="event", explain_on_pod_rate=20.0)
    place(service, service.add_nodes(2), *(f"pod-{i}" for i in range(6)))
    service.eventually(lambda: len(at) == 6)
    assert at[-1] - at[0] >= 5 / 20.0 - 0.01


def test_what_finds_no_room_is_dropped_and_counted(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "WAITING", 2)
    service = run_service(EmbeddedSource(on_note=lambda _: None), explain_on_pod="event", explain_on_pod_rate=0.01)
    names = service.add_nodes(2)
    place(service, names, "first")
    service.eventually(lambda: written(service) == 1)
    place(service, names, *(f"pod-{i}" for i in range(6)))
    assert written(service, "dropped") == 4


def test_a_cluster_that_takes_no_notes_is_refused_at_the_start() -> None:
    class Mute:
        """A source that cannot say anything."""

        def __getattr__(self, name: str) -> Any:
            if name == "note":
                raise AttributeError(name)
            return None

    with pytest.raises(SettingsError, match="explain_on_pod is event"):
        create_app(Settings(explain_on_pod="event", bundle_path=shipped_bundle_path()), Mute())


KUBE_DEFAULT = heuristics.by_name("kube-default")


def test_reason_names_the_fallback_and_what_kube_default_would_have_done() -> None:
    decision = a_decision(nodes=3)
    assert decision.rows is not None
    usual = KUBE_DEFAULT.preferences(decision.rows, decision.demand)
    worst = f"node-{int(usual.argmin())}"
    said = short_reason(a_decision(nodes=3, scorer="kube-default", fallback_reason="late"), worst, None)
    assert "by kube-default (fallback: late)" in said
    assert f"kube-default 1.37 would have preferred node-{int(usual.argmax())}" in said
    best = short_reason(decision, f"node-{int(usual.argmax())}", None)
    assert "kube-default would" not in best


def test_reason_says_how_far_ahead_or_behind_the_node_is() -> None:
    decision = a_decision(nodes=3)  # preferences 1, 0.75, 0.5
    assert "0.250 ahead of node-1" in short_reason(decision, "node-0", None)
    assert "number 3 of 3 nodes" in short_reason(decision, "node-2", None)
    assert "0.500 behind node-0" in short_reason(decision, "node-2", None)
    assert "by test; it preferred node-0." in short_reason(decision, "unheard-of", None)
    empty = a_decision(nodes=0, names=(), rows=None, preferences=np.empty(0), priorities=np.empty(0, dtype=np.int64))
    assert short_reason(empty, "node-9", None) == "node-9 was not among the best of 0 nodes by test."


def test_reason_of_an_actor_names_the_criterion_that_made_the_difference(run_service: Run) -> None:
    said: list[PodNote] = []
    service = run_service(EmbeddedSource(on_note=said.append), explain_on_pod="event")
    place(service, service.add_nodes(4), "web")
    service.eventually(lambda: len(said) == 1)
    nodes = service.decision("uid-web")["nodes"]
    gained = {name: value - nodes[1]["contributions"][name] for name, value in nodes[0]["contributions"].items()}
    most = max(gained, key=lambda name: gained[name])
    assert f", most of it by {most} ({gained[most]:+.3f})" in said[0].text
    assert len(said[0].text) < 500
