"""What turns state and demand into preferences: the protocol, and the scorer made of trained actors."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from policy import shortage
from policy.actors import Actors
from policy.cluster import ClusterState, Demand
from policy.criteria import CLASSIC, CriteriaSet
from policy.errors import NonFinitePreferenceError
from policy.observation import observe

Preferences = NDArray[np.floating[Any]]


@runtime_checkable
class Scorer(Protocol):
    """Anything that says how much each node wants this pod."""

    @property
    def name(self) -> str:
        """Identifier on metrics, decisions and reports."""
        ...

    @property
    def local(self) -> bool:
        """Whether a node's preference follows from its row and the demand alone, and can be kept until they change."""
        ...

    def preferences(self, state: ClusterState, demand: Demand) -> Preferences:
        """Preference of every node, ``[..., n]`` for columns of shape ``[..., n]``; higher is better.

        Raises:
            ScoringError: no finite preference can be given.
        """
        ...


class ActorScorer:
    """The trained policy: each node's agent bids on the four criteria; its preference is the sum of bid x criterion.

    Nodes that may run out of memory come after all others, whatever is bid for them: see `policy.shortage`.

    Args:
        actors: the model.
        name: identifier on metrics, decisions and reports.
        criteria: the four that the model was trained to bid on.
    """

    local = True

    def __init__(self, actors: Actors, name: str = "policy", criteria: CriteriaSet = CLASSIC) -> None:
        self._actors = actors
        self.name = name
        self.criteria = criteria

    def preferences(self, state: ClusterState, demand: Demand) -> NDArray[np.float32]:
        """Float32 ``[..., n]``; raises `NonFinitePreferenceError` where a bid is NaN or infinite."""
        result = self.from_observation(observe(state, demand), state, demand)
        if not np.isfinite(result).all():
            raise NonFinitePreferenceError(f"scorer {self.name}: the actor's bids are not all finite")
        return result

    def from_observation(
        self, observation: NDArray[np.float32], state: ClusterState, demand: Demand
    ) -> NDArray[np.float32]:
        """`preferences`, from an observation ``[..., n, 8]`` already made of the two; NaN where a bid is."""
        wanted = combine(self._actors.bids(observation), self.criteria.evaluate(state, demand))
        return shortage.bounded(wanted, state, demand)

    def bids(self, state: ClusterState, demand: Demand) -> NDArray[np.float32]:
        """The bids alone, ``[..., n, 4]`` in [-1, 1], for explanations."""
        return self._actors.bids(observe(state, demand))


def combine(bids: NDArray[np.float32], measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Preference: sum over the four of bid x criterion; ``[..., n, 4]`` twice to ``[..., n]``."""
    result: NDArray[np.float32] = np.einsum("...k,...k->...", bids, measures)
    return result
