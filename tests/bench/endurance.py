"""Whether memory stays flat: ten minutes of pods that come and go and of requests, over a large cluster."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench import source_memory
from tests.bench.report import Result

MOST_GROWTH_MIB = 8.0
"""Over the last eight of ten minutes: what a straight line through the samples may rise."""
FLAGS = ("--ledger-size=500",)
"""The decisions remembered grow to a bound: one that is reached within the first fifth."""


def measure(arguments: Sequence[str]) -> list[Result]:
    """Let pods come and go, ask meanwhile, and fit a line through the resident memory after the first fifth."""
    chosen = source_memory.options("endurance", __doc__, churn=50.0, seconds=600.0).parse_args(arguments)
    figures = source_memory.measure(chosen.nodes, chosen.pods, chosen.bytes, chosen.churn, chosen.seconds, FLAGS)
    title = f"{chosen.seconds:g} s of churn, {chosen.nodes} nodes, {chosen.pods} pods"
    slope = figures["rss_churn_slope_mib_per_min"]
    return [
        Result(f"{title}, slope of memory", slope, "MiB/min", at_most=MOST_GROWTH_MIB / 8.0),
        Result(f"{title}, resident at the end", figures["rss_after_churn_mib"], "MiB", at_most=250.0),
        Result(f"{title}, answers of /prioritize", figures["prioritize_answers_in_churn"], "answers", at_least=1),
        Result(f"{title}, slowest answer", figures["slowest_answer_in_churn_ms"], "ms"),
    ]
