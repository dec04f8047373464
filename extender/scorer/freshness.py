"""Whether what is known of the cluster is recent enough for the policy to decide from. Refuses to measure ages."""

from __future__ import annotations

from collections.abc import Mapping

from extender.errors import StaleClusterError, StaleUsageError
from policy.errors import ScoringError


def staleness(ages: Mapping[str, float | None], cluster_limit_s: float, usage_limit_s: float) -> ScoringError | None:
    """Why the policy should not decide from inputs of these ages; None if it may.

    An input that was never current is no reason: before the first list nothing is known of any node, and a cluster
    without measurements is rated by what its pods request.

    Args:
        ages: seconds since each of `extender.cluster.source.INPUTS` was last known to be current.
        cluster_limit_s: oldest acceptable age of nodes and pods, seconds.
        usage_limit_s: oldest acceptable age of the newest measurement of use, seconds.
    """
    for name in ("nodes", "pods"):
        age = ages.get(name)
        if age is not None and age > cluster_limit_s:
            return StaleClusterError(f"what is known of {name} is {age:.0f} s old, over {cluster_limit_s:g} s")
    age = ages.get("usage")
    if age is not None and age > usage_limit_s:
        return StaleUsageError(f"measured use is {age:.0f} s old, over {usage_limit_s:g} s")
    return None
