"""What decides, read from where the settings point and made ready to answer. Refuses to choose when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy import heuristics
from policy.bundle import load_bundle
from policy.cluster import ClusterState, PodDemand
from policy.errors import InvalidInputError
from policy.priorities import TEMPERATURE
from policy.scorers import ActorScorer, Scorer

WARM_ROWS: Final = 512
"""Rows scored once before the first request, because a first inference allocates and is slow."""


@dataclass(frozen=True, slots=True)
class LoadedScorer:
    """What decides.

    Attributes:
        scorer: preferences.
        temperature: of its priorities.
        model_sha256: of its model; empty for a heuristic.
        manifest_sha256: of its bundle's manifest, which names a bundle exactly; empty for a heuristic.
        training_range: smallest and largest value ``[8]`` of each feature in training; None for a heuristic.
    """

    scorer: Scorer
    temperature: float
    model_sha256: str
    manifest_sha256: str = ""
    training_range: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def load_policy(path: Path, threads: int = 1) -> LoadedScorer:
    """The policy of a bundle, validated and proven equal to its recorded vectors.

    Raises:
        BundleError: the bundle is refused; the message names the field.
    """
    bundle = load_bundle(path, threads)
    manifest = bundle.manifest
    return LoadedScorer(
        scorer=ActorScorer(bundle.actors, manifest.name),
        temperature=manifest.temperature,
        model_sha256=manifest.model_sha256,
        manifest_sha256=bundle.manifest_sha256,
        training_range=manifest.training_range(),
    )


def load_heuristic(name: str) -> LoadedScorer:
    """A heuristic as what decides; raises `InvalidInputError` if there is none of that name."""
    return LoadedScorer(heuristics.by_name(name), TEMPERATURE, "")


def load_candidate(name: str, threads: int = 1) -> LoadedScorer:
    """A candidate: the heuristic of that name, else the policy bundle in that folder.

    Raises:
        InvalidInputError: it is neither.
        BundleError: the bundle is refused; the message names the field.
    """
    if name in heuristics.DETERMINISTIC:
        return load_heuristic(name)
    if not Path(name).is_dir():
        known = ", ".join(sorted(heuristics.DETERMINISTIC))
        raise InvalidInputError(f"candidate {name!r} is neither a heuristic ({known}) nor the folder of a bundle")
    return load_policy(Path(name), threads)


def warm(scorer: Scorer) -> None:
    """Let a scorer answer once, about idle nodes.

    Raises:
        ScoringError: it cannot.
    """
    scorer.preferences(ClusterState.idle(np.ones(WARM_ROWS), np.ones(WARM_ROWS)), PodDemand(0.1, 0.1, 0.5))
