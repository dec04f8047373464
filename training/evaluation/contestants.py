"""Who plays in a study: trained policies by their folders, so that they can be sent to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from policy.bundle import MANIFEST_FILE, load_bundle, read_manifest
from policy.cluster import ClusterState, Demand
from policy.errors import InvalidInputError
from policy.scorers import ActorScorer, Preferences

SEED_PREFIX: Final = "seed-"
"""Bundles in folders of this prefix are trained alike but for their seed; all others are points of the trade-off."""


@dataclass(frozen=True, slots=True)
class BundleScorer:
    """A policy bundle as a scorer that pickles: its folder travels, the model is loaded where it plays."""

    path: Path  # the bundle
    name: str  # identifier in reports
    sha256: str  # of its model
    local: bool = True

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """As `policy.scorers.ActorScorer` gives them; raises `BundleError` where the bundle does not load."""
        return _scorer(self.path, self.sha256, self.name).preferences(state, demand)


@lru_cache(maxsize=32)
def _scorer(path: Path, sha256: str, name: str) -> ActorScorer:
    bundle = load_bundle(path)
    if bundle.manifest.model_sha256 != sha256:
        raise InvalidInputError(f"bundle {path.name} changed while the study was running; start it again")
    return bundle.scorer(name)


def contestant(path: Path, name: str | None = None) -> BundleScorer:
    """The bundle of that folder, checked; named as its manifest says, or otherwise.

    Raises:
        BundleError: anything is missing or disagrees.
    """
    manifest = load_bundle(path).manifest
    return BundleScorer(path, name or manifest.name, manifest.model_sha256)


def gather(folders: Sequence[Path]) -> list[BundleScorer]:
    """Every bundle in these folders, named as its folder: a folder is a bundle, or holds bundles.

    Raises:
        InvalidInputError: a folder is no bundle and holds none, or two bundles share a name.
    """
    found: list[BundleScorer] = []
    for folder in folders:
        if (folder / MANIFEST_FILE).is_file():
            inside = [folder]
        else:
            inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))
        if not inside:
            raise InvalidInputError(
                f"--also {folder} is no policy bundle and holds none; give a folder that is or does"
            )
        found += [contestant(path, path.resolve().name) for path in inside]
    names = [each.name for each in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"--also finds two bundles called {twice[0]!r}; rename a folder")
    return found


def training_seed(scorer: BundleScorer) -> int | None:
    """The seed that the bundle was trained with, if its manifest says so."""
    config = read_manifest(scorer.path).training.get("config")
    seed = config.get("seed") if isinstance(config, dict) else None
    return seed if isinstance(seed, int) else None
