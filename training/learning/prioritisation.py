"""Which transitions are drawn more often: proportional prioritisation (Schaul et al., arXiv:1511.05952, section 3.3).

The sum over a row of clusters is kept beside the row, so a draw searches the rows and then one row's clusters:
O(rows + batch x clusters), exact. A row's sum is always computed afresh from its transitions, so rounding cannot build
up and a resumed run draws what an uninterrupted one does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policy.errors import InvalidInputError


class Priorities:
    """Mass of every transition of a ring buffer: (error + smallest) ** alpha, 0 where nothing can start.

    Args:
        rows: of the buffer.
        clusters: transitions a row.
        alpha: exponent of the priority, 0..1; 0 draws uniformly.
        smallest: added to every error, > 0.
    """

    def __init__(self, rows: int, clusters: int, alpha: float, smallest: float) -> None:
        self._alpha, self._smallest = alpha, smallest
        self._mass = np.zeros((rows, clusters))
        self._row_mass = np.zeros(rows)
        self._transitions = 0
        self._largest = 1.0

    def clear(self, row: int) -> None:
        """Nothing starts from that row: it is the newest, or an episode's last look."""
        self._transitions -= int(np.count_nonzero(self._mass[row]))
        self._mass[row] = 0.0
        self._row_mass[row] = 0.0

    def open(self, row: int) -> None:
        """The row's transitions can be drawn, each with the largest mass so far: what is new is learned from soon."""
        self.clear(row)
        self._mass[row] = self._largest
        self._row_mass[row] = self._mass[row].sum()
        self._transitions += self._mass.shape[1]

    def draw(
        self, size: int, beta: float, generator: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Rows, clusters and importance weights, each ``[size]``.

        One draw from each of `size` equal parts of the total mass, as in the paper's appendix B.2.1. Weights are
        (transitions x probability) ** -beta over the largest of them, so that they only ever shrink a step.

        Args:
            size: of the batch.
            beta: share of the bias that the weights correct, 0..1.
            generator: source of the draws.

        Raises:
            InvalidInputError: nothing can be drawn.
        """
        until = np.cumsum(self._row_mass)
        total = until[-1]
        if not total > 0.0:
            raise InvalidInputError("the replay is empty; collect before updating")
        points = (np.arange(size) + generator.random(size)) / size * total
        # Rounding may carry the last point to the very end of the mass: the last row that has some takes it.
        last = int(np.flatnonzero(self._row_mass)[-1])
        row = np.minimum(np.searchsorted(until, points, side="right"), last)
        inside = np.cumsum(self._mass[row], axis=1)
        left = points - (until[row] - self._row_mass[row])
        cluster = np.minimum((inside <= left[:, None]).sum(axis=1), self._mass.shape[1] - 1)
        weight = (self._transitions * self._mass[row, cluster] / total) ** -beta
        return row, cluster, (weight / weight.max()).astype(np.float32)

    def update(self, row: NDArray[np.intp], cluster: NDArray[np.intp], errors: NDArray[np.float64]) -> None:
        """Take up new absolute errors ``[b]`` of what `draw` gave; no row may have been written in between."""
        mass = (errors + self._smallest) ** self._alpha
        self._mass[row, cluster] = mass
        touched = np.unique(row)
        self._row_mass[touched] = self._mass[touched].sum(axis=1)
        self._largest = max(self._largest, float(mass.max()))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly; row sums follow from it."""
        return {"mass": torch.from_numpy(self._mass.copy()), "largest": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state of the same shape."""
        self._mass[...] = state["mass"].numpy()
        self._row_mass[...] = self._mass.sum(axis=1)
        self._transitions = int(np.count_nonzero(self._mass))
        self._largest = state["largest"]
