"""Templates: which pods count as the same kind of work."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from extender.pods import Pod
from extender.templates import template_of, without_ending


def owners(kind: str, name: str, controller: bool = True) -> bytes:
    return msgspec.json.encode([{"kind": kind, "name": name, "controller": controller, "uid": "u", "apiVersion": "v1"}])


def key(owned: bytes = b"", name: str = "pod", namespace: str = "default", **more: Any) -> str:
    container = {"name": "main", "image": "registry/work:1", "command": ["work"], "args": ["--all"], **more}
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    metadata = {"name": name, "namespace": namespace, "ownerReferences": msgspec.Raw(owned or b"null")}
    content = {"metadata": metadata, "spec": {"containers": [{"resources": resources, **container}]}}
    return template_of(msgspec.json.decode(msgspec.json.encode(content), type=Pod))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("backup-29384756", "backup"),
        ("backup-29384756-x7k2p", "backup"),
        ("web-6b7f9c8d5f-x7k2p", "web"),
        ("train-0", "train"),
        ("train-1-2", "train"),
        ("run-3f2b8c1e-9d4a-4c7b-8e21-5a6d7f8091b2", "run"),
        ("dag-task-a1b2c3d4", "dag-task"),
        ("nightly-report", "nightly-report"),
        ("build-tests", "build-tests"),
        ("etl", "etl"),
        ("12345", "12345"),
        ("-12345", "-12345"),
        ("", ""),
        ("-".join(["24567"] * 42) + "-x!", "-".join(["24567"] * 42) + "-x!"),
    ],
)
def test_what_is_generated_at_the_end_of_a_name_is_left_out(name: str, base: str) -> None:
    assert without_ending(name) == base


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(
            key(owners("Job", "backup-29384756"), "backup-29384756-aaaaa"),
            key(owners("Job", "backup-29384757"), "backup-29384757-bbbbb"),
            id="Jobs of one CronJob",
        ),
        pytest.param(
            key(owners("ReplicaSet", "web-6b7f9c8d5f")), key(owners("ReplicaSet", "web-5d4f6c7b8")), id="ReplicaSets"
        ),
        pytest.param(key(name="load-1"), key(name="load-2"), id="pods that nobody owns"),
        pytest.param(
            key(owners("Job", "a")), key(owners("Job", "a"), env=[{"name": "A", "value": "b"}]), id="environment"
        ),
    ],
)
def test_pods_that_do_the_same_share_a_template(first: str, second: str) -> None:
    assert first == second


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(owners("Job", "restore-29384756")), id="owner"),
        pytest.param(key(owners("Workflow", "backup-29384756")), id="kind"),
        pytest.param(key(owners("Job", "backup-29384756"), namespace="other"), id="namespace"),
        pytest.param(key(owners("Job", "backup-29384756"), image="registry/work:2"), id="image"),
        pytest.param(key(owners("Job", "backup-29384756"), command=["play"]), id="command"),
        pytest.param(key(owners("Job", "backup-29384756"), args=["--some"]), id="arguments"),
        pytest.param(
            key(owners("Job", "backup-29384756"), resources={"requests": {"cpu": "1", "memory": "1Gi"}}), id="requests"
        ),
    ],
)
def test_pods_that_do_something_else_do_not(other: str) -> None:
    assert other != key(owners("Job", "backup-29384756"))


def test_an_owner_that_controls_nothing_or_does_not_decode_is_none() -> None:
    assert key(owners("Job", "a", controller=False)) == key(b"{}") == key(b"null") == key()
