"""The eight features of an observation: name, meaning, bounds, and the schema's version and fingerprint.

Refuses to compute them; `policy.observation` does. A bundle records the fingerprint it was trained with, so a policy
cannot meet features that mean something else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of an observation."""

    name: str  # identifier, as in metrics and explanations
    meaning: str  # one sentence, with the unit
    low: float  # smallest value; smaller ones are clipped to it
    high: float  # largest value; larger ones are clipped to it


SCHEMA_VERSION: Final = 1
"""Grows whenever a feature's meaning, order or bound changes."""

FEATURES: Final = (
    Feature("cpu_requested", "CPU requests of the node's pods and this pod, over allocatable CPU", 0.0, 2.0),
    Feature(
        "memory_requested",
        "memory requests of the node's pods and this pod, over allocatable memory",
        0.0,
        2.0,
    ),
    Feature("cpu_used", "measured and expected CPU use of the node, over allocatable CPU", 0.0, 2.0),
    Feature("memory_used", "measured and expected memory use of the node, over allocatable memory", 0.0, 2.0),
    Feature("cpu_pressure", "share of time that tasks on the node waited for a CPU", 0.0, 1.0),
    Feature("node_speed", "speed per core relative to the reference core, minus 1", -1.0, 3.0),
    Feature("pod_size", "this pod's CPU request over the node's allocatable CPU", 0.0, 1.0),
    Feature("pod_urgency", "one over the slowdown this pod's SLA allows; 0 allows any", 0.0, 1.0),
)

FEATURE_COUNT: Final = len(FEATURES)
FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)
LOW: Final[NDArray[np.float32]] = np.array([feature.low for feature in FEATURES], dtype=np.float32)
HIGH: Final[NDArray[np.float32]] = np.array([feature.high for feature in FEATURES], dtype=np.float32)
LOW.setflags(write=False)
HIGH.setflags(write=False)


def schema_fingerprint() -> str:
    """Sha256 (hex) of the schema's version and of every feature's name, meaning and bounds."""
    schema = {"version": SCHEMA_VERSION, "features": [asdict(feature) for feature in FEATURES]}
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
