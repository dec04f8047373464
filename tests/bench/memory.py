"""Memory of the service, and how long it takes to be ready, over a large cluster of objects of a realistic size."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench import source_memory
from tests.bench.report import Result


def measure(arguments: Sequence[str]) -> list[Result]:
    """List the cluster, let pods come and go for a while, and read /proc."""
    chosen = source_memory.options("memory", __doc__, churn=250.0, seconds=30.0).parse_args(arguments)
    figures = source_memory.measure(chosen.nodes, chosen.pods, chosen.bytes, chosen.churn, chosen.seconds)
    title = f"{chosen.nodes} nodes, {chosen.pods} pods"
    return [
        Result(f"{title}, from start to ready", figures["ready_s"], "s", at_most=20.0),
        Result(f"{title}, resident once ready", figures["rss_ready_mib"], "MiB", at_most=250.0),
        Result(f"{title}, resident at most, churn included", figures["rss_peak_mib"], "MiB", at_most=250.0),
        Result(f"{title}, churn, CPU cores used", figures["cpu_cores_in_churn"], "cores"),
        Result(f"{title}, churn, slowest answer", figures["slowest_answer_in_churn_ms"], "ms"),
    ]
