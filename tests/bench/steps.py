"""One pod, asked about as the shipped configuration asks, in process: with warm caches, and with cold ones.

In a loop the caches hold all that a pod needs; on a machine whose cores have other work they hold nothing of it. Cold
means that 32 MB of other memory are written before each request. What HTTP and the kernel cost is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import numpy as np

from extender.app import Application, create_app
from extender.protocol.verbs import Answer
from extender.settings import Settings
from tests.bench.client import extender_args, node_names
from tests.bench.report import Result
from tests.bench.service import fill
from tests.extender.embedded import EmbeddedSource

STEPS: Final = ("/prioritize", "after /prioritize")
PODS: Final = {"warm": 3000, "cold": 600}
WARM_UP: Final = 100
EVICTED: Final = 4_000_000
"""Numbers of 8 bytes that are written to make caches cold."""


def _at_once(work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of a coroutine that need not wait."""
    try:
        work.send(None)
    except StopIteration as ended:
        answer: Answer = ended.value
        return answer
    raise RuntimeError("the decision waited for a thread; give a deadline and rows that need none")


def _one(app: Application, body: bytes, evict: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of each of `STEPS` for one pod."""
    verbs, timer = app.verbs, app.verbs.timer
    evict()
    received = timer()
    answer = _at_once(verbs.answer("prioritize", body, received))
    answered = timer()
    verbs.answered("prioritize", answer, received)
    if answer.status != 200:
        raise RuntimeError(f"/prioritize was answered with {answer.status}: {answer.body[:200]!r}")
    return 1e6 * (answered - received), 1e6 * (timer() - answered)


def _undisturbed(taken: Sequence[float]) -> float:
    """Mean of all but the longest twentieth: some pods have rows to score and others none, and a machine interrupts."""
    return statistics.fmean(sorted(taken)[: len(taken) * 19 // 20])


async def _measure(nodes: int, names: int) -> list[Result]:
    settings = Settings(
        usage_time_limit_s=1e10, cluster_time_limit_s=1e10, assumed_time_limit_s=3600.0, deadline_ms=1000.0
    )
    app = create_app(settings, EmbeddedSource())
    fill(app.table, nodes)
    every = node_names(nodes)
    for number in range(20):  # until it is known how long so many rows take
        body = extender_args(every, number)
        app.verbs.answered("prioritize", await app.verbs.answer("prioritize", body, app.verbs.timer()), 0.0)
    other = np.zeros(EVICTED)
    results, number = [], 20
    for caches, evict in (("warm", lambda: None), ("cold", lambda: np.add(other, 1.0, out=other))):
        taken = []
        for _ in range(WARM_UP + PODS[caches]):
            first = names * number % nodes  # as kube-scheduler samples: each pod begins where the last one ended
            body = extender_args((every + every)[first : first + names], number)
            taken.append(_one(app, body, evict))
            number += 1
        means = [_undisturbed(step) for step in zip(*taken[WARM_UP:], strict=True)]
        title = f"{names} of {nodes} names, {caches} caches"
        results += [Result(f"{title}, {step}", value, "us") for step, value in zip(STEPS, means, strict=True)]
        results.append(Result(f"{title}, one pod", sum(means), "us"))
    app.engine.stop()
    return results


def measure(arguments: Sequence[str]) -> list[Result]:
    """Each step, and their sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving steps", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument(
        "--names", type=int, default=420, help="of them in each request; kube-scheduler samples so many"
    )
    chosen = parser.parse_args(arguments)
    return asyncio.run(_measure(chosen.nodes, chosen.names))
