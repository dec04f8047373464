"""Another policy bundle on disk: taken up where it proves itself, refused where not, and never noticed by a request."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from extender.scorer.load import LoadedScorer, load_policy
from extender.scorer.reload import BundleReloader, fingerprint
from policy.bundle import MANIFEST_FILE, MODEL_FILE
from tests.extender.service import Service, by_names, pod
from tests.extender.test_engine import until
from tests.policy.states import write_bundle

Run = Callable[..., Service]
Put = Callable[[Path, Path], None]


def by_rename(fresh: Path, place: Path) -> None:
    """Put another folder where the bundle was."""
    place.rename(place.with_name("former"))
    fresh.rename(place)


def by_file(fresh: Path, place: Path) -> None:
    """Overwrite the files one by one, as `cp` does: half of it is there for a while."""
    for name in (MANIFEST_FILE, MODEL_FILE):
        shutil.copyfile(fresh / name, place / name)


def by_config_map(fresh: Path, place: Path) -> None:
    """What the kubelet does: files are links through ..data, and ..data is swapped by a rename."""
    stamped = place / f"..{fresh.name}"
    shutil.copytree(fresh, stamped)
    link = place / "..data_tmp"
    link.symlink_to(stamped.name)
    link.rename(place / "..data")


def as_config_map(place: Path, first: Path) -> None:
    """Lay the folder out as the kubelet does."""
    place.mkdir()
    shutil.copytree(first, place / "..first")
    (place / "..data").symlink_to("..first")
    for name in (MANIFEST_FILE, MODEL_FILE):
        (place / name).symlink_to(Path("..data") / name)


def by_link(fresh: Path, place: Path) -> None:
    """The folder itself is a link, as under a volume that keeps versions."""
    link = place.with_name("fresh-link")
    link.symlink_to(fresh)
    link.replace(place)


LAYOUTS: dict[str, tuple[Callable[[Path, Path], object], Put]] = {
    "renamed folder": (lambda place, first: shutil.copytree(first, place), by_rename),
    "files overwritten": (lambda place, first: shutil.copytree(first, place), by_file),
    "ConfigMap": (as_config_map, by_config_map),
    "link to a folder": (lambda place, first: place.symlink_to(first), by_link),
}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Folder with the bundles `first` and `second`, of different weights and names."""
    write_bundle(tmp_path / "first", name="first")
    write_bundle(tmp_path / "second", seed=8, name="second")
    return tmp_path


class Bench:
    """A reloader with what it installed and refused."""

    def __init__(self, place: Path, serving: LoadedScorer | None) -> None:
        self.installed: list[str] = []
        self.loads = 0
        self.reloader = BundleReloader(
            place,
            self.load,
            lambda loaded: self.installed.append(loaded.scorer.name),
            serving,
            lambda: 1234.0,
        )

    @property
    def refused(self) -> list[str]:
        """Reasons of the refusals."""
        return list(self.reloader.refusals.elements())

    def load(self, path: Path) -> LoadedScorer:
        self.loads += 1
        return load_policy(path)

    def looks(self, *before: Callable[[], object], at_once: bool = False) -> None:
        """Look once after each of these steps."""

        async def run() -> None:
            for step in before:
                step()
                await self.reloader.look(at_once)

        asyncio.run(run())


