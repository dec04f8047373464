"""What schedulers are told of a cluster, which may be less than what is true, or wrong. Draws it; learns nothing.

Requests, allocatable resources and pods by node are always told. `training.simulator.warmup` learns what is learned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as validated_dataclass

from policy.cluster import REFERENCE_SPEED
from policy.errors import InvalidInputError
from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.scenarios import CLOSED, Share


@validated_dataclass(frozen=True, config=CLOSED)
class Knowledge:
    """What one kind of cluster shows."""

    # speeds of nodes: their labels; none, so that every node counts as the reference; or what completions teach
    speed: Literal["label", "none", "learned"] = "label"
    speed_missing: Share = 0.0  # share of nodes without a label
    speed_wrong: Share = 1.0  # share of labels that are wrong by `speed_error`
    # relative error of a wrong label, up or down with equal chance
    speed_error: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.0
    # whether nodes count as slower where pods ran longer before the episode than elsewhere; see `policy.slowdowns`
    throttling: bool = False
    # urgency of pods: their annotations; none, so that the QoS class decides; or inferred from signs
    urgency: Literal["label", "none", "inferred"] = "label"
    urgency_missing: Share = 0.0  # share of pods without an annotation; the QoS class decides for them
    use: bool = True  # whether use is measured; otherwise it is expected from requests
    use_late: Annotated[float, Field(strict=True, ge=1.0)] = 1.0  # scrapes come so many times as rarely
    pressure: bool = True  # whether PSI is measured where the scenario has it; otherwise it is estimated from use
    # completed pods per node before the episode, which learned speeds and expected durations rest on
    completions: Annotated[int, Field(strict=True, ge=0)] = 30


LABELLED: Final = "labelled"

TOLD: Final = {
    LABELLED: Knowledge(),
    "learned": Knowledge(speed="learned", urgency="inferred"),
    "unlabelled": Knowledge(speed="none", urgency="none", pressure=False),  # what metrics-server shows
    "bare": Knowledge(speed="none", urgency="none", use=False, pressure=False),  # requests alone
    "speed-off-10": Knowledge(speed_error=0.1),
    "speed-off-20": Knowledge(speed_error=0.2),
    "speed-off-30": Knowledge(speed_error=0.3),
    "learned-speed": Knowledge(speed="learned"),
    "learned-throttling": Knowledge(speed="learned", throttling=True, urgency="inferred"),
    "inferred-urgency": Knowledge(urgency="inferred"),
    "no-speed": Knowledge(speed="none"),
    "no-urgency": Knowledge(urgency="none"),
    "no-use": Knowledge(use=False),
    "no-pressure": Knowledge(pressure=False),
    "late-use": Knowledge(use_late=5.0),
}
"""What may be told, by name. ``learned-N`` is ``learned`` after N completions per node."""


def knowledge(name: str) -> Knowledge:
    """Return what is told under that name.

    Raises:
        InvalidInputError: there is no such name.
    """
    after = re.fullmatch(r"(learned(?:-throttling)?)-(\d{1,6})", name)
    if after is not None:
        return replace(TOLD[after[1]], completions=int(after[2]))
    if name not in TOLD:
        raise InvalidInputError(f"told is {name!r}; give one of {', '.join(TOLD)}, or learned-N for N completions")
    return TOLD[name]


@dataclass(slots=True)
class Told:
    """What schedulers are told in each cluster; every array has the leading axis ``[clusters]``."""

    speed: FloatArray  # of every node, relative to the reference core, ``[clusters, n]``
    use: NDArray[np.bool_]  # whether use is measured
    use_late: FloatArray  # scrapes come so many times as rarely
    pressure: NDArray[np.bool_]  # whether PSI is measured where the scenario has it
    urgency_missing: FloatArray  # share of pods without an urgency of their own
    inferred: NDArray[np.bool_]  # whether theirs is inferred from signs, rather than from the QoS class alone
    # expected duration of each template on the reference core, seconds, and how many runs it rests on; no templates
    # where nothing is learned, ``[clusters, templates]``
    expected_s: FloatArray
    runs: NDArray[np.int64]


def draw_told(known: Sequence[Knowledge], seeds: Seeds, speed: FloatArray) -> Told:
    """Return what each cluster tells before anything is learned; what will be learned is missing.

    Args:
        known: for each cluster.
        seeds: of each cluster's machines, ``[clusters]``.
        speed: true speeds, ``[clusters, n]``.
    """
    index, column = np.arange(speed.shape[1])[None, :], seeds[:, None]

    def each(values: list[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)[:, None]

    missing = each([one.speed_missing if one.speed == "label" else 1.0 for one in known])
    error = each([one.speed_error for one in known])
    error = np.where(draws.uniform(column, Stream.LABEL_ERROR, index) < 0.5, -error, error)
    wrong = draws.uniform(column, Stream.LABEL_WRONG, index) < each([one.speed_wrong for one in known])
    label = np.where(wrong, speed * (1.0 + error), speed)
    return Told(
        speed=np.where(draws.uniform(column, Stream.LABEL_MISSING, index) < missing, REFERENCE_SPEED, label),
        use=np.array([one.use for one in known], dtype=np.bool_),
        use_late=np.array([one.use_late for one in known]),
        pressure=np.array([one.pressure for one in known], dtype=np.bool_),
        urgency_missing=np.array([one.urgency_missing if one.urgency == "label" else 1.0 for one in known]),
        inferred=np.array([one.urgency == "inferred" for one in known], dtype=np.bool_),
        expected_s=np.zeros((len(known), 0)),
        runs=np.zeros((len(known), 0), dtype=np.int64),
    )
