"""All decisions that are remembered can be read, a page at a time, while others are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.extender.service import Service, pod

Run = Callable[..., Service]


def page(service: Service, **query: Any) -> dict[str, Any]:
    """One answer of /v1/decisions."""
    answer = service.operations.get("/v1/decisions", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def names_of(document: dict[str, Any]) -> list[str]:
    """Names of the pods decided upon."""
    return [each["pod"]["name"] for each in document["decisions"]]


@pytest.mark.parametrize("limit", [1, 7, 30, 1000])
def test_pages_add_up_to_all_of_them(run_service: Run, limit: int) -> None:
    service = run_service()
    nodes = service.add_nodes(2)
    for number in range(30):
        service.prioritize(nodes, pod(f"p{number}"))
    found: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while True:
        document = page(service, **query)
        found += names_of(document)
        assert document["counts"]["decisions"] >= 30
        if document["next"] is None:
            break
        query["before"] = document["next"]
        service.prioritize(nodes, pod(f"meanwhile{len(found)}"))
    assert found == [f"p{number}" for number in reversed(range(30))]


def test_a_pod_that_is_decided_upon_again_moves_to_the_front(run_service: Run) -> None:
    service = run_service()
    nodes = service.add_nodes(2)
    for name in ("a", "b", "c"):
        service.prioritize(nodes, pod(name))
    first = page(service, limit=1)
    assert names_of(first) == ["c"]
    service.prioritize(nodes, pod("b"))
    assert names_of(page(service, limit=10, before=first["next"])) == ["a"]
    assert names_of(page(service)) == ["b", "c", "a"]


def test_pages_of_one_pod_or_namespace(run_service: Run) -> None:
    service = run_service()
    nodes = service.add_nodes(2)
    for number in range(6):
        service.prioritize(nodes, pod(f"p{number}", namespace="even" if number % 2 == 0 else "odd"))
    first = page(service, limit=2, namespace="even")
    assert names_of(first) == ["p4", "p2"]
    last = page(service, limit=2, namespace="even", before=first["next"])
    assert (names_of(last), last["next"]) == (["p0"], None)
    assert names_of(page(service, namespace="odd", name="p3")) == ["p3"]
    assert names_of(page(service, namespace="none", name="p3")) == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"before": -1}, {"before": "x"}])
def test_a_page_that_cannot_be_is_refused(run_service: Run, query: dict[str, Any]) -> None:
    assert run_service().operations.get("/v1/decisions", params=query).status_code == 422


def test_only_those_remembered_are_on_the_pages(run_service: Run) -> None:
    service = run_service(ledger_size=5)
    nodes = service.add_nodes(2)
    for number in range(700):
        service.prioritize(nodes, pod(f"p{number % 300}"))
    assert names_of(page(service)) == [f"p{number % 300}" for number in (699, 698, 697, 696, 695)]
