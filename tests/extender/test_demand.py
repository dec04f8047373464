"""How urgent a pod is comes from the right place."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from extender.demand import UrgencyRules, pod_demand, pod_urgency
from extender.errors import UrgencyError
from extender.pods import URGENCY_ANNOTATION, Pod

RULES = UrgencyRules({"critical": 1.0}, {"Guaranteed": 0.8, "Burstable": 0.5, "BestEffort": 0.0})


def parsed(spec: dict[str, Any], **status: Any) -> Pod:
    return msgspec.json.decode(json.dumps({"metadata": {"uid": "u"}, "spec": spec, "status": status}), type=Pod)


def ask(cpu: str | float | None = None, memory: str | None = None, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": "1"}}, **more}


def with_annotation(value: str | None, **spec: Any) -> Pod:
    pod = {
        "metadata": {"annotations": {"other": "x"} | ({} if value is None else {URGENCY_ANNOTATION: value})},
        "spec": {"containers": [ask("1")], **spec},
        "status": {"qosClass": "Guaranteed"},
    }
    return msgspec.json.decode(json.dumps(pod), type=Pod)


@pytest.mark.parametrize(
    ("pod", "urgency"),
    [
        pytest.param(with_annotation("0.25", priorityClassName="critical"), 0.25, id="annotation_first"),
        pytest.param(with_annotation(None, priorityClassName="critical"), 1.0, id="then_priority_class"),
        pytest.param(with_annotation(None, priorityClassName="unlisted"), 0.8, id="then_qos_class"),
        pytest.param(parsed({"containers": [ask("1")]}), 0.5, id="asks_without_status"),
        pytest.param(parsed({"containers": [{}]}), 0.0, id="asks_nothing_without_status"),
    ],
)
def test_urgency_of_a_pod(pod: Pod, urgency: float) -> None:
    assert pod_urgency(pod, RULES) == urgency
    assert pod_demand(pod, RULES)[1] is None


@pytest.mark.parametrize("text", ["high", "", "nan", "1.1", "-0.1", "inf"])
def test_a_broken_annotation_is_ignored_with_a_warning(text: str) -> None:
    with pytest.raises(UrgencyError, match=URGENCY_ANNOTATION):
        pod_urgency(with_annotation(text), RULES)
    demand, warning = pod_demand(with_annotation(text), RULES)
    assert demand.urgency == 0.8
    assert warning is not None
    assert URGENCY_ANNOTATION in warning
