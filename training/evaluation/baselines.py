"""Scheduling rules that are baselines only; those that serving may fall back to live in `policy.heuristics`.

Each names its source and follows it, with every deviation said. Only the static weights know a node's speed. All see
what any scheduler sees: measured use, with the expected use of pods bound since. All count non-zero requests
(`policy.cluster.ClusterState`), so that a pod that requests nothing leaves a trace; the sources have their own defaults
for such pods: 1 core in Trimaran, 250m and 200 MB in Koordinator.

The module is long because the rules are read side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betainc

from policy import criteria, heuristics
from policy.cluster import ClusterState, Demand, FloatArray
from policy.scorers import Scorer

# ---- classic rules


class RoundRobin:
    """Nodes in turn, one step further with each decision; a node that does not fit is passed over."""

    name = "round-robin"
    local = False

    def __init__(self) -> None:
        self._turn = 0

    def reset(self) -> None:
        """Start again at the first node."""
        self._turn = 0

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Highest for the node whose turn it is, then for those after it."""
        del demand
        size = len(state)
        waits = (np.arange(size) - self._turn) % size
        self._turn += 1
        return np.broadcast_to(-waits.astype(np.float64), state.shape)


def first_fit(state: ClusterState, demand: Demand) -> FloatArray:
    """The first node that fits: Johnson, "Fast algorithms for bin packing" (1974)."""
    del demand
    return np.broadcast_to(-np.arange(len(state), dtype=np.float64), state.shape)


def best_fit(state: ClusterState, demand: Demand) -> FloatArray:
    """The node that is left with least: Johnson (1974), for two resources.

    What is left of CPU and memory is added, each over the cluster's mean node (after Panigrahy et al., "Heuristics for
    vector bin packing", 2011, which weigh dimensions by their scarcity). A node that the pod does not fit by non-zero
    requests comes after all that it fits, the fuller the later: kube-scheduler's filter counts requests as they are.
    """
    cpu = state.cpu_allocatable - state.cpu_nonzero - demand.cpu_nonzero
    memory = state.memory_allocatable - state.memory_nonzero - demand.memory_nonzero
    mean_cpu = state.cpu_allocatable.mean(-1, keepdims=True)
    mean_memory = state.memory_allocatable.mean(-1, keepdims=True)
    left: FloatArray = cpu / mean_cpu + memory / mean_memory
    over = np.minimum(cpu, 0.0) / mean_cpu + np.minimum(memory, 0.0) / mean_memory
    return np.where(over < 0.0, over - 2.0 * len(state), -left)


class PowerOfTwoChoices:
    """Of two nodes drawn at random, the one less used: Mitzenmacher, IEEE TPDS 12(10), 2001.

    If neither fits, the next of the random order is taken.

    Args:
        seed: of the draws.
    """

    name = "power-of-two"
    local = False

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Begin the draws anew."""
        self._generator = np.random.default_rng(self._seed)

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """The two drawn nodes first, by what stays unused; then a random order."""
        luck = self._generator.random(state.shape)
        if len(state) < 3:
            return heuristics.least_used(state, demand)
        second = np.partition(luck, -2, axis=-1)[..., -2:-1]
        idle = np.clip(heuristics.least_used(state, demand), -1.0, 1.0)
        return np.where(luck >= second, 4.0 + idle, luck)


# ---- Trimaran: kubernetes-sigs/scheduler-plugins, pkg/trimaran

TARGET: Final = 40.0
"""DefaultTargetUtilizationPercent of TargetLoadPacking."""

REQUEST_MULTIPLIER: Final = 1.5
"""DefaultRequestsMultiplier of TargetLoadPacking: predicted use over request of a pod without limits."""


def target_load_packing(state: ClusterState, demand: Demand) -> FloatArray:
    """TargetLoadPacking (targetloadpacking.go): pack to `TARGET` % of CPU use, then spread; integers 0..100.

    Deviation: pods bound since the measurement count as `policy.criteria.EXPECTED_USE_RATIO` of their request, here as
    for everybody, not as 1.5 of it.
    """
    use = 100.0 * (state.cpu_used + REQUEST_MULTIPLIER * demand.cpu_nonzero) / state.cpu_allocatable
    packed = (100.0 - TARGET) * use / TARGET + TARGET
    spread = TARGET * (100.0 - use) / (100.0 - TARGET)
    return _rounded(np.where(use <= TARGET, packed, np.where(use <= 100.0, spread, 0.0)))


SMOOTHING: Final = 0.05
"""Weight of the newest look in the running mean and variance of a node's use. Assumption: about 20 decisions back;
Trimaran's watcher keeps 15 minutes."""


