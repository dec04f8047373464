"""How long the body of `/prioritize` takes to decode, by decoder: ``python -m tests.bench.decoding``.

Real bodies: the recorded ones, with their list of nodes repeated to the size asked for. Ratios are to the first column.
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, TypeAdapter

from extender.pods import Pod
from extender.protocol import wire

RECORDED = Path(__file__).parents[1] / "extender" / "protocol" / "recorded" / "1.37.2"


class _Anything(BaseModel):
    """ExtenderArgs with Pydantic's validators; the pod stays a dictionary, which is less than wire does."""

    Pod: dict[str, Any]
    Nodes: dict[str, Any] | None = None
    NodeNames: list[str] | None = None


class _InOneStep(msgspec.Struct, frozen=True):
    """ExtenderArgs as one msgspec struct: exact capitals only."""

    Pod: Pod
    Nodes: msgspec.Raw = msgspec.Raw(b"null")
    NodeNames: list[str] | None = None


def body(mode: str, nodes: int) -> bytes:
    """A recorded body with this many nodes."""
    recorded = json.loads((RECORDED / f"prioritize-{mode}.json").read_text())["body"]
    if mode == "names":
        recorded["NodeNames"] = [f"node-{i:05d}" for i in range(nodes)]
    else:
        items = recorded["Nodes"]["items"]
        recorded["Nodes"]["items"] = [
            {**node, "metadata": {**node["metadata"], "name": f"node-{i:05d}"}}
            for i, node in ((i, items[i % len(items)]) for i in range(nodes))
        ]
    return json.dumps(recorded, separators=(",", ":")).encode()


def microseconds(decode: Callable[[bytes], object], raw: bytes) -> float:
    """Best of five rounds."""
    timer = timeit.Timer(lambda: decode(raw))
    rounds = max(1, timer.autorange()[0] // 4)
    return min(timer.repeat(5, rounds)) / rounds * 1e6


def main() -> None:
    """Print a Markdown table."""
    adapter = TypeAdapter(_Anything)
    decoders: dict[str, Callable[[bytes], object]] = {
        "wire (msgspec, two steps)": wire.decode_scheduling,
        "msgspec, one struct": msgspec.json.Decoder(_InOneStep).decode,
        "json.loads": json.loads,
        "pydantic": adapter.validate_json,
    }
    print("| nodes | body | " + " | ".join(decoders) + " |")
    print("|---|---|" + "---|" * len(decoders))
    for mode, count in (
        ("names", 10),
        ("names", 500),
        ("names", 5000),
        ("objects", 10),
        ("objects", 500),
        ("objects", 5000),
    ):
        raw = body(mode, count)
        times = [microseconds(decode, raw) for decode in decoders.values()]
        cells = " | ".join(f"{time:.0f} us ({time / times[0]:.1f})" for time in times)
        print(f"| {count} {mode} | {len(raw) / 1000:.0f} kB | {cells} |")


if __name__ == "__main__":
    main()
