"""Scenarios that differ from `reference` in one thing. Plays nothing.

A policy is chosen on the reference scenario and must hold where the world is another. Each variant says what is
changed; everything else, versions included, is the reference's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from training.simulator.scenarios import Contention, Scenario, load_scenario, scenario_names

BASE: Final = "reference"

MEMORY_USES: Final = (1.0, 1.1, 1.2, 1.3)
"""Memory use over request of the variants ``memory-USE-SIGMA``, median of every class of pods."""

MEMORY_SIGMAS: Final = (0.15, 0.4)
"""Their sigma of the log-normal spread between pods."""

REPLICAS: Final = 12
"""Pods of each workload of the variant ``first-look``."""


def _pods(scenario: Scenario, **fields: Any) -> Scenario:
    """The scenario with these fields in every class of pods."""
    return replace(scenario, pod_classes=tuple(replace(pod, **fields) for pod in scenario.pod_classes))


def _contention(**fields: float) -> Callable[[Scenario], Scenario]:
    return lambda scenario: replace(scenario, contention=Contention(**fields))


def _decay(factor: float) -> Callable[[Scenario], Scenario]:
    return lambda scenario: replace(
        scenario, hidden=replace(scenario.hidden, decay_spread=factor * scenario.hidden.decay_spread)
    )


def _memory(use: float, sigma: float) -> Callable[[Scenario], Scenario]:
    return lambda scenario: replace(
        _pods(scenario, memory_use=use), hidden=replace(scenario.hidden, memory_use_sigma=sigma)
    )


COVERED_MEMORY_USES: Final = (0.5, 0.8, 1.1, 1.4)
"""Memory use over request of the reference's four classes of pods in the variants ``wide``."""


def _wide(scenario: Scenario) -> Scenario:
    """What a policy that is to hold everywhere trains on: any urgency, any memory use, pods without requests."""
    pods = tuple(
        replace(pod, slack=(1.0, pod.slack[1]), memory_use=use, unrequested=0.1)
        for pod, use in zip(scenario.pod_classes, COVERED_MEMORY_USES, strict=True)
    )
    return replace(
        scenario,
        pod_classes=pods,
        hidden=replace(scenario.hidden, memory_use_sigma=0.4, workload_spread=0.2),
    )


VARIANTS: Final[dict[str, Callable[[Scenario], Scenario]]] = {
    # pods that can hardly wait at all
    "urgent": lambda scenario: _pods(scenario, slack=(1.0, 1.2)),
    # an empty cluster that fills with workloads of equal replicas, from the first pod on
    "first-look": lambda scenario: replace(
        _pods(scenario, slack=(1.0, 1.5)),
        arrivals=replace(scenario.arrivals, replicas=REPLICAS),
        episode_arrivals=20 * REPLICAS,
        warmup_arrivals=0,
    ),
    "three": lambda scenario: scenario.resized(3),
    "knee-0.3": _contention(knee=0.3),
    "knee-0.85": _contention(knee=0.85),
    "contention-third": _contention(scale=1.0 / 3.0),
    "contention-double": _contention(scale=2.0),
    "decay-none": _decay(0.0),
    "decay-double": _decay(2.0),
    "use-0.2": lambda scenario: _pods(scenario, cpu_use=0.2),
    "use-1.5": lambda scenario: _pods(scenario, cpu_use=1.5),
    # a quarter of the nodes stands still for half of the time, and neither a label nor pressure says so
    "throttled": lambda scenario: replace(
        scenario, hidden=replace(scenario.hidden, throttled_share=0.25, throttled_loss=0.5)
    ),
    # what training/configs/default.yaml trains on
    "wide": _wide,
    "wide-replicas": lambda scenario: replace(
        _wide(scenario), arrivals=replace(scenario.arrivals, replicas=REPLICAS // 2)
    ),
    **{f"memory-{use}-{sigma}": _memory(use, sigma) for use in MEMORY_USES for sigma in MEMORY_SIGMAS},
}
"""Every variant by name."""

PHYSICS: Final = tuple(name for name in VARIANTS if name.split("-")[0] in ("knee", "contention", "decay", "use"))
"""Variants in which nodes and pods behave otherwise than in training."""

COVERAGE: Final = ("wide", "wide-replicas")
"""Variants to train on; nothing is judged by them."""

MEMORY: Final = tuple(name for name in VARIANTS if name.startswith("memory-"))
"""Variants in which pods use more memory than they request."""


def find_scenario(name: str) -> Scenario:
    """The variant of that name, else as `load_scenario`.

    Raises:
        InvalidInputError: there is neither.
    """
    if name not in VARIANTS:
        return load_scenario(name, (*scenario_names(), *VARIANTS))
    return replace(VARIANTS[name](load_scenario(BASE)), name=name)