def nothing() -> None:
    """A step in which nothing happens."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_bundle_is_noticed_however_it_is_put_there(bundles: Path, layout: str) -> None:
    prepare, put = LAYOUTS[layout]
    place = bundles / "served"
    prepare(place, bundles / "first")
    bench = Bench(place, load_policy(place))
    bench.looks(nothing, nothing)
    assert (bench.installed, bench.loads) == ([], 1), "what serves is judged once and then left alone"
    bench.looks(lambda: put(bundles / "second", place), nothing, nothing)
    assert (bench.installed, bench.refused, bench.loads) == (["second"], [], 2)
    assert bench.reloader.counts.swaps == 1


def truncated(place: Path) -> None:
    """The model's copy stopped half way."""
    content = (place / MODEL_FILE).read_bytes()
    (place / MODEL_FILE).write_bytes(content[: len(content) // 2])


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "half a model": (truncated, "model_sha256"),
    "no model": (lambda place: (place / MODEL_FILE).unlink(), "model"),
    "no manifest": (lambda place: (place / MANIFEST_FILE).unlink(), "manifest"),
    "no folder": (lambda place: place.rename(place.with_name("gone")), "manifest"),
    "other answers": (
        lambda place: write_bundle(place, parity={"observations": [[0.5] * 8], "bids": [[9.0] * 4]}),
        "parity",
    ),
    "other schema": (lambda place: write_bundle(place, schema_version=99), "schema_version"),
    "unknown field": (
        lambda place: (place / MANIFEST_FILE).write_text(
            json.dumps({**json.loads((place / MANIFEST_FILE).read_text()), "surprise": 1})
        ),
        "manifest",
    ),
    "a temperature no float holds": (lambda place: change_manifest(place, temperature=10**400), "temperature"),
    "nested deep": (lambda place: (place / MANIFEST_FILE).write_text("[" * 100_000), "manifest"),
    "a pipe": (lambda place: as_pipe(place / MANIFEST_FILE), "manifest"),
    "links in a circle": (lambda place: as_circle(place / MANIFEST_FILE), "manifest"),
    "a model of zeros": (lambda place: write_bundle(place, bytes(500)), "model"),
}


def change_manifest(place: Path, **changes: object) -> None:
    manifest = place / MANIFEST_FILE
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_bad_bundle_is_refused_once_and_a_good_one_taken_up_after_it(bundles: Path, corruption: str) -> None:
    corrupt, reason = CORRUPTIONS[corruption]
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    bench = Bench(place, load_policy(place))
    bench.looks(lambda: corrupt(place), nothing, nothing, nothing)
    assert bench.refused == [reason]
    assert (bench.installed, bench.reloader.counts.refusals) == ([], 1)
    refusal = bench.reloader.status()["last_refusal"]
    assert (refusal["at"], refusal["reason"]) == (1234.0, reason)
    assert "policy bundle refused" in refusal["message"]

    def repair() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(bundles / "second", place)

    bench.looks(repair, nothing)
    assert bench.installed == ["second"]
    assert len(bench.refused) == 1


def test_a_bundle_that_breaks_the_loader_itself_is_refused_and_shown(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    bench = Bench(place, load_policy(place))

    def breaks(*_arguments: object) -> None:
        raise MemoryError("what a library says, which may be anything")

    monkeypatch.setattr("extender.scorer.load.load_bundle", breaks)
    bench.looks(lambda: by_file(bundles / "second", place), nothing, nothing)
    assert (bench.refused, bench.installed) == (["model"], [])
    message = bench.reloader.status()["last_refusal"]["message"]
    assert "MemoryError" in message
    assert "anything" not in message


def test_a_copy_in_progress_is_neither_served_nor_refused(bundles: Path) -> None:
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    bench = Bench(place, load_policy(place))
    model = (bundles / "second" / MODEL_FILE).read_bytes()

    def copy(share: float) -> Callable[[], None]:
        def step() -> None:
            shutil.copyfile(bundles / "second" / MANIFEST_FILE, place / MANIFEST_FILE)
            (place / MODEL_FILE).write_bytes(model[: int(len(model) * share)])

        return step

    bench.looks(copy(0.0), copy(0.3), copy(0.6), copy(0.9))
    assert (bench.installed, bench.refused) == ([], [])
    bench.looks(copy(1.0))
    assert (bench.installed, bench.refused) == (["second"], [])


def test_asked_for_it_judges_at_once_and_again(bundles: Path) -> None:
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    bench = Bench(place, load_policy(place))
    truncated(place)
    bench.looks(nothing, nothing, at_once=True)
    assert bench.refused == ["model_sha256"] * 2


def test_a_bundle_that_is_written_anew_with_the_same_content_changes_nothing(bundles: Path) -> None:
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    bench = Bench(place, load_policy(place))
    bench.looks(nothing, lambda: by_file(bundles / "first", place), nothing)
    assert (bench.installed, bench.loads) == ([], 2)


def test_equal_folders_have_equal_fingerprints_and_a_touched_model_another(bundles: Path) -> None:
    first = fingerprint(bundles / "first")
    assert first == fingerprint(bundles / "first")
    os.utime(bundles / "first" / MODEL_FILE, (1.0, 1.0))
    assert first != fingerprint(bundles / "first")
    assert fingerprint(bundles / "absent") == fingerprint(bundles / "absent")


@pytest.fixture
def load(run_service: Run, bundles: Path) -> Iterator[tuple[Service, Path, list[tuple[int, str]]]]:
    """A service that polls fast, four clients that never stop asking, and what they were answered."""
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    # pods pile up on the nodes, because no kube-scheduler filters those that are full
    service = run_service(bundle_path=place, bundle_reload_s=0.05, operations_port=0, range_tolerance=None)
    names = service.add_nodes(40)
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask(client: int) -> None:
        with httpx.Client(base_url=service.background.url, timeout=20.0) as http:
            for turn in range(1_000_000):
                if stop.is_set():
                    return
                uid = f"load-{client}-{turn}"
                answer = http.post("/prioritize", json=by_names(names, pod(uid, cpu=f"{100 + turn % 50}m")))
                hosts = {host["Host"] for host in answer.json()} if answer.status_code == 200 else set()
                answers.append((answer.status_code if hosts == set(names) else 0, f"uid-{uid}"))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    yield service, place, answers
    stop.set()
    for thread in threads:
        thread.join(30.0)
    assert len(answers) > 50
    assert {status for status, _ in answers} == {200}


def policy_of(service: Service) -> dict[str, object]:
    """What `/v1/policy` says."""
    return dict(service.operations.get("/v1/policy").json())


def test_policies_are_swapped_under_load_without_one_failed_answer(
    load: tuple[Service, Path, list[tuple[int, str]]], bundles: Path
) -> None:
    service, place, answers = load
    ready: list[int] = []

    def serves(name: str) -> bool:
        ready.append(service.operations.get("/readyz").status_code)
        return policy_of(service)["serving"]["scorer"] == name  # type: ignore[index]

    until(lambda: len(answers) > 20 and serves("first"), 20.0)
    by_rename(bundles / "second", place)
    until(lambda: serves("second"), 20.0)
    seen = len(answers)
    until(lambda: len(answers) > seen + 20, 20.0)
    truncated(place)
    until(lambda: service.metric("maddpg_policy_refusals_total", reason="model_sha256") == 1, 20.0)
    seen = len(answers)
    until(lambda: len(answers) > seen + 20 and serves("second"), 20.0)
    status = policy_of(service)["bundle"]
    assert status["swaps"] == 1  # type: ignore[index]
    assert status["last_refusal"]["reason"] == "model_sha256"  # type: ignore[index]
    assert set(ready) == {200}
    assert service.metric("maddpg_policy_swaps_total") == 1
    deciders = [service.decision(uid) for _, uid in answers[:seen]]
    assert {decision["fallback_reason"] for decision in deciders} == {None}
    assert {decision["scorer"] for decision in deciders[:20]} == {"first"}
    assert {decision["scorer"] for decision in deciders[-20:]} == {"second"}


def test_what_was_kept_of_the_former_policy_is_not_answered_again(run_service: Run, bundles: Path) -> None:
    place = bundles / "served"
    shutil.copytree(bundles / "first", place)
    service = run_service(bundle_path=place, bundle_reload_s=0.05)
    names = service.add_nodes(30)
    service.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", i / 9, i / 7) for i in range(30)])
    before = service.prioritize(names)
    explained = service.decision("uid-web")
    assert explained["nodes"][0]["bids"] is not None
    by_rename(bundles / "second", place)
    until(lambda: policy_of(service)["serving"]["scorer"] == "second", 20.0)  # type: ignore[index]
    assert service.decision("uid-web")["nodes"][0]["bids"] is None, "other weights cannot explain it"
    fresh = run_service(bundle_path=place)
    fresh.add_nodes(30)
    fresh.change(lambda table: [table.pod_bound(f"p{i}", f"node-{i}", i / 9, i / 7) for i in range(30)])
    after = service.prioritize(names)
    assert after == fresh.prioritize(names)
    assert after != before


def test_without_a_bundle_it_serves_on_the_fallback_until_one_comes(run_service: Run, bundles: Path) -> None:
    place = bundles / "served"
    service = run_service(bundle_path=place, bundle_reload_s=0.05, policy_required=False)
    names = service.add_nodes(5)
    service.prioritize(names, pod("early"))
    assert service.decision("uid-early")["fallback_reason"] == "missing"
    assert policy_of(service)["serving"] is None
    assert service.operations.get("/readyz").status_code == 200
    shutil.copytree(bundles / "first", place)
    until(lambda: policy_of(service)["serving"] is not None, 20.0)
    service.prioritize(names, pod("later"))
    assert service.decision("uid-later")["scorer"] == "first"
