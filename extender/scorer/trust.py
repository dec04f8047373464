"""How far a scorer is trusted with a node, and what becomes of one beyond that. Pure.

A row is odd where a feature lies further outside the range of training than the tolerance allows, or where the scorer
gives it no finite preference. It is judged alone, so that one odd node never takes the scorer from all the others:

- The scorer rates it by the nearest features that it is trusted with (`CLIPPED`).
- Where its load is what is odd (requests, use or pressure), it is rated below every node that is not so (`LAST`).
- Where it has no finite preference, the same (`UNRATED`).

A pod that makes every row odd, such as one that requests a million cores, is decided by what is left of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import le
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extender.scorer.load import LoadedScorer
from policy.cluster import ClusterState, PodDemand
from policy.errors import NonFinitePreferenceError
from policy.features import FEATURE_NAMES, HIGH, LOW
from policy.observation import clip, observe_unclipped
from policy.scorers import Preferences

CLIPPED: Final = 1
LAST: Final = 2
UNRATED: Final = 3
TREATMENTS: Final = {CLIPPED: "clipped", LAST: "last", UNRATED: "unrated"}
"""What becomes of an odd row, by its code; 0 is no odd row."""

LOAD: Final = slice(FEATURE_NAMES.index("cpu_requested"), FEATURE_NAMES.index("cpu_pressure") + 1)
"""Features that say how full a node is: beyond all bounds, they make it no better."""

Codes = NDArray[np.uint8]
"""A code for each row, ``[n]``."""


@dataclass(frozen=True, slots=True)
class OddRows:
    """The odd ones of some rows."""

    codes: Codes  # what becomes of each row, ``[n]``
    training: TrainingRange  # what they are odd against

    def take(self, rows: NDArray[np.bool_]) -> OddRows:
        """Those of the given rows."""
        return OddRows(self.codes[rows], self.training)

    def counts(self) -> dict[str, int]:
        """How many rows there are of each treatment."""
        codes: list[int] = np.bincount(self.codes, minlength=UNRATED + 1).tolist()
        return {name: codes[code] for code, name in TREATMENTS.items() if codes[code]}


class Rating(NamedTuple):
    """Finite preferences of some rows, ``[n]``, and the odd ones among them; None where there is none."""

    preferences: Preferences
    odd: OddRows | None


class TrainingRange:
    """The range of training of each feature, and how far beyond it a scorer is trusted.

    Args:
        loaded: the scorer. One without a range, such as a heuristic, has that of the schema, and load alone can be odd.
        tolerance: how far a feature may lie beyond, as a share of its range; None: any distance.
    """

    def __init__(self, loaded: LoadedScorer, tolerance: float | None) -> None:
        learned = loaded.training_range is not None
        low, high = self._range = (LOW, HIGH) if loaded.training_range is None else loaded.training_range
        self._trusted: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        if tolerance is not None:
            margin = np.float32(tolerance) * (high - low)
            least, most = low - margin, high + margin
            if not learned:
                least = np.full_like(least, -np.inf)
                most = np.where(np.isin(np.arange(len(most)), np.arange(len(most))[LOAD]), most, np.float32(np.inf))
            self._trusted = least, most
        self._low, self._high = low.tolist(), high.tolist()

    def holds(self, observation: NDArray[np.float32]) -> bool:
        """Whether every feature of every row ``[n, 8]`` lies within the range of training."""
        if len(observation) == 1:
            values = observation[0].tolist()
            return all(map(le, self._low, values)) and all(map(le, values, self._high))
        least, most = observation.min(axis=0).tolist(), observation.max(axis=0).tolist()
        return all(map(le, self._low, least)) and all(map(le, most, self._high))

    def outside(self, observation: NDArray[np.float32]) -> list[int]:
        """For each feature, how many rows lie outside the range of training."""
        low, high = self._range
        counts: list[int] = np.count_nonzero(~((observation >= low) & (observation <= high)), axis=0).tolist()
        return counts

    def codes(self, observation: NDArray[np.float32]) -> Codes | None:
        """What becomes of each row ``[n, 8]``; None where none is odd."""
        if self._trusted is None:
            return None
        low, high = self._trusted
        odd = ((observation < low) | (observation > high)).any(axis=-1)
        if not odd.any():
            return None
        codes = np.where(odd, np.uint8(CLIPPED), np.uint8(0))
        codes[(observation[:, LOAD] > high[LOAD]).any(axis=-1)] = LAST
        return codes

    def odd(self, state: ClusterState, demand: PodDemand) -> NDArray[np.bool_]:
        """Whether each row ``[n]`` is odd for this demand."""
        codes = self.codes(observe_unclipped(state, demand))
        return np.zeros(state.shape, dtype=np.bool_) if codes is None else codes > 0

    def seen(self, observation: NDArray[np.float32], codes: Codes | None) -> NDArray[np.float32]:
        """What actors see of the rows: within the schema's bounds, and of odd ones what the scorer is trusted with."""
        if codes is not None and self._trusted is not None:
            observation = np.clip(observation, *self._trusted)
        return clip(observation)

    def settled(self, preferences: Preferences, codes: Codes | None, temperature: float) -> Rating:
        """What is left of preferences ``[n]`` once every odd row has its place.

        Args:
            preferences: of the scorer; not finite where it gave none.
            codes: of the rows; None where none is odd.
            temperature: of the priorities: rows that come last are at least this far from the best.

        Raises:
            NonFinitePreferenceError: there are rows, and no preference is finite.
        """
        rated = np.isfinite(preferences)
        if not rated.all():
            if not rated.any():
                raise NonFinitePreferenceError("the scorer gave no finite preference for any node")
            codes = np.where(rated, 0 if codes is None else codes, np.uint8(UNRATED))
        if codes is None or not codes.any():
            return Rating(preferences, None)
        last = codes >= LAST
        if last.any():
            others = preferences[~last] if not last.all() else preferences[rated]
            limit = min(others.min(), others.max() - np.float32(temperature))
            behind = np.minimum(np.where(rated, preferences, limit), limit)
            preferences = np.where(last if not last.all() else ~rated, behind, preferences)
        return Rating(preferences, OddRows(codes, self))

    def why(self, observation: NDArray[np.float32], code: int) -> str:
        """Why a row ``[8]`` is odd and what became of it, for people."""
        became = "clipped" if code == CLIPPED else "rated below the nodes that are not odd"
        if code == UNRATED or self._trusted is None:
            return f"no finite preference; {became}"
        told = [
            f"{name} is {value:.3g}, trusted from {low:.3g} to {high:.3g}"
            for name, value, low, high in zip(
                FEATURE_NAMES, observation.tolist(), *(each.tolist() for each in self._trusted), strict=True
            )
            if not low <= value <= high
        ]
        return f"{', '.join(told)}; {became}"
