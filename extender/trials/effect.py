"""How many pods were not late that would have been late with kube-default, with an interval. Pure.

Where an experiment gives kube-default an arm, the difference of the arms is the estimate. Without one nobody saw what
kube-default's choice would have led to, so a model says it: how long a pod runs scales with what its node is like, and
the pod's own run is rescaled to the other node. That is an accelerated failure time model (L. J. Wei, Statistics in
Medicine 11, 1992), and the direct method of off-policy evaluation (Dudik, Langford and Li, ICML 2011). Weighting what
was seen instead is no way: a policy without chance leaves no choice of kube-default's any weight.

Both have the interval of a jackknife that deletes groups of workloads (Busing, Meijer and van der Leeden, Statistics
and Computing 9, 1999), with Student's t. docs/late-placements.md has the formulas, and what the number leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.errors import EvidenceError
from extender.pace import unhurried
from extender.trials.comparison import CONFIDENCE, t_quantile
from policy.cluster import ClusterState, PodDemand
from policy.observation import observe_unclipped

FEWEST_PODS, FEWEST_OTHER, FEWEST_WORKLOADS = 100, 20, 10
"""Pods whose lateness is known, those that kube-default would have put elsewhere, workloads: fewer say nothing."""

RULE_OF_THREE: Final = 3.0
"""Least half width of an interval, pods: what never happened may still have this expectation (Hanley and Lippman-Hand,
JAMA 249, 1983)."""

GROUPS: Final = 20
FEWEST_GROUPS: Final = 5.0

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float
    unlike: float = 0.0  # pods of those given that kube-default would have put on nodes unlike any seen


@dataclass(frozen=True, slots=True)
class Evidence:
    """Pods that ended, and where kube-default would have put them: n pods, m nodes."""

    seen: Values  # each pod on its node, as `described`, ``[n, 8]``
    waited_s: Values  # from a pod's creation until it was bound, ``[n]``
    ran_s: Values  # from then to its end, > 0, ``[n]``
    expected_s: Values  # its expected duration on the reference core, > 0, ``[n]``
    allowed_s: Values  # what its SLA allows from its creation to its end, ``[n]``
    workloads: NDArray[np.intp]  # number of each pod's workload, ``[n]``
    other: Values  # pods on nodes that kube-default prefers and they did not go to, ``[m, 8]``
    pods: NDArray[np.intp]  # position of these pods, ``[m]``
    weights: Values  # chance that kube-default draws that node, ``[m]``; a pod's add up to 1 or less


def described(state: ClusterState, demand: PodDemand, expected_s: float) -> Values:
    """Return what a pod's run may depend on, on each node, ``[n, 8]``.

    Logarithm of the node's speed, use, CPU pressure, CPU and memory requested, size of the pod on the node, logarithms
    of urgency and expected duration.
    """
    cpu, memory, used, _, pressure, speed, size, _ = observe_unclipped(state, demand).astype(np.float64).T
    pod = np.log([max(demand.urgency, 0.01), max(expected_s, 0.001)])
    found = np.stack([np.log(np.maximum(1.0 + speed, 0.01)), used, pressure, cpu, memory, size], axis=1)
    return np.hstack([np.clip(np.nan_to_num(found), -10.0, 10.0), np.broadcast_to(pod, (len(found), 2))])


NODE: Final = 6
"""Columns of `described` that depend on the node."""


def by_model(evidence: Evidence) -> Estimate:
    """Estimate how many of the pods were on time that kube-default would have made late, less the opposite.

    Raises:
        EvidenceError: there is too little to say it.
    """
    if (known := len(evidence.ran_s)) < FEWEST_PODS:
        raise EvidenceError(f"{known} pods ended whose SLA and nodes are known; {FEWEST_PODS} are needed")
    if not len(evidence.weights):
        return Estimate(0.0, 0.0, 0.0)
    _check_workloads(evidence.workloads)
    alike = _within(evidence.other[:, :NODE], evidence.seen[:, :NODE])
    other, pods, weights = evidence.other[alike], evidence.pods[alike], evidence.weights[alike]
    total, unlike = float(weights.sum()), float(evidence.weights[~alike].sum())
    if total < FEWEST_OTHER:
        raise EvidenceError(
            f"kube-default would have put about {total + unlike:.0f} of these pods on other nodes, {total:.0f} of them "
            f"on nodes like those seen; {FEWEST_OTHER} are needed"
        )
    pooled = np.vstack([evidence.seen, other])
    center, scale = pooled.mean(axis=0), pooled.std(axis=0)
    scale[scale < 1e-9] = 1.0
    seen, there = (_terms((part - center) / scale) for part in (evidence.seen, other))
    moves = there - seen[pods]
    slowdown = _tamed(np.log(evidence.ran_s / evidence.expected_s))
    waited, ran, allowed = evidence.waited_s[pods], evidence.ran_s[pods], evidence.allowed_s[pods]
    late = waited + ran > allowed

    def difference(mask: Mask) -> float:
        """Share of the pods moved that would have been late, less the share that was; of the pods of `mask`."""
        fitted = _fitted(seen[mask], slowdown[mask], evidence.workloads[mask])
        otherwise = waited + ran * np.exp(np.clip(moves @ fitted, -5.0, 5.0)) > allowed
        kept = weights * mask[pods]
        return float(kept @ (otherwise.astype(np.float64) - late) / kept.sum()) if kept.any() else math.nan

    share, error, freedom = jackknife(difference, evidence.workloads)
    half = max(total * t_quantile(0.5 + CONFIDENCE / 2.0, freedom) * error, RULE_OF_THREE)
    return Estimate(total * share, total * share - half, total * share + half, unlike)


def by_arms(late: Mask, workloads: NDArray[np.intp], kube: Mask) -> Estimate:
    """Estimate the same for the pods of one arm from those of the arm that kube-default placed.

    Args:
        late: whether each pod was, ``[n]``.
        workloads: number of each pod's workload, which was drawn into its arm as a whole, ``[n]``.
        kube: which pods are of kube-default's arm, ``[n]``.

    Raises:
        EvidenceError: there are too few workloads in an arm.
    """
    shares, parts = list[float](), list[tuple[float, float]]()
    for arm in (kube, ~kube):
        _check_workloads(workloads[arm])
        share, error, freedom = jackknife(partial(_share, late[arm].astype(np.float64)), workloads[arm])
        shares.append(share)
        parts.append((error**2, freedom))
    pods, variance = int((~kube).sum()), sum(each for each, _ in parts)
    half = 0.0
    if variance > 0.0:
        freedom = variance**2 / sum(each**2 / freedom for each, freedom in parts)
        half = t_quantile(0.5 + CONFIDENCE / 2.0, freedom) * math.sqrt(variance)
    value, half = pods * (shares[0] - shares[1]), max(pods * half, RULE_OF_THREE)
    return Estimate(value, value - half, value + half)


def _share(late: Values, mask: Mask) -> float:
    return float(late[mask].mean())


def jackknife(estimate: Callable[[Mask], float], workloads: NDArray[np.intp]) -> tuple[float, float, float]:
    """Return an estimate, its standard error, and the degrees of freedom of that.

    Args:
        estimate: its value from some of the pods, bool ``[n]``.
        workloads: number of each pod's workload, ``[n]``; pods of one are left out together.

    Raises:
        EvidenceError: most pods are of few workloads.
    """
    groups = _groups(workloads)
    sizes = np.bincount(groups).astype(np.float64)
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    if effective < FEWEST_GROUPS:
        raise EvidenceError("most of the pods are of few workloads, so an interval cannot be told")
    whole = estimate(np.ones(len(groups), dtype=np.bool_))
    without = np.array([estimate(groups != group) for group in unhurried(range(len(sizes)))])
    ratios = sizes.sum() / sizes
    pseudo = ratios * whole - (ratios - 1.0) * without
    center = len(sizes) * whole - ((1.0 - 1.0 / ratios) * without).sum()
    variance = float(((pseudo - center) ** 2 / (ratios - 1.0)).mean())
    if not math.isfinite(variance):
        raise EvidenceError("nearly all pods that count are of one group of workloads, so an interval cannot be told")
    return whole, math.sqrt(variance), effective - 1.0


def _groups(workloads: NDArray[np.intp]) -> NDArray[np.intp]:
    """Number of the group of each pod, ``[n]``: at most `GROUPS` of about the same size, of whole workloads."""
    _, numbers, counts = np.unique(workloads, return_inverse=True, return_counts=True)
    of_workload, sizes = np.zeros(len(counts), dtype=np.intp), np.zeros(min(GROUPS, len(counts)))
    for workload in np.argsort(-counts, kind="stable").tolist():
        of_workload[workload] = group = int(sizes.argmin())
        sizes[group] += counts[workload]
    return of_workload[numbers]


def _check_workloads(workloads: NDArray[np.intp]) -> None:
    if (count := len(np.unique(workloads))) < FEWEST_WORKLOADS:
        raise EvidenceError(
            f"workloads of these pods: {count}; {FEWEST_WORKLOADS} are needed to tell chance from effect"
        )


def _within(values: Values, seen: Values) -> Mask:
    """Which rows lie where others were seen, in every column, give or take 5 % of their range."""
    low, high = seen.min(axis=0), seen.max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    return np.asarray(((values >= low - margin) & (values <= high + margin)).all(axis=1))


def _terms(columns: Values) -> Values:
    """What the logarithm of a run is linear in: the columns, and squares and products that matter, ``[n, 12]``."""
    speed, used, cpu, size = columns.T[[0, 1, 3, 5]]
    more = used**2, cpu**2, speed * used, size * used
    return np.column_stack([columns, *(np.clip(each, -10.0, 10.0) for each in more)])


def _tamed(values: Values) -> Values:
    """The values, those far from the median pulled nearer: one pod that hung must not decide."""
    middle = float(np.median(values))
    reach = 5.0 * 1.4826 * float(np.median(np.abs(values - middle)))
    return np.clip(values, middle - reach, middle + reach) if reach > 0.0 else values


def _fitted(terms: Values, values: Values, workloads: NDArray[np.intp]) -> Values:
    """Ridge regression in which the workloads have random effects as large as the noise, ``[terms]``."""
    _, numbers, counts = np.unique(workloads, return_inverse=True, return_counts=True)
    both = np.column_stack([terms, values])
    both = both - both.mean(axis=0)
    sums = np.zeros((len(counts), both.shape[1]))
    np.add.at(sums, numbers, both)
    both = both - ((1.0 - 1.0 / np.sqrt(1.0 + counts)) / counts)[numbers, None] * sums[numbers]
    left, right = both[:, :-1], both[:, -1]
    return np.linalg.solve(left.T @ left + np.eye(left.shape[1]), left.T @ right)
