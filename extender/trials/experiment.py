"""An experiment: a candidate decides for a share of the workloads, by a stable hash. Refuses to judge the result.

A workload is what its pods have in common: the controller that owns them, else the pod itself. It stays in its arm for
as long as salt and share stay, over restarts and over replicas, because nothing is drawn: its arm follows from its
name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from extender.pods import Pod
from extender.scorer.load import LoadedScorer
from extender.scorer.scoring import Hooks

CONTROL: Final = "control"
CANDIDATE: Final = "candidate"
ARMS: Final = (CONTROL, CANDIDATE)


def workload_of(pod: Pod) -> str:
    """UID of the controller that owns the pod; ``namespace/name`` of a pod that none owns."""
    owner = pod.metadata.controller.uid
    return owner or f"{pod.metadata.namespace}/{pod.metadata.name}"


def draw(workload: str, salt: str) -> float:
    """Where a workload falls, 0 <= draw < 1, evenly spread: the first 53 bits of BLAKE2b of salt and name."""
    text = f"{len(salt)}:{salt}{workload}".encode(errors="surrogatepass")
    return float((int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11) / (1 << 53))


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is tried, and for whom."""

    candidate: LoadedScorer  # decides for the candidate's arm
    share: float  # of the workloads in the candidate's arm, 0..1. A larger one keeps those that are in it
    salt: str  # another one chooses other workloads
    hooks: Hooks = field(default_factory=Hooks)  # who is told what the candidate does
    # names the experiment; decisions of one with another candidate, share or salt are not compared with it
    key: str = field(init=False)

    def __post_init__(self) -> None:
        loaded = self.candidate
        parts = (loaded.scorer.name, loaded.model_sha256, loaded.manifest_sha256, repr(self.share), self.salt)
        text = "\0".join(parts).encode(errors="surrogatepass")
        object.__setattr__(self, "key", hashlib.blake2b(text, digest_size=6).hexdigest())

    def arm_of(self, workload: str) -> str:
        """`CANDIDATE` or `CONTROL`, always the same for the same workload."""
        return CANDIDATE if draw(workload, self.salt) < self.share else CONTROL
