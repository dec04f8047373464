"""Node speeds, fitted to completions: how much CPU time pods of one template took on different nodes. Pure.

The model is ``log(CPU time) = template - log(speed of the node) + noise``. CPU time is free of waiting and throttling,
which wall time is not. The fit is penalised least squares with Huber's weights: a node is shrunk towards its class
(instance type, CPU model, architecture), a class towards what is known of it beforehand. Source of the fit: Henderson's
mixed-model equations (Biometrics 31, 1975); of the weights: Huber, Annals of Mathematical Statistics 35 (1964).

`policy.completions` keeps what is fitted. `fit` takes copies, so that it can run in a thread of its own.

The module is long because the fit, its intervals and its scale share one system of equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.cluster import REFERENCE_SPEED, FloatArray, IntArray
from policy.errors import InvalidInputError

HUBER: Final = 2.5
"""Residuals beyond this many standard deviations lose weight."""

PRIOR_NOISE: Final = 0.2
PRIOR_NOISE_WEIGHT: Final = 10.0
"""Standard deviation of log CPU time between pods of one template before any is seen, and how many completions that
belief is worth."""

TEMPLATE_NOISE_WEIGHT: Final = 24.0
"""How many completions' worth a template's own noise is shrunk towards that of all templates."""

UNKNOWN_SPREAD: Final = 0.5
"""Standard deviation of log speed of a node, or class of nodes, of which nothing is known: 95 % within 0.37 to 2.7."""

CLASS_SPREAD: Final = 0.1
"""Standard deviation of log speed within a class of nodes."""

LARGEST_EXACT: Final = 400
"""Nodes up to which intervals come from the whole covariance; beyond, from its leading terms."""

EMPTY: Final = -1

LABELLED_SPREAD: Final = 0.02
TABLE_SPREAD: Final = 0.15
"""Standard deviation of log speed where an operator labelled the node, and where a table of instance types gave it."""


@dataclass(frozen=True, slots=True)
class SpeedPrior:
    """What is known of a node before any completion.

    Attributes:
        node_class: nodes of one class are expected to be alike; empty: a class of its own.
        speed: relative to the reference core; None: nothing is known.
        spread: standard deviation of its logarithm.
    """

    node_class: str = ""
    speed: float | None = None
    spread: float = UNKNOWN_SPREAD

    def __post_init__(self) -> None:
        if self.speed is not None and not (math.isfinite(self.speed) and self.speed > 0.0):
            raise InvalidInputError(f"SpeedPrior.speed is {self.speed}; give a positive finite number")
        if not (math.isfinite(self.spread) and self.spread > 0.0):
            raise InvalidInputError(f"SpeedPrior.spread is {self.spread}; give a positive finite number")


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    """Speed of one node as its completions show it.

    Attributes:
        speed: relative to the reference core where something anchors it, else to the geometric mean of the nodes that
            common templates connect.
        low, high: bounds of its 95 % interval.
        completions: how many completions it rests on.
        templates: of how many templates.
        anchored: whether a label, a benchmark or a table gives the scale.
    """

    speed: float
    low: float
    high: float
    completions: int
    templates: int
    anchored: bool


@dataclass(frozen=True, slots=True)
class Completions:
    """Kept completions of all nodes as columns, for `fit`; ``[k]`` but for the last three.

    Attributes:
        row: node.
        template: template, in its present era.
        log_cpu: natural logarithm of CPU seconds.
        weight: 1 for new ones, less for old ones.
        names: name of each row; empty for a free one.
        priors: of each row.
        start: log speeds of the fit before, ``[rows]``.
    """

    row: IntArray
    template: IntArray
    log_cpu: FloatArray
    weight: FloatArray
    names: Sequence[str]
    priors: Sequence[SpeedPrior]
    start: FloatArray


@dataclass(frozen=True, slots=True)
class SpeedFit:
    """What `fit` found.

    Attributes:
        estimates: by node; only nodes that common templates connect with others, and the scale with a reference.
        unconnected: nodes with completions that no common template connects.
        log_speed: by row; NaN where there is none.
        effect: of each template, log seconds on a core of speed 1; NaN where there is none.
        noise: standard deviation of log CPU time of each template.
    """

    estimates: Mapping[str, SpeedEstimate] = field(default_factory=dict)
    unconnected: frozenset[str] = frozenset()
    log_speed: FloatArray = field(default_factory=lambda: np.empty(0))
    effect: FloatArray = field(default_factory=lambda: np.empty(0))
    noise: FloatArray = field(default_factory=lambda: np.empty(0))


def fit(data: Completions, rounds: int = 4) -> SpeedFit:
    """Fit speeds to completions.

    Args:
        data: what is kept.
        rounds: how often weights and noise are computed anew.
    """
    rows, templates = len(data.names), int(data.template.max(initial=EMPTY)) + 1
    found = SpeedFit(
        log_speed=np.full(rows, np.nan), effect=np.full(templates, np.nan), noise=np.full(templates, PRIOR_NOISE)
    )
    if not len(data.row):
        return found
    cells, cell_of = np.unique(data.row * templates + data.template, return_inverse=True)
    cell_row, cell_template = cells // templates, cells % templates
    spread_over = np.bincount(cell_template, minlength=templates)
    shared = spread_over[data.template] > 1
    has_any = np.zeros(rows, dtype=np.bool_)
    has_any[data.row] = True
    useful = spread_over[cell_template] > 1
    component = _components(rows, templates, cell_row[useful], cell_template[useful])
    problem = _Problem(data, shared, cell_of, cell_row, cell_template, templates)
    log_speed, effect, noise = problem.solve(rounds)
    fixed = np.array([prior.speed is not None for prior in data.priors])
    kept = _scaled(component, fixed, problem.weight_of_rows(), log_speed, effect, cell_row, cell_template)
    deviation = problem.deviations(np.flatnonzero(kept), component, fixed)
    completions = np.bincount(data.row[shared], minlength=rows)
    distinct = np.bincount(cell_row[useful], minlength=rows)
    estimates: dict[str, SpeedEstimate] = {}
    anchored = np.isin(component, np.unique(component[fixed & (component >= 0)]))
    for row in np.flatnonzero(kept).tolist():
        middle, reach = float(log_speed[row]), problem.quantile * float(deviation[row])
        estimates[data.names[row]] = SpeedEstimate(
            REFERENCE_SPEED * math.exp(middle),
            REFERENCE_SPEED * math.exp(middle - reach),
            REFERENCE_SPEED * math.exp(middle + reach),
            int(completions[row]),
            int(distinct[row]),
            bool(anchored[row]),
        )
    found.log_speed[kept] = log_speed[kept]
    known = np.zeros(templates, dtype=np.bool_)
    known[cell_template[kept[cell_row]]] = True
    found.effect[known] = effect[known]
    found.noise[:] = noise
    lost = has_any & ~kept
    return SpeedFit(
        estimates,
        frozenset(data.names[row] for row in np.flatnonzero(lost).tolist() if data.names[row]),
        found.log_speed,
        found.effect,
        found.noise,
    )


def _components(rows: int, templates: int, cell_row: IntArray, cell_template: IntArray) -> IntArray:
    """Smallest row among those that common templates connect, for each row; `EMPTY` where no template is shared."""
    label = np.full(rows, EMPTY, dtype=np.int64)
    label[cell_row] = cell_row
    if not len(cell_row):
        return label
    while True:
        of_template = np.full(templates, rows, dtype=np.int64)
        np.minimum.at(of_template, cell_template, label[cell_row])
        after = np.full(rows, rows, dtype=np.int64)
        np.minimum.at(after, cell_row, of_template[cell_template])
        after = np.where(label >= 0, after, EMPTY)
        if (after == label).all():
            return label
        label = after


def _scaled(
    component: IntArray,
    fixed: NDArray[np.bool_],
    weight: FloatArray,
    log_speed: FloatArray,
    effect: FloatArray,
    cell_row: IntArray,
    cell_template: IntArray,
) -> NDArray[np.bool_]:
    """Give every component its scale, in place; returns the rows whose speeds can be compared with each other.

    A component with a node whose speed is known has that scale. Where there is none, only the component with the most
    evidence is kept, as nothing says how two of them compare: its geometric mean is 1.
    """
    labels = np.unique(component[component >= 0])
    anchored = set(np.unique(component[fixed & (component >= 0)]).tolist())
    loose = [label for label in labels.tolist() if label not in anchored]
    kept = np.isin(component, list(anchored)) if anchored else np.zeros(len(component), dtype=np.bool_)
    if loose and not anchored:
        largest = max(loose, key=lambda label: (float(weight[component == label].sum()), -label))
        members = component == largest
        shift = float(log_speed[members].mean())
        log_speed[members] -= shift
        of_template = np.unique(cell_template[members[cell_row]])
        effect[of_template] -= shift
        kept |= members
    return kept


def _sums(index: IntArray, values: FloatArray, minlength: int) -> FloatArray:
    """Sum of the values at each index, float64 ``[minlength]``."""
    return np.asarray(np.bincount(index, weights=values, minlength=minlength), dtype=np.float64)


class _Problem:
    """The least-squares problem: unknown are log speeds of rows and means of classes; templates are eliminated."""

    def __init__(
        self,
        data: Completions,
        shared: NDArray[np.bool_],
        cell_of: IntArray,
        cell_row: IntArray,
        cell_template: IntArray,
        templates: int,
    ) -> None:
        self._data = data
        self._cell_of, self._cell_row, self._cell_template = cell_of, cell_row, cell_template
        self._rows, self._templates = len(data.names), templates
        self._base = data.weight * shared
        named: dict[str, int] = {}
        of_row = []
        for row, prior in enumerate(data.priors):
            of_row.append(named.setdefault(prior.node_class or f"\0{row}", len(named)))
        self._class = np.array(of_row, dtype=np.int64)
        self._classes = len(named)
        size = np.bincount(self._class, minlength=self._classes)
        self._own_mean = np.zeros(self._rows)
        self._own_precision = np.zeros(self._rows)
        self._class_precision = np.full(self._classes, UNKNOWN_SPREAD**-2)
        self._class_precision[size == 0] = 1.0
        self._within = np.full(self._rows, CLASS_SPREAD**-2)
        for row, prior in enumerate(data.priors):
            if prior.speed is not None:
                self._own_mean[row] = math.log(prior.speed)
                self._own_precision[row] = prior.spread**-2
            if not prior.node_class:
                self._within[row] = 1e6  # a class of its own: the class is the node
        self.quantile = 1.96
        self._cell_weight = np.zeros(len(cell_row))

    def weight_of_rows(self) -> FloatArray:
        """Evidence of each row, in completions."""
        return _sums(self._data.row, self._base, minlength=self._rows)

    def solve(self, rounds: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Log speed of each row, effect and noise of each template."""
        data, templates = self._data, self._templates
        x = np.concatenate([data.start, np.zeros(self._classes)])
        noise = np.full(templates, PRIOR_NOISE)
        robust = np.ones(len(data.row))
        effect = np.zeros(templates)
        total = float(self._base.sum())
        used = int(np.count_nonzero(_sums(data.row, self._base, minlength=self._rows)))
        used += int(np.count_nonzero(_sums(data.template, self._base, minlength=templates))) - 1
        free = max(total - used, 0.0)
        share = free / total if total else 0.0
        for _ in range(rounds):
            weight = self._base * robust / noise[data.template] ** 2
            x, effect = self._solved(weight, x)
            residual = data.log_cpu - effect[data.template] + x[data.row]
            size = np.abs(residual) / noise[data.template]
            robust = np.minimum(1.0, HUBER / np.maximum(size, 1e-9))
            squares = self._base * np.minimum(np.abs(residual), HUBER * noise[data.template]) ** 2
            common = (PRIOR_NOISE_WEIGHT * PRIOR_NOISE**2 + float(squares.sum())) / (PRIOR_NOISE_WEIGHT + free)
            by_template = _sums(data.template, squares, minlength=templates)
            count = _sums(data.template, self._base, minlength=templates) * share
            noise = np.sqrt((TEMPLATE_NOISE_WEIGHT * common + by_template) / (TEMPLATE_NOISE_WEIGHT + count))
        self.quantile = 1.96 + 2.4 / (PRIOR_NOISE_WEIGHT + free)
        return x[: self._rows], effect, noise

    def _solved(self, weight: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Speeds, class means and effects for these weights: conjugate gradients from `x`."""
        data, templates = self._data, self._templates
        self._cell_weight = _sums(self._cell_of, weight, minlength=len(self._cell_row))
        self._of_row = _sums(data.row, weight, minlength=self._rows)
        self._of_template = _sums(data.template, weight, minlength=templates)
        per_template = 1.0 / np.maximum(self._of_template, 1e-300)
        mean = _sums(data.template, weight * data.log_cpu, minlength=templates) * per_template
        right = np.zeros(self._rows + self._classes)
        right[: self._rows] = self._own_precision * self._own_mean - _sums(
            data.row, weight * (data.log_cpu - mean[data.template]), minlength=self._rows
        )
        diagonal = np.concatenate(
            [
                self._of_row + self._own_precision + self._within,
                self._class_precision + _sums(self._class, self._within, minlength=self._classes),
            ]
        )
        x = _conjugate_gradients(self._times, right, diagonal, x)
        of_row = _sums(self._cell_template, self._cell_weight * x[self._cell_row], minlength=templates)
        return x, mean + of_row * per_template

    def _times(self, x: FloatArray) -> FloatArray:
        """The matrix of the normal equations times a vector."""
        speed, mean = x[: self._rows], x[self._rows :]
        of_template = _sums(
            self._cell_template, self._cell_weight * speed[self._cell_row], minlength=self._templates
        ) / np.maximum(self._of_template, 1e-300)
        back = _sums(self._cell_row, self._cell_weight * of_template[self._cell_template], minlength=self._rows)
        top = (self._of_row + self._own_precision) * speed - back + self._within * (speed - mean[self._class])
        bottom = self._class_precision * mean + _sums(
            self._class, self._within * (mean[self._class] - speed), minlength=self._classes
        )
        return np.concatenate([top, bottom])

    def deviations(self, kept: NDArray[np.intp], component: IntArray, fixed: NDArray[np.bool_]) -> FloatArray:
        """Standard deviation of each kept row's log speed, on the scale that `_scaled` gave it; ``[rows]``."""
        deviation = np.full(self._rows, np.nan)
        if not len(kept):
            return deviation
        anchored = bool((fixed & (component >= 0)).any())
        if len(kept) > LARGEST_EXACT:
            squared = np.bincount(
                self._cell_row,
                weights=self._cell_weight**2 / np.maximum(self._of_template[self._cell_template], 1e-300),
                minlength=self._rows,
            )
            prior = self._own_precision + 1.0 / (1.0 / self._within + 1.0 / self._class_precision[self._class])
            deviation[kept] = 1.0 / np.sqrt(np.maximum(self._of_row - squared + prior, 1e-12)[kept])
            return deviation
        place = np.full(self._rows, EMPTY, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        classes, of_class = np.unique(self._class[kept], return_inverse=True)
        size = len(kept)
        matrix = np.zeros((size + len(classes), size + len(classes)))
        cells = np.flatnonzero(place[self._cell_row] >= 0)
        seen, column = np.unique(self._cell_template[cells], return_inverse=True)
        parts = np.zeros((size, len(seen)))
        parts[place[self._cell_row[cells]], column] = self._cell_weight[cells]
        matrix[:size, :size] = -(parts / np.maximum(self._of_template[seen], 1e-300)) @ parts.T
        ends = np.arange(size)
        matrix[ends, ends] += (self._of_row + self._own_precision + self._within)[kept]
        matrix[ends, size + of_class] -= self._within[kept]
        matrix[size + of_class, ends] -= self._within[kept]
        tail = size + np.arange(len(classes))
        matrix[tail, tail] = self._class_precision[classes] + _sums(
            of_class, self._within[kept], minlength=len(classes)
        )
        covariance = np.linalg.inv(matrix)[:size, :size]
        if not anchored:  # relative to the mean of the nodes
            covariance = covariance - covariance.mean(axis=0)
            covariance = covariance - covariance.mean(axis=1)[:, None]
        deviation[kept] = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
        return deviation


def _conjugate_gradients(
    multiply: Callable[[FloatArray], FloatArray],
    right: FloatArray,
    diagonal: FloatArray,
    x: FloatArray,
    tolerance: float = 1e-8,
    most: int = 200,
) -> FloatArray:
    """Solve a symmetric positive definite system, preconditioned by its diagonal (Hestenes and Stiefel, 1952)."""
    rest = right - multiply(x)
    ready = rest / diagonal
    direction = ready.copy()
    energy = float(rest @ ready)
    limit = tolerance**2 * max(float(right @ (right / diagonal)), 1e-300)
    for _ in range(most):
        if energy <= limit:
            break
        image = multiply(direction)
        step = energy / float(direction @ image)
        x = x + step * direction
        rest = rest - step * image
        ready = rest / diagonal
        before, energy = energy, float(rest @ ready)
        direction = ready + (energy / before) * direction
    return x
