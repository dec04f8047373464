"""The chance that a node runs out of memory once it takes a pod, and the bound that keeps pods off such nodes.

A node that runs out of memory kills a pod, and no preference is worth that. The bound is no bid: whatever a scorer
prefers, a node beyond it comes after every node within it. It follows from the node's row and the demand alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import ARRAYS, FLOATS, Arithmetic, Number
from policy.cluster import (
    EXPECTED_USE_RATIO,
    ClusterState,
    Demand,
    FloatArray,
    Node,
    PodDemand,
)

PRIOR_SHARE: Final = 0.05
"""Share of a node's memory that counts as pods which use what they request; see `use_ratio`. Assumption."""

MOST_USE: Final = 2.0
"""Largest ratio of use to request that is expected of a pod. Assumption: its cgroup limits it."""

USE_SPREAD: Final = 0.5
"""Standard deviation of what a pod that is not measured uses, over what is expected.

Found on selection episodes of the variants ``memory-1.2-0.4`` and ``memory-1.3-0.4``: with 0.4 more pods are killed at
load 0.2. `training.simulator.scenarios.Hidden.memory_use_sigma` is 0.15 in most scenarios.
"""

POD_MEMORY: Final = 4.0
"""Memory that pods not measured yet are taken to request each, GiB: many small ones spread less than one large one."""

POD_SHARE: Final = 0.125
"""Share of the node's memory that counts instead where it is less: pods of a small node are small. Assumption."""

RISK: Final = 2.054
"""Standard deviations that must fit between the memory expected and the node's: `LARGEST_CHANCE` of a normal law."""

LEAST_SPREAD: Final = 1e-6
"""Standard deviation that counts at least, GiB, where one divides by it."""

LARGEST_CHANCE: Final = 0.02
"""Chance of running out of memory from which a node comes after all others."""

BEYOND: Final = 8.0
"""Preference that a node beyond the bound loses at least: the range of any sum of four bids in [-1, 1] times criteria
in [0, 1]."""


def expected_memory(node: ClusterState | Node, demand: Demand, to: Arithmetic[Any]) -> Any:
    """Memory that the node's pods and this one may use, GiB, a number or ``[..., n]``.

    The lesser of two estimates, and what this pod may use. One is what is counted as used, where pods not measured yet
    take `ClusterState.memory_ratio` of their request, as the others on the node do, rather than the
    `EXPECTED_USE_RATIO` that is right on average. It still holds pods that have left since the measurement; the other,
    what was measured in proportion to the requests there are now, does not.
    """
    of_a_pod, prior = to.minimum(node.memory_ratio, MOST_USE), PRIOR_SHARE * node.memory_allocatable
    counted = node.memory_used + (of_a_pod - EXPECTED_USE_RATIO) * node.memory_unseen
    in_proportion: Any = node.memory_ratio * (node.memory_nonzero + prior) - prior
    return to.minimum(counted, in_proportion) + of_a_pod * demand.memory_nonzero


def use_ratio(measured: Number, requested: Number, allocatable: Number, to: Arithmetic[Number]) -> Number:
    """Memory that a node's pods use over what they request: what `ClusterState.memory_ratio` holds.

    Drawn towards 1 while little is requested: as if pods that use what they request took `PRIOR_SHARE` of the memory.
    A node that was never measured has `policy.cluster.UNMEASURED_MEMORY_RATIO` instead.

    Args:
        measured: memory in use on the node when it was measured, GiB; 0 where it was not.
        requested: non-zero requests of the node's pods that were measured, GiB.
        allocatable: allocatable memory of the node, GiB, > 0.
        to: how to compute with these.
    """
    prior = PRIOR_SHARE * allocatable
    return to.maximum((measured + prior) / (requested + prior), EXPECTED_USE_RATIO)


def spread(node: ClusterState | Node, demand: Demand, to: Arithmetic[Any]) -> Any:
    """Standard deviation of `expected_memory`, GiB: of pods that are not measured, independent of each other."""
    of_each = to.minimum(POD_SHARE * node.memory_allocatable, POD_MEMORY)
    unmeasured = to.root((node.memory_unseen + demand.memory_nonzero) * of_each)
    return USE_SPREAD * to.minimum(node.memory_ratio, MOST_USE) * unmeasured


def shortage_chance(state: ClusterState, demand: Demand) -> FloatArray:
    """Return the chance that the node runs out of memory if it takes the pod, 0..1, ``[..., n]``.

    The normal law with the mean `expected_memory` and the standard deviation `spread`, approximated by the logistic
    function of 1.702 times its argument (at most 0.01 off).
    """
    deviation = np.maximum(spread(state, demand, ARRAYS), LEAST_SPREAD)
    deviations = (state.memory_allocatable - expected_memory(state, demand, ARRAYS)) / deviation
    chance: FloatArray = 0.5 - 0.5 * np.tanh(0.5 * 1.702 * deviations)
    return chance


def excess(node: ClusterState | Node, demand: Demand, to: Arithmetic[Any]) -> Any:
    """How far the node is beyond the bound, a number or ``[..., n]``; positive beyond it.

    The bound is where `shortage_chance` reaches `LARGEST_CHANCE`. Beyond it counts what is missing, GiB, over the root
    of the node's memory: where all nodes are beyond, a large one may miss more than a small one.
    """
    missing = expected_memory(node, demand, to) + RISK * spread(node, demand, to) - node.memory_allocatable
    return missing / to.root(node.memory_allocatable)


def bounded(preference: NDArray[np.floating[Any]], state: ClusterState, demand: Demand) -> NDArray[np.floating[Any]]:
    """Lower the preference of nodes beyond the bound by `BEYOND` and by their `excess`, ``[..., n]``.

    Preferences of nodes within the bound stay bit for bit. Those beyond come after them all, the less full the sooner.
    """
    if isinstance(demand, PodDemand) and state.shape == (1,):
        over = excess(state.only(), demand, FLOATS)
        return preference - preference.dtype.type(BEYOND + over) if over > 0.0 else preference
    over = excess(state, demand, ARRAYS)
    beyond = over > 0.0
    if not beyond.any():
        return preference
    lowered: NDArray[np.floating[Any]] = preference - np.where(beyond, BEYOND + over, 0.0).astype(preference.dtype)
    return lowered