def _shares(state: ClusterState, cpu: FloatArray | float, memory: FloatArray | float) -> FloatArray:
    """CPU and memory over allocatable, ``[2, ..., n]``."""
    return np.stack([cpu / state.cpu_allocatable, memory / state.memory_allocatable])


class _Watcher:
    """A rule on the running mean and standard deviation of each node's use, exponentially weighted."""

    local = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every node."""
        self._mean: FloatArray | None = None
        self._variance: FloatArray | None = None

    def _look(self, state: ClusterState) -> tuple[FloatArray, FloatArray]:
        """Take note of the state; mean and standard deviation over allocatable, ``[2, ..., n]``, CPU and memory."""
        use = _shares(state, state.cpu_used, state.memory_used)
        if self._mean is None or self._variance is None or self._mean.shape != use.shape:
            self._mean, self._variance = use, np.zeros_like(use)
        step = use - self._mean
        self._mean = self._mean + SMOOTHING * step
        self._variance = (1.0 - SMOOTHING) * (self._variance + SMOOTHING * step * step)
        return self._mean, np.sqrt(self._variance)


def variation_risk(
    mean: FloatArray, deviation: FloatArray, margin: float = 1.0, sensitivity: float = 1.0
) -> FloatArray:
    """LoadVariationRiskBalancing's score of one resource, 0..100 (analysis.go, computeScore).

    Args:
        mean: average use and the pod's request, over capacity.
        deviation: standard deviation of use over capacity.
        margin: SafeVarianceMargin.
        sensitivity: SafeVarianceSensitivity; a negative one counts as 1, zero takes the deviation away.
    """
    mu, sigma = np.clip(mean, 0.0, 1.0), np.clip(deviation, 0.0, 1.0)
    if sensitivity == 0.0:
        sigma = np.where(sigma < 1.0, 0.0, sigma)
    elif sensitivity > 0.0:
        sigma = sigma ** (1.0 / sensitivity)
    sigma = np.clip(margin * sigma, 0.0, 1.0)
    return 100.0 * (1.0 - (mu + sigma) / 2.0)


class LoadVariationRiskBalancing(_Watcher):
    """The resource that scores worse decides; defaults margin 1, sensitivity 1; integers 0..100."""

    name = "load-variation-risk"

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Score of every node."""
        mean, deviation = self._look(state)
        pod = _shares(state, demand.cpu_nonzero, demand.memory_nonzero)
        score = variation_risk(np.clip(mean, 0.0, 1.0) + pod, deviation)
        return _rounded(score.min(axis=0))


SMOOTHING_WINDOW: Final = 5.0
"""DefaultSmoothingWindowSize of LowRiskOverCommitment."""

RISK_LIMIT_WEIGHT: Final = 0.5
"""DefaultRiskLimitWeight of LowRiskOverCommitment."""

LIMIT_RATIO: Final = 1.5
"""Limit over request. Assumption: pods here have no limits, and without any the plugin finds no risk anywhere."""

MAX_VARIANCE_ALLOWANCE: Final = 0.99


