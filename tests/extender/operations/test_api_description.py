"""Every endpoint answers whatever its description allows, and whatever it forbids, as the description says.

schemathesis reads /openapi.json and makes the requests; a running service answers them over a socket. `make robustness`
makes more of them, and other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from extender.app import create_app
from extender.scorer.load import LoadedScorer
from extender.settings import Settings
from policy import heuristics
from tests.extender.background import BackgroundService
from tests.extender.embedded import EmbeddedSource
from tests.extender.service import Service, pod

EXAMPLES = int(os.environ.get("ROBUSTNESS_EXAMPLES", "25"))
"""Requests made for each endpoint, beside those at each limit of its description."""
SLOWEST_S = 30.0
"""An answer that takes longer counts as none; wide, because the machine may be busy."""
ENDPOINTS = {
    "/healthz", "/readyz", "/metrics", "/v1/decisions", "/v1/decisions/{uid}", "/v1/decisions/{uid}/case", "/v1/report",
    "/v1/policy", "/v1/observed", "/v1/shadow", "/v1/experiment",
    "/v1/nodes", "/v1/nodes/{name}",
    "/filter", "/prioritize", "/preempt", "/bind",
}  # fmt: skip


def described() -> dict[str, Any]:
    loaded = LoadedScorer(heuristics.by_name("kube-default"), 1.0, "")
    return create_app(Settings(), EmbeddedSource(), loaded).operations.openapi()


@pytest.fixture(scope="module")
def service(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with a few nodes, one decision and a ledger on disk, for all requests."""
    source = EmbeddedSource(on_bind=lambda binding: None)
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    settings = Settings(port=0, bundle_path=bundle_path, enable_bind=True, ledger_path=ledger)
    background = BackgroundService(create_app(settings, source))
    background.__enter__()
    running = Service(background, source)
    running.prioritize(running.add_nodes(5), pod())
    yield running
    running.close()


api = schemathesis.openapi.from_dict(
    described(), config=schemathesis.Config.from_dict({"checks": {"max_response_time": SLOWEST_S}})
)


@api.hook
def filter_body(context: Any, body: Any) -> bool:
    """Whether a count is what Go reads: JSON Schema takes 1.0 for an integer, Go and the service do not."""
    for key in ("NodeNameToVictims", "NodeNameToMetaVictims"):
        table = body.get(key) if isinstance(body, dict) else None
        for victims in table.values() if isinstance(table, dict) else ():
            if isinstance(victims, dict) and isinstance(victims.get("NumPDBViolations"), float):
                return False
    return True


@pytest.mark.timeout(900)
@api.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: Any, service: Service) -> None:
    case.call_and_validate(base_url=service.background.url, timeout=SLOWEST_S)


def test_every_endpoint_is_described(service: Service) -> None:
    assert set(service.operations.get("/openapi.json").json()["paths"]) == ENDPOINTS
