"""What happened, in float32 ring buffers: time-major, so the next observation is the next row, stored once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policy.criteria import CRITERIA_COUNT
from policy.errors import InvalidInputError
from policy.features import FEATURE_COUNT
from training.config import ReplayConfig
from training.learning.prioritisation import Priorities


@dataclass(frozen=True, slots=True)
class Look:
    """What every agent saw before a decision, in every cluster."""

    observation: NDArray[np.float32]  # ``[clusters, n, 8]``
    measures: NDArray[np.float32]  # the four criteria, ``[clusters, n, 4]``
    feasible: NDArray[np.bool_]  # ``[clusters, n]``


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions drawn from the replay; the first axis of every tensor is the batch."""

    observation: Tensor  # ``[b, n, 8]``
    measures: Tensor  # ``[b, n, 4]``
    feasible: Tensor  # ``[b, n]`` bool
    bids: Tensor  # as executed, noise included, ``[b, n, 4]``
    placement: Tensor  # chosen node, int64 ``[b]``; -1 where the pod was left pending
    reward: Tensor  # discounted n-step reward per node, ``[b, n]``
    discount: Tensor  # of the bootstrap, ``[b, 1]``; gamma^n, with n smaller where the episode was cut
    next_observation: Tensor  # ``[b, n, 8]``
    next_measures: Tensor  # ``[b, n, 4]``
    next_feasible: Tensor  # ``[b, n]`` bool
    weight: Tensor | None = None  # importance weight of a prioritised draw, ``[b, 1]``; None for a uniform one
    # rows and clusters of the replay it came from, each ``[b]``; None for a batch from elsewhere
    drawn: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None


_COLUMNS: Final = ("observation", "measures", "feasible", "bids", "placement", "reward", "last")