def overcommitment_risk(
    mean: FloatArray,
    deviation: FloatArray,
    requested: FloatArray,
    limit: FloatArray,
    requested_before: FloatArray,
    limit_before: FloatArray,
) -> FloatArray:
    """LowRiskOverCommitment's risk of one resource, 0..1 (lowriskovercommitment.go, computeRisk); all over capacity.

    Half of it is how far limits exceed the node, half the probability that measured use, fitted by a Beta distribution,
    exceeds what was requested before this pod, given that it stays below the limits.

    Args:
        mean: average measured use.
        deviation: its standard deviation.
        requested: requests of the node's pods and this pod.
        limit: limits of the node's pods and this pod.
        requested_before: requests without this pod.
        limit_before: limits without this pod.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(limit > 1.0, (limit - 1.0) / np.where(limit > requested, limit - requested, np.inf), 0.0)
    mu = np.clip(mean, 0.0, 1.0)
    ceiling = np.sqrt(np.where((mu > 0.0) & (mu < 1.0), mu * (1.0 - mu), 0.0) * MAX_VARIANCE_ALLOWANCE)
    sigma = np.minimum(np.clip(deviation, 0.0, 1.0) * np.sqrt(SMOOTHING_WINDOW), ceiling)
    within = _below(mu, sigma, np.clip(requested_before, 0.0, 1.0))
    conditioned = (limit_before < 1.0) & (requested_before <= limit_before)
    fitted = (mu > 0.0) & (sigma > 0.0)
    below_limit = _below(mu, sigma, np.clip(limit_before, 0.0, 1.0))
    share = np.clip(within / np.where(below_limit > 0.0, below_limit, 1.0), 0.0, 1.0)
    within = np.where(conditioned & fitted & (below_limit > 0.0), share, within)
    within = np.where(conditioned & (limit_before == 0.0), 1.0, within)
    risk: FloatArray = np.clip(RISK_LIMIT_WEIGHT * excess + (1.0 - RISK_LIMIT_WEIGHT) * (1.0 - within), 0.0, 1.0)
    return risk


def _below(mu: FloatArray, sigma: FloatArray, threshold: FloatArray) -> FloatArray:
    """Probability that a Beta variable of this mean and deviation stays below the threshold (beta.go)."""
    certain = (sigma <= 0.0) | (mu <= 0.0)
    variance = np.where(certain, 1.0, sigma * sigma)
    shape = np.maximum(mu * (1.0 - mu) / variance - 1.0, np.finfo(np.float64).tiny)
    fitted = betainc(np.where(certain, 1.0, mu * shape), np.where(certain, 1.0, (1.0 - mu) * shape), threshold)
    return np.where(certain, ((mu <= 0.0) | (mu <= threshold)).astype(np.float64), fitted)


class LowRiskOverCommitment(_Watcher):
    """1 - the greater of the CPU's and the memory's risk, as integers 0..100."""

    name = "low-risk-overcommitment"

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Score of every node."""
        mean, deviation = self._look(state)
        before = _shares(state, state.cpu_nonzero, state.memory_nonzero)
        after = before + _shares(state, demand.cpu_nonzero, demand.memory_nonzero)
        risk = overcommitment_risk(mean, deviation, after, LIMIT_RATIO * after, before, LIMIT_RATIO * before)
        return _rounded(100.0 * (1.0 - risk.max(axis=0)))


# ---- Koordinator: koordinator-sh/koordinator, pkg/scheduler/plugins/loadaware

CPU_SCALING: Final = 0.85
MEMORY_SCALING: Final = 0.7
"""EstimatedScalingFactors: use over request that Koordinator expects of a pod, CPU and memory."""


def koordinator_load_aware(state: ClusterState, demand: Demand) -> FloatArray:
    """LoadAwareScheduling (load_aware.go): mean over CPU and memory of the share that estimated use leaves; 0..100.

    Integers, cut as in Go. Deviation: pods bound since the measurement count as
    `policy.criteria.EXPECTED_USE_RATIO` of their request, here as for everybody.
    """
    cpu = state.cpu_allocatable - state.cpu_used - CPU_SCALING * demand.cpu_nonzero
    memory = state.memory_allocatable - state.memory_used - MEMORY_SCALING * demand.memory_nonzero
    shares = [
        np.floor(100.0 * np.maximum(cpu, 0.0) / state.cpu_allocatable),
        np.floor(100.0 * np.maximum(memory, 0.0) / state.memory_allocatable),
    ]
    result: FloatArray = np.floor((shares[0] + shares[1]) / 2.0)
    return result


# ---- the best that constant bids can do


@dataclass(frozen=True, slots=True)
class StaticWeights:
    """Constant bids on headroom, balance and expected speed: what an actor could do without looking."""

    weights: tuple[float, float, float]  # the bids
    name: str = "static-weights"  # identifier in reports
    local: bool = True

    def preferences(self, state: ClusterState, demand: Demand) -> FloatArray:
        """Weighted sum of the three criteria."""
        headroom, balance, speed = self.weights
        return (
            headroom * criteria.headroom(state, demand)
            + balance * criteria.balance(state, demand)
            + speed * criteria.expected_speed(state, demand)
        )


BEST_STATIC: Final = (0.019, 0.022, 0.506)
"""Found by `training.evaluation.static_weights` on selection seeds of the reference scenario."""


def baselines(seed: int = 0) -> list[Scorer]:
    """Every rule a policy has to beat, fresh, under its own name; `seed` is for those that draw."""
    rules = {
        "first-fit": first_fit,
        "best-fit": best_fit,
        "target-load-packing": target_load_packing,
        "koordinator-load-aware": koordinator_load_aware,
    }
    return [
        heuristics.Random(np.random.default_rng(seed)),
        RoundRobin(),
        *heuristics.DETERMINISTIC.values(),
        *(
            heuristics.Heuristic(name, rule, local=name not in ("first-fit", "best-fit"))
            for name, rule in rules.items()
        ),
        LoadVariationRiskBalancing(),
        LowRiskOverCommitment(),
        PowerOfTwoChoices(seed),
        StaticWeights(BEST_STATIC),
    ]


def _rounded(score: FloatArray) -> FloatArray:
    """Nearest integer, halves up, as Go's math.Round does for what is not negative."""
    return np.floor(score + 0.5)
