"""What fuzzing starts from: requests recorded from real kube-schedulers, objects of the size real ones have, odd texts.

Each seed begins with one byte that chooses the decoder; see `tests.fuzz.targets`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.bench.fake_cluster import node, pod
from tests.fuzz.targets import OBJECTS, WIRE

RECORDED = Path(__file__).resolve().parents[1] / "extender" / "protocol" / "recorded"
QUANTITIES = ("100m", "1.5Gi", "2e3", "-1", "1E400", ".5", "9" * 40, "1n", "inf", "0x10", "1\u0661")
TOKENS = (
    "Pod", "Nodes", "NodeNames", "NodeNameToVictims", "NodeNameToMetaVictims", "Pods", "NumPDBViolations", "UID",
    "PodName", "PodNamespace", "PodUID", "Node", "items", "metadata", "name", "namespace", "uid", "annotations",
    "maddpg-scheduler.io/urgency", "maddpg-scheduler.io/speed", "spec", "containers", "initContainers", "resources",
    "requests", "cpu", "memory", "overhead", "restartPolicy", "Always", "priorityClassName", "nodeName", "status",
    "phase", "Succeeded", "qosClass", "conditions", "type", "PodScheduled", "Ready", "True", "lastTransitionTime",
    "resourceVersion", "continue", "object", "ADDED", "BOOKMARK", "allocatable", "labels", "unschedulable", "code",
)  # fmt: skip


def seeds(target: str) -> Iterator[bytes]:
    """The corpus that a target starts with."""
    return _wire() if target == "wire" else _objects()


def dictionary() -> str:
    """Words that random changes would take long to find, in libFuzzer's form."""
    words = [json.dumps(token) for token in TOKENS]
    words += [json.dumps(quantity) for quantity in QUANTITIES]
    words += ["null", "true", "1e309", "-0.0", "{}", "[]", '"0001-01-01T00:00:00"', '"2026-01-01T00:00:00Z"']
    return "\n".join('"' + _escaped(word) + '"' for word in words) + "\n"


def _escaped(word: str) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word.encode())


def _wire() -> Iterator[bytes]:
    names = list(WIRE)
    for file in sorted(RECORDED.glob("*/*.json")):
        body = json.dumps(json.loads(file.read_text())["body"]).encode()
        verb = file.stem.split("-")[0]
        decoder = {"preempt": "preemption", "bind": "binding"}.get(verb, "scheduling")
        yield bytes([names.index(decoder)]) + body
    for quantity in QUANTITIES:
        asking = {"metadata": {"uid": "u"}, "spec": {"containers": [{"resources": {"requests": {"cpu": quantity}}}]}}
        body = json.dumps({"Pod": asking, "NodeNames": ["a", "b"]}).encode()
        yield bytes([names.index("scheduling")]) + body


def _objects() -> Iterator[bytes]:
    names = list(OBJECTS)
    examples = [("node", node(i, 0)) for i in range(3)] + [("pod", pod(i, i, 0)) for i in range(3)]
    for kind, content in examples:
        body = json.dumps(content).encode()
        yield bytes([names.index(kind)]) + body
        yield bytes([names.index("event")]) + b'{"type":"MODIFIED","object":' + body + b"}"
        yield (
            bytes([names.index("page")])
            + b'{"metadata":{"resourceVersion":"7","continue":"x"},"items":['
            + body
            + b"]}"
        )
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}'
    expired = b'{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}'
    for line in (bookmark, expired):
        yield bytes([names.index("event")]) + line
    metrics = {
        "items": [
            {
                "metadata": {"name": "a"},
                "timestamp": "2026-01-01T00:00:00Z",
                "window": "1m10.5s",
                "usage": {"cpu": "1500m", "memory": "2Gi"},
            }
        ]
    }
    yield bytes([names.index("metrics")]) + json.dumps(metrics).encode()
    result = [{"metric": {"node": "a:9100", "job": "x"}, "value": [1.5, "2e3"]}]
    answer = {"status": "success", "warnings": ["w"], "data": {"resultType": "vector", "result": result}}
    yield bytes([names.index("series")]) + json.dumps(answer).encode()