class Replay:
    """Ring buffer of rows, one row per step of all clusters; uniform or prioritised draws.

    An episode ends with a *last* row: a look without a decision, from which the truncated episode bootstraps.

    Args:
        capacity: transitions kept, > 0; rounded down to whole rows.
        clusters: clusters per row.
        nodes: nodes per cluster.
        generator: source of the draws.
        settings: kind of draws; uniform by default.
    """

    def __init__(
        self,
        capacity: int,
        clusters: int,
        nodes: int,
        generator: np.random.Generator,
        settings: ReplayConfig | None = None,
    ) -> None:
        rows = capacity // clusters
        if rows < 2:
            raise InvalidInputError(f"replay.capacity {capacity} holds under two rows of {clusters} clusters; raise it")
        self.clusters, self.rows = clusters, rows
        self._generator = generator
        self._written = 0
        self.observation = np.zeros((rows, clusters, nodes, FEATURE_COUNT), dtype=np.float32)
        self.measures = np.zeros((rows, clusters, nodes, CRITERIA_COUNT), dtype=np.float32)
        self.feasible = np.zeros((rows, clusters, nodes), dtype=np.bool_)
        self.bids = np.zeros((rows, clusters, nodes, CRITERIA_COUNT), dtype=np.float32)
        self.placement = np.zeros((rows, clusters), dtype=np.int64)
        self.reward = np.zeros((rows, clusters, nodes), dtype=np.float32)
        self.last = np.zeros(rows, dtype=np.bool_)
        self._priorities: Priorities | None = None
        if settings is not None and settings.kind == "prioritised":
            self._priorities = Priorities(rows, clusters, settings.alpha, settings.smallest)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return int(self._starts().size) * self.clusters

    def append(
        self,
        look: Look,
        bids: NDArray[np.float32],
        placement: NDArray[np.int64],
        reward: NDArray[np.float32],
    ) -> None:
        """Keep one step: bids ``[clusters, n, 4]``, placement ``[clusters]``, reward ``[clusters, n]``."""
        row = self._write(look, last=False)
        self.bids[row], self.placement[row], self.reward[row] = bids, placement, reward

    def append_last(self, look: Look) -> None:
        """Keep the look after an episode's last decision; nothing starts from it."""
        self._write(look, last=True)

    def sample(self, size: int, gamma: float, steps: int = 1, beta: float = 1.0) -> Batch:
        """Draw transitions with replacement: uniformly, or by priority and with importance weights.

        Args:
            size: of the batch.
            gamma: discount per step.
            steps: n of the n-step reward; fewer where the episode ends or the newest row is reached.
            beta: share of the bias that the importance weights of prioritised draws correct, 0..1.

        Raises:
            InvalidInputError: nothing has been kept yet.
        """
        row, cluster, weight = self._draw(size, beta)
        reward = np.zeros((size, self.reward.shape[2]), dtype=np.float32)
        discount = np.ones(size, dtype=np.float32)
        going = np.ones(size, dtype=np.bool_)
        newest = (self._written - 1) % self.rows
        end = row.copy()
        for _ in range(steps):
            reward += (discount * going)[:, None] * self.reward[end, cluster]
            discount[going] *= gamma
            end = np.where(going, (end + 1) % self.rows, end)
            going &= ~self.last[end] & (end != newest)
        return Batch(
            observation=torch.from_numpy(self.observation[row, cluster]),
            measures=torch.from_numpy(self.measures[row, cluster]),
            feasible=torch.from_numpy(self.feasible[row, cluster]),
            bids=torch.from_numpy(self.bids[row, cluster]),
            placement=torch.from_numpy(self.placement[row, cluster]),
            reward=torch.from_numpy(reward),
            discount=torch.from_numpy(discount[:, None]),
            next_observation=torch.from_numpy(self.observation[end, cluster]),
            next_measures=torch.from_numpy(self.measures[end, cluster]),
            next_feasible=torch.from_numpy(self.feasible[end, cluster]),
            weight=None if weight is None else torch.from_numpy(weight[:, None]),
            drawn=(row, cluster),
        )

    def reprioritise(self, batch: Batch, errors: NDArray[np.float64]) -> None:
        """Take up the absolute errors ``[b]`` of the batch drawn last; nothing to do for uniform draws."""
        if self._priorities is not None and batch.drawn is not None:
            self._priorities.update(*batch.drawn, errors)

    def _draw(self, size: int, beta: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32] | None]:
        """Rows and clusters ``[size]``, and importance weights where draws are by priority."""
        if self._priorities is not None:
            return self._priorities.draw(size, beta, self._generator)
        starts = self._starts()
        if starts.size == 0:
            raise InvalidInputError("the replay is empty; collect before updating")
        return self._generator.choice(starts, size), self._generator.integers(self.clusters, size=size), None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: the rows written so far, priorities and the generator's state."""
        filled = min(self._written, self.rows)
        columns = {name: torch.from_numpy(getattr(self, name)[:filled].copy()) for name in _COLUMNS}
        state = {"written": self._written, "columns": columns, "generator": self._generator.bit_generator.state}
        if self._priorities is not None:
            state["priorities"] = self._priorities.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            InvalidInputError: it was saved from a buffer of another shape.
        """
        filled = min(state["written"], self.rows)
        for name in _COLUMNS:
            saved, own = state["columns"][name].numpy(), getattr(self, name)
            if saved.shape != (filled, *own.shape[1:]):
                raise InvalidInputError(
                    f"the checkpoint's replay column {name} has shape {saved.shape}, this configuration needs "
                    f"{(filled, *own.shape[1:])}; resume with the configuration it was started with"
                )
            own[:filled] = saved
        self._written = state["written"]
        if self._priorities is not None:
            self._priorities.load_state_dict(state["priorities"])
        self._generator.bit_generator.state = state["generator"]

    def _write(self, look: Look, *, last: bool) -> int:
        row = self._written % self.rows
        self.observation[row], self.measures[row], self.feasible[row] = look.observation, look.measures, look.feasible
        self.last[row] = last
        if self._priorities is not None:
            self._priorities.clear(row)
            before = (row - 1) % self.rows
            if self._written and not self.last[before]:
                self._priorities.open(before)
        self._written += 1
        return row

    def _starts(self) -> NDArray[np.intp]:
        """Rows with a decision and a successor: neither an episode's last look nor the newest row."""
        filled = min(self._written, self.rows)
        usable = ~self.last[:filled]
        if filled:
            usable[(self._written - 1) % self.rows] = False
        return np.flatnonzero(usable)
