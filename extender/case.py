"""A decision as one file that can be decided again, bit for bit, without the cluster: written here and replayed here.

It holds everything a decision was made from except the policy, which is named by the hash of its model. The
numbers of a file are read as they were: JSON of a float64 gives the same float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from extender.engine import NEUTRAL, ONLY_FEASIBLE
from extender.errors import UNDECODABLE, CaseError, kind_of
from extender.history.explain import summary
from extender.history.ledger import Decision
from extender.scorer.load import LoadedScorer, load_heuristic, load_policy
from extender.scorer.question import ask
from extender.scorer.trust import TrainingRange
from policy import heuristics
from policy.bundle import shipped_bundle_path
from policy.cluster import COLUMNS, ClusterState, PodDemand
from policy.errors import InvalidInputError, NonFinitePreferenceError
from policy.priorities import MAX_PRIORITY, priorities

FORMAT: Final = "maddpg-case/1"
LARGEST: Final = 256 * 1024 * 1024
"""Bytes of the largest file that is read; 10,000 nodes take about 2 MB."""

_STATE: Final = tuple(column for column in COLUMNS if column != "version")


class Case(msgspec.Struct, frozen=True):
    """What the file says."""

    format: Literal["maddpg-case/1"]  # `FORMAT`
    kubernetes: str  # minor version of Kubernetes whose kube-default decided, or is told
    # scorer, model_sha256: what decided; the hash is empty for a heuristic
    scorer: str
    model_sha256: str
    temperature: float  # with which preferences became priorities
    range_tolerance: float | None  # how far beyond its training it was trusted; see the setting
    demand: PodDemand  # of the pod
    # names, columns: the nodes, best first, and their rows by the names of `ClusterState`, ``[n]``
    names: list[str]
    columns: dict[str, list[float]]
    # preferences, precision, priorities: theirs, ``[n]``; the preferences are of 32 or 64 bits
    preferences: list[float]
    precision: Literal[32, 64]
    priorities: list[int]
    unknown: list[str]  # names of the nodes that were not known
    decision: dict[str, Any]  # the rest that was recorded, for people


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of deciding again."""

    nodes: int  # how many were rated
    differing: int  # of them, those whose preference has other bits
    largest: float  # the largest difference between two preferences
    same_priorities: bool  # whether every priority is the same

    def __str__(self) -> str:
        if not self.differing and self.same_priorities:
            return f"decided again, bit for bit the same: {self.nodes} nodes"
        same = "the same priorities" if self.same_priorities else "other priorities"
        return (
            f"decided again with {same}: the preferences of {self.differing} of {self.nodes} nodes differ, by at most "
            f"{self.largest:.3g}"
        )


def written(decision: Decision, range_tolerance: float | None, kubernetes: str) -> bytes:
    """Return the file of a decision; empty where its nodes are no longer remembered."""
    contenders = decision.contenders
    if contenders is None:
        return b""
    field = contenders.recall()
    case = Case(
        format=FORMAT,
        kubernetes=kubernetes,
        scorer=decision.scorer,
        model_sha256=decision.model_sha256,
        temperature=contenders.temperature,
        range_tolerance=range_tolerance,
        demand=decision.demand,
        names=list(field.names),
        columns={name: getattr(field.state, name).tolist() for name in _STATE},
        preferences=field.preferences.tolist(),
        precision=32 if field.preferences.dtype == np.float32 else 64,
        priorities=field.priorities.tolist(),
        unknown=list(field.unknown),
        decision=summary(decision),
    )
    return msgspec.json.encode(case)


def read(path: Path) -> Case:
    """Return what a file says.

    Raises:
        CaseError: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CaseError(f"{path} is larger than {LARGEST >> 20} MiB; give a file of `explain --export`")
        case = msgspec.json.decode(path.read_bytes(), type=Case)
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from error
    except UNDECODABLE as error:
        raise CaseError(f"{path} is no file of `explain --export`: {kind_of(error)}") from error
    count = len(case.names)
    lengths = {"preferences": len(case.preferences), "priorities": len(case.priorities)}
    lengths |= {f"columns.{name}": len(case.columns.get(name, ())) for name in _STATE}
    for name, length in lengths.items():
        if length != count:
            raise CaseError(f"{path}: {name} has {length} values for {count} nodes; export the decision again")
    if not count:
        raise CaseError(f"{path} holds no node")
    return case


def replayed(case: Case, bundle: Path | None = None) -> Replayed:
    """Decide again.

    Args:
        case: what was decided.
        bundle: folder of the policy that decided; None: the shipped one.

    Raises:
        CaseError: nobody decided, or something else than this policy.
        BundleError: the bundle is refused.
        ScoringError: the scorer fails.
    """
    state = ClusterState(
        **{name: np.array(case.columns[name], dtype=np.float64) for name in _STATE},
        version=np.zeros(len(case.names), dtype=np.int64),
    )
    loaded = _loaded(case, bundle)
    training = TrainingRange(loaded, case.range_tolerance)
    before = np.array(case.preferences, dtype=np.float32 if case.precision == 32 else np.float64)
    after, codes = _asked(loaded, state, case.demand, training, before)
    try:
        rating = training.settled(after, codes, loaded.temperature)
    except NonFinitePreferenceError as error:
        raise CaseError(f"{case.scorer} gives no node a finite preference") from error
    rated = priorities(rating.preferences, case.temperature)
    if case.priorities.count(MAX_PRIORITY) == 1 and rating.preferences[0] == rating.preferences.max():
        # one was singled out, drawn among equals: the file's own is right if no other is preferred
        rated[rated == MAX_PRIORITY] = MAX_PRIORITY - 1
        rated[0] = MAX_PRIORITY
    differs = rating.preferences != before
    return Replayed(
        nodes=len(before),
        differing=int(np.count_nonzero(differs)),
        largest=float(np.abs(np.subtract(rating.preferences, before, dtype=np.float64)).max()),
        same_priorities=rated.tolist() == case.priorities,
    )


def _asked(
    loaded: LoadedScorer, state: ClusterState, demand: PodDemand, training: TrainingRange, before: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Return preferences and codes of all rows; those that differ are asked about alone, as the service may have."""
    scored = ask(loaded.scorer, state, demand, training)
    preferences = scored.preferences.astype(before.dtype)  # what is kept by row is kept in 32 bits
    for row in np.flatnonzero(preferences != before).tolist():
        alone = ask(loaded.scorer, state.take(np.array([row])), demand, training).preferences.astype(before.dtype)
        if alone[0] == before[row]:
            preferences[row] = alone[0]
    return preferences, scored.odd


def _loaded(case: Case, bundle: Path | None) -> LoadedScorer:
    """Return what decided."""
    if case.scorer in (NEUTRAL, ONLY_FEASIBLE):
        raise CaseError(f"nobody chose: the decision is by {case.scorer}")
    if case.scorer in heuristics.DETERMINISTIC and not case.model_sha256:
        try:
            return load_heuristic(case.scorer, case.kubernetes)
        except InvalidInputError as error:
            raise CaseError(f"kubernetes: {error}") from error
    loaded = load_policy(bundle or shipped_bundle_path())
    if loaded.model_sha256 != case.model_sha256:
        raise CaseError(
            f"the policy {case.scorer} with the model {case.model_sha256[:12]}... decided, and this bundle has "
            f"{loaded.model_sha256[:12]}...; give the folder of the one that decided with --bundle"
        )
    return loaded
