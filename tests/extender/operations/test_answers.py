"""Every answer has its schema in the API's description, and has no property that is not described there."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import msgspec
import pytest

from extender.cluster.account import SpeedBasis
from extender.cluster.estimation import NodeSpeeds
from extender.cluster.rounds import Rounds
from extender.cluster.source import ClusterSource
from extender.cluster.stats import NodePressure
from extender.operations import peers
from extender.operations.inventory import Inventory
from extender.operations.schemas import ANSWERS, Node, Performance, Sums
from extender.pods import Pod
from extender.templates import template_of
from tests.extender.operations.test_api_description import described
from tests.extender.service import Service, by_names, pod
from tests.extender.test_observer import show as shown
from tests.extender.test_observer import with_nodes
from tests.extender.test_unasked import show

Run = Callable[..., Service]
DESCRIPTION = described()


def strict(schema: Any) -> Any:
    """The same schema, which refuses properties that it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(each) for name, each in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


STRICT = strict({"components": DESCRIPTION["components"]})


def schema_of(path: str, status: str) -> dict[str, Any]:
    """Of an answer in JSON; refuses what it does not name."""
    (content,) = DESCRIPTION["paths"][path]["get"]["responses"][status]["content"].values()
    return {**strict(content["schema"]), **STRICT}


def checked(service: Service, path: str, query: str = "", **names: str) -> Any:
    """The answer at a path, which is as the description says."""
    answer = service.operations.get(path.format(**names) + query, timeout=60.0)
    if answer.headers["content-type"] != "application/json":
        assert path == "/metrics"
        return answer.text
    told = answer.json()
    jsonschema.validate(told, schema_of(path, str(answer.status_code)), jsonschema.Draft202012Validator)
    return told


def all_checked(service: Service, uid: str, node: str) -> None:
    """Every path that is described answers as it is described, of a pod and a node and of none."""
    for path, item in DESCRIPTION["paths"].items():
        if "get" not in item:
            continue
        for names in ({"uid": uid, "name": node}, {"uid": "none", "name": "none"}):
            checked(service, path, **names)
            if "{" not in path:
                break
    checked(service, "/v1/decisions/{uid}", f"?why_not={node}&ranking=1", uid=uid)
    checked(service, "/v1/decisions/{uid}", "?why_not=absent&ranking=1", uid=uid)
    checked(service, "/v1/decisions", "?replicas=this&limit=1")
    checked(service, "/v1/nodes", "?limit=1")


