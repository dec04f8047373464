"""What decides, read from where the settings point and made ready to answer. Refuses to choose when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender import logs
from extender.settings import Settings
from policy import heuristics
from policy.bundle import load_bundle, shipped_bundle_path
from policy.cluster import ClusterState, PodDemand
from policy.errors import BundleError, InvalidInputError, SchedulerError, ScoringError
from policy.priorities import TEMPERATURE
from policy.scorers import Scorer

WARM_ROWS: Final = 512
"""Rows scored once before the first request, because a first inference allocates and is slow."""

_log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class LoadedScorer:
    """What decides."""

    scorer: Scorer
    temperature: float  # of its priorities
    model_sha256: str  # of its model; empty for a heuristic
    manifest_sha256: str = ""  # of its bundle's manifest, which names a bundle exactly; empty for a heuristic
    # smallest and largest value ``[8]`` of each feature in training; None for a heuristic
    training_range: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def identity(self) -> dict[str, str]:
        """Return its name and hashes, as JSON."""
        return {"scorer": self.scorer.name, "model_sha256": self.model_sha256, "manifest_sha256": self.manifest_sha256}


def load_scorer(settings: Settings) -> LoadedScorer:
    """Return the scorer that the settings name.

    Raises:
        BundleError: the policy bundle is refused; the message names the field.
    """
    if settings.scorer != "policy":
        return load_heuristic(settings.scorer, settings.kubernetes_version)
    return load_policy(bundle_path(settings), settings.inference_threads)


def load_required(settings: Settings) -> LoadedScorer | None:
    """Return the scorer that the settings name, or None where its bundle is refused and none is required.

    Raises:
        BundleError: the policy bundle is refused, and one is required.
    """
    try:
        return load_scorer(settings)
    except BundleError as error:
        if settings.policy_required:
            raise
        _log.error("no policy is loaded; the fallback answers until one is", error=str(error))
        return None


def bundle_path(settings: Settings) -> Path:
    """Return the folder of the policy bundle that the settings name."""
    return settings.bundle_path or shipped_bundle_path()


def load_policy(path: Path, threads: int = 1) -> LoadedScorer:
    """The policy of a bundle, validated and proven equal to its recorded vectors.

    Raises:
        BundleError: the bundle is refused; the message names the field.
    """
    try:
        bundle = load_bundle(path, threads)
    except SchedulerError:
        raise
    except Exception as error:  # whatever a bundle does to the libraries that read it: the bundle is at fault
        raise BundleError("model", f"{type(error).__name__} while it was read; export the bundle again") from error
    manifest = bundle.manifest
    return LoadedScorer(
        scorer=bundle.scorer(),
        temperature=manifest.temperature,
        model_sha256=manifest.model_sha256,
        manifest_sha256=bundle.manifest_sha256,
        training_range=manifest.training_range(),
    )


def load_heuristic(name: str, kubernetes: str = heuristics.NEWEST_KUBERNETES) -> LoadedScorer:
    """A heuristic as what decides; see `policy.heuristics.by_name`.

    Raises:
        InvalidInputError: there is none of that name.
    """
    return LoadedScorer(heuristics.by_name(name, kubernetes), TEMPERATURE, "")


def load_candidate(name: str, threads: int = 1, kubernetes: str = heuristics.NEWEST_KUBERNETES) -> LoadedScorer:
    """A candidate: the heuristic of that name, else the policy bundle in that folder.

    Raises:
        InvalidInputError: it is neither.
        BundleError: the bundle is refused; the message names the field.
    """
    if name in heuristics.DETERMINISTIC:
        return load_heuristic(name, kubernetes)
    try:
        is_folder = Path(name).is_dir()
    except OSError:
        is_folder = True  # one that may not be looked at: to read it says what is wrong
    if not is_folder:
        known = ", ".join(sorted(heuristics.DETERMINISTIC))
        raise InvalidInputError(f"candidate {name!r} is neither a heuristic ({known}) nor the folder of a bundle")
    return load_policy(Path(name), threads)


def try_candidate(name: str | None, settings: Settings) -> tuple[LoadedScorer | None, str | None]:
    """Return the candidate of this name, or why it is refused, logged: serving goes on without it."""
    if name is None:
        return None, None
    try:
        return load_candidate(name, settings.inference_threads, settings.kubernetes_version), None
    except SchedulerError as error:
        _log.error("candidate refused; serving goes on without it", candidate=name, error=str(error))
        return None, str(error)


def warm(scorer: Scorer) -> None:
    """Let a scorer answer once, about idle nodes. Raises `ScoringError` if it cannot."""
    try:
        scorer.preferences(ClusterState.idle(np.ones(WARM_ROWS), np.ones(WARM_ROWS)), PodDemand(0.1, 0.1, 0.5))
    except SchedulerError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise ScoringError(f"scorer {scorer.name} fails to rate idle nodes ({type(error).__name__})") from error