def test_every_get_under_v1_has_a_schema_with_properties() -> None:
    under = {path for path, item in DESCRIPTION["paths"].items() if path.startswith("/v1/")}
    assert under == set(ANSWERS)
    for path in under:
        schema = DESCRIPTION["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for each in schema.get("anyOf", [schema]):
            component = DESCRIPTION["components"]["schemas"][each["$ref"].rpartition("/")[2]]
            assert component["properties"], path
            assert component["description"], path


def test_a_property_that_is_not_described_is_refused() -> None:
    node = {"type": "object"}
    with pytest.raises(jsonschema.ValidationError, match="required property"):
        jsonschema.validate(node, schema_of("/v1/nodes/{name}", "200"))
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate({"alive": True, "more": 1}, schema_of("/healthz", "200"))
    for kind in (Sums, Performance, Node):
        assert "additionalProperties" not in DESCRIPTION["components"]["schemas"][kind.__name__], "later versions add"


def test_a_service_that_has_seen_nothing_answers_as_described(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    all_checked(service, "uid-web", "node-0")


@pytest.mark.parametrize("scorer", ["policy", "least-used", "marginal-cost"])
def test_a_service_with_trials_and_outcomes_answers_as_described(run_service: Run, tmp_path: Path, scorer: str) -> None:
    service = run_service(
        scorer=scorer,
        shadow="most-allocated",
        experiment="least-used",
        experiment_share=0.5,
        ledger_path=tmp_path / "ledger.sqlite",
    )
    names = service.add_nodes(6)
    throttled = SpeedBasis("completions", 1.0, 1.5, share_left=0.5)
    service.change(lambda table: table.upsert_node("node-5", 8.0, 32.0, 1.25, basis=throttled))
    for i in range(6):
        service.change(lambda table, i=i: table.pod_bound(f"p{i}", f"node-{i}", 0.9 * i, 0.5))
        service.change(lambda table, i=i: table.set_usage(f"node-{i}", 0.9 * i, 3.0, 0.05 * i, 1.0))
    template = template_of(msgspec.json.decode(msgspec.json.encode(pod("web-0")), type=Pod))
    for _ in range(3):
        service.change(lambda table: table.workloads.ran(template, 60.0, 1.0))
    for number in range(30):
        assert service.post("prioritize", by_names([*names, "unknown"], pod(f"web-{number}"))).status_code == 200
        show(service, f"web-{number}", names[number % 6])
        if number % 3:
            show(service, f"web-{number}", names[number % 6], phase="Succeeded")
    show(service, "alone", names[0])
    all_checked(service, "uid-web-7", "node-3")
    told = checked(service, "/v1/decisions/{uid}", uid="uid-web-7")
    assert told["expected"] == {"seconds": 60.0, "runs": 3}
    assert scorer == "policy" or told["counterfactual"]["changes"]
    all_checked(service, "uid-alone", "node-0")


def test_a_fallback_and_a_refused_bundle_are_answered_as_described(run_service: Run, tmp_path: Path) -> None:
    service = run_service(
        bundle_path=tmp_path / "none", policy_required=False, shadow=str(tmp_path), experiment=str(tmp_path)
    )
    assert service.post("prioritize", by_names(service.add_nodes(3), pod("web"))).status_code == 200
    reloader = service.background.app.reloader
    assert reloader is not None
    reloader.request()
    service.eventually(lambda: bool(checked(service, "/v1/policy")["bundle"]["refusals"]))
    all_checked(service, "uid-web", "node-1")


def test_what_is_observed_is_answered_as_described(run_service: Run) -> None:
    service = run_service(observe=True)
    nodes = with_nodes(service, 3)
    all_checked(service, "uid-web-0", nodes[0])
    for index, node in enumerate((nodes[0], nodes[0], nodes[1])):
        shown(service, f"web-{index}")
        shown(service, f"web-{index}", node)
    all_checked(service, "uid-web-0", nodes[0])
    told = checked(service, "/v1/observed")
    assert told["where_other"]["cpu_used"].keys() == {"taken", "ours"}


def test_replicas_answer_as_described(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LIMIT_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.9"]
    services = [
        run_service(scorer="kube-default", operations_port=port, operations_host=host, peers=",".join(hosts))
        for host in hosts[:2]
    ]
    names = [service.add_nodes(3) for service in services][-1]
    assert services[1].post("prioritize", by_names(names, pod("web"))).status_code == 200
    all_checked(services[0], "uid-web", "node-1")
    all_checked(services[1], "uid-web", "node-1")


def test_what_is_learned_of_machines_is_as_described(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    service.add_nodes(3)
    speeds = service.change(lambda table: NodeSpeeds(table))
    rounds = Rounds(15.0, random.Random(1))
    pressures = {"node-0": NodePressure(0.1, 0.2, 0.3, time.time()), "node-1": NodePressure(None, None, None, 1.0)}
    machines = SimpleNamespace(
        kubelets=SimpleNamespace(pressures=pressures, rounds=rounds), speeds=speeds, completed=None, keeper=None,
        benchmarks=None,
    )  # fmt: skip
    app = service.background.app
    documents = Inventory(app.table, cast("ClusterSource", machines))
    service.change(lambda table: table.set_usage("node-0", 1.0, 3.0, 0.25, 1.0))
    page = service.change(lambda table: documents.take(0, 10))
    told = msgspec.to_builtins(documents.document(page))
    jsonschema.validate(told, schema_of("/v1/nodes", "200"))
