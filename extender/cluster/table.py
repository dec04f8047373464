"""The owner of the columns behind `policy.cluster.ClusterState`: every change of what is known goes through here.

One writer. All changes happen on the thread of one event loop (`claim` makes the calling thread the owner, and a change
from any other raises `OwnershipError`); no method awaits, so nothing that runs on the loop ever sees a half-written
row, and no lock stands on the hot path. A worker thread never reads the table: it is given copies of rows that the loop
took (`ClusterState.take`). A lock would let sources write from their own threads, but then a request would wait for
whichever batch holds it, and every reader would have to remember to take it.

The truth is in integer sums per node (`extender.cluster.account`); the float columns are derived from them.

Units everywhere: CPU in cores, memory in GiB, times in seconds since the epoch. The table compares times of binding
with times of measurement, which other machines stamp. A time in the future is taken as now: the clock that stamped it
is ahead of ours, and would else outweigh everything that is stamped until ours gets there.

Excluded on purpose: what Kubernetes objects look like (`extender.cluster.kubernetes`), scoring (`policy`).

The module is long because rows, nodes, pods and assumptions change together, and one class keeps them consistent.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.cluster.account import UNTOLD, HeldPod, NodeAccount, SpeedBasis
from extender.cluster.assumption import GANG_LIMIT, RETRIED_LIMIT, AssumedPlacements
from extender.cluster.backlog import WaitingPods
from extender.cluster.listeners import PodListeners
from extender.errors import OwnershipError
from extender.pods import GIB
from extender.quantities import NANO
from extender.workloads import Workloads
from policy.cluster import REFERENCE_SPEED, UNMEASURED_MEMORY_RATIO, ClusterState, PodDemand
from policy.errors import InvalidInputError
from policy.observation import estimated_pressure, estimated_pressure_of_one

UNKNOWN: Final = -1
"""Row of a node that the table does not know."""

_LINES: Final = (
    *("cpu_allocatable", "memory_allocatable"),
    *("cpu_requested", "memory_requested", "cpu_used", "memory_used", "cpu_pressure", "cpu_nonzero", "memory_nonzero"),
    *("memory_unseen", "memory_ratio", "node_speed"),
)
"""The float columns in the order in which they lie in the block."""

_MEMORY_AND_DERIVED: Final = slice(_LINES.index("memory_allocatable"), _LINES.index("memory_ratio") + 1)
"""The lines that follow from a node's pods and its measurements, behind the one of its memory, which they need."""

INITIAL_CAPACITY: Final = 64
KEPT_CHANGES: Final = 64
"""Versions at least whose rows are kept in a list: more changes than that are found quicker in the columns."""

ASSUMED_TIME_LIMIT: Final = 30.0
"""Default time limit of an assumed placement, seconds."""


class ClusterTable:
    """Rows of nodes, the pods on them, and the measurements of them.

    Args:
        capacity: rows to begin with; doubled whenever they run out.
        assumed_time_limit: seconds an unconfirmed placement is believed.
        clock: seconds since the epoch.

    Attributes:
        listeners: those who are told what becomes of pods.
        workloads: what is known of the kinds of pods; whoever watches them adds to it, on the table's thread.
        assumed_expired: assumptions that ended by their time limit, since the start.
    """

    def __init__(
        self,
        capacity: int = INITIAL_CAPACITY,
        assumed_time_limit: float = ASSUMED_TIME_LIMIT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise InvalidInputError(f"capacity is {capacity}; give a positive number of rows")
        self._block, self._state = _columns(capacity)
        self._names: list[str | None] = [None] * capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._nodes: dict[str, NodeAccount] = {}
        self._rows: dict[str, int] = {}
        self._pods: dict[str, HeldPod] = {}
        self._homeless: dict[str, dict[str, HeldPod]] = {}
        self._dirty: dict[str, NodeAccount] = {}
        self._assumed = AssumedPlacements(assumed_time_limit)
        self.assumed_expired = 0
        self._waiting = WaitingPods()
        self.listeners = PodListeners()
        self.workloads = Workloads()
        self._row_listeners: list[Callable[[int, str], None]] = []
        self._clock = clock
        self._version = 0
        self._bumped: list[int] = []
        """Rows of the latest versions, one a version."""
        self._assignments = 0
        self._owner: int | None = None
        self._ready = 0

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ClusterState:
        """The live columns, ``[capacity]``. Rows without a node hold 1 core, 1 GiB and nothing else: never score them.

        Reading it brings the columns up to date with every change made before. The object is replaced when the table
        grows: take it anew for each decision, and keep copies, not views.
        """
        if self._dirty:
            self._derive()
        return self._state

    def copy(self, rows: NDArray[np.intp]) -> ClusterState:
        """Copy of these rows as the columns stand: what changed since `state` was last read is not in it."""
        return state_of(self._block.take(rows, axis=1), self._state.version.take(rows))

    def lines(self, rows: Sequence[int] | NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Copy of these rows (default: all) as a block ``[12, n]``, as `copy` reads them; `state_of` makes columns."""
        return self._block.copy() if rows is None else self._block.take(rows, axis=1)

    def changed_since(self, version: int) -> list[int]:
        """Rows of the columns, as they stand, that changed after the table had this version."""
        count = self._version - version
        if count <= len(self._bumped):
            return sorted(set(self._bumped[len(self._bumped) - count :]))
        return np.flatnonzero(self._state.version > version).tolist()

    def names(self) -> list[str | None]:
        """Copy of the name of every row; None for a free one."""
        return self._names.copy()

    @property
    def node_count(self) -> int:
        """Nodes known."""
        return len(self._nodes)

    @property
    def capacity(self) -> int:
        """Rows, free ones included."""
        return len(self._names)

    @property
    def assignments(self) -> int:
        """Grows whenever a row is given to a node or taken from one: equal numbers, equal meaning of every row."""
        return self._assignments

    @property
    def version(self) -> int:
        """Grows with every row of `state` that changes: if it is the same after a look at `state`, so are all rows."""
        return self._version

    @property
    def ready_count(self) -> int:
        """Nodes known to be ready."""
        return self._ready

    @property
    def pod_count(self) -> int:
        """Pods seen on a node by the watch; assumed ones are not counted."""
        return len(self._pods) - len(self._assumed)

    @property
    def assumed_count(self) -> int:
        """Pods whose placement is assumed, not seen."""
        return len(self._assumed)

    def ready_nodes(self) -> tuple[list[str], NDArray[np.intp]]:
        """Names of the nodes that are ready, and their rows, int ``[n]``."""
        ready = [(name, node.row) for name, node in self._nodes.items() if node.ready]
        return [name for name, _ in ready], np.array([row for _, row in ready], dtype=np.intp)

    def waiting_classes(self) -> Counter[PodDemand]:
        """How many pods that wait ask for the same; those assumed to be on their way are left out."""
        return self._waiting.classes(without=self._assumed.uids())

    def is_waiting(self, uid: str) -> bool:
        """Whether the watch showed this pod waiting for our scheduler, and on no node since."""
        return uid in self._waiting

    def waiting_demand(self, uid: str) -> PodDemand | None:
        """Return what a pod asks for that waits for our scheduler; None where it does not."""
        return self._waiting.demand_of(uid)

    def name_of(self, row: int) -> str | None:
        """Name of the node in this row; None for a free one."""
        return self._names[row]

    def row_of(self, name: str) -> int:
        """Row of one node; `UNKNOWN` if it is not known."""
        return self._rows.get(name, UNKNOWN)

    def rows_of(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Row of each node, int ``[len(names)]``; `UNKNOWN` for nodes that are not known."""
        return np.fromiter(map(self._rows.get, names, repeat(UNKNOWN)), dtype=np.intp, count=len(names))

    def nodes_from(self, row: int, most: int) -> list[tuple[int, str, NodeAccount]]:
        """Rows from this one on that have a node, their names and accounts, at most so many; for reading alone."""
        found: list[tuple[int, str, NodeAccount]] = []
        for place in range(row, len(self._names)):
            name = self._names[place]
            if name is not None:
                found.append((place, name, self._nodes[name]))
                if len(found) == most:
                    break
        return found

    def basis_of(self, name: str) -> SpeedBasis:
        """What a node's speed rests on; `UNTOLD` where the node is not known."""
        node = self._nodes.get(name)
        return UNTOLD if node is None else node.basis

    def room_of(self, name: str) -> tuple[float, float, bool] | None:
        """Return what a node can allocate, cores and GiB, and whether a pod is seen on it; None if it is not known."""
        node = self._nodes.get(name)
        if node is None:
            return None
        cpu, memory = self._state.cpu_allocatable[node.row], self._state.memory_allocatable[node.row]
        return float(cpu), float(memory), any(not pod.assumed for pod in node.pods.values())

    def share_in_use(self, name: str) -> float | None:
        """Return a node's measured CPU use over its allocatable; None where it is not measured. From any thread."""
        node = self._nodes.get(name)
        if node is None or node.measured_at == -math.inf:
            return None
        return node.measured_cpu / float(self._state.cpu_allocatable[node.row])

    def pods_on(self, name: str) -> int:
        """Pods on a node, assumed ones included; 0 if it is not known."""
        node = self._nodes.get(name)
        return 0 if node is None else len(node.pods)

    # ---- owning and listening ------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Make the calling thread the only one that may change the table from now on."""
        self._owner = threading.get_ident()

    def subscribe_rows(self, listener: Callable[[int, str], None]) -> None:
        """Call ``listener(row, name)`` whenever a row is given to a node; now too, for the rows already given."""
        self._row_listeners.append(listener)
        for name, row in self._rows.items():
            listener(row, name)

    # ---- nodes ---------------------------------------------------------------------------------------------------

    def upsert_node(
        self,
        name: str,
        cpu: float,
        memory: float,
        speed: float = REFERENCE_SPEED,
        ready: bool = True,
        basis: SpeedBasis = UNTOLD,
    ) -> bool:
        """Add a node or change what is known of it.

        Args:
            name: `metadata.name`.
            cpu: allocatable CPU, cores.
            memory: allocatable memory, GiB.
            speed: speed per core relative to the reference core.
            ready: the node's Ready condition; reported, not scored (kube-scheduler filters on it).
            basis: what the speed rests on; reported.

        Returns:
            Whether the node is kept. One whose allocatable CPU or memory, or whose speed, is not a positive finite
            number cannot be scored: it is forgotten, and gets the neutral priority of unknown nodes.
        """
        self._check_owner()
        if not all(math.isfinite(value) and value > 0.0 for value in (cpu, memory, speed)):
            self.remove_node(name)
            return False
        node = self._nodes.get(name)
        if node is None:
            node = self._add(name, ready)
        self._ready += int(ready) - int(node.ready)
        node.ready = ready
        self._rest_on(name, node, basis)
        state, row = self._state, node.row
        changed = (
            state.cpu_allocatable[row] != cpu
            or state.memory_allocatable[row] != memory
            or state.node_speed[row] != speed
        )
        if changed:
            state.cpu_allocatable[row] = cpu
            state.memory_allocatable[row] = memory
            state.node_speed[row] = speed
            self._bump(row)
            self._dirty[name] = node
        return True

    def set_speed(self, name: str, speed: float, basis: SpeedBasis) -> None:
        """Change a node's speed, a positive finite number, and what it rests on; nothing where it is not known."""
        self._check_owner()
        node = self._nodes.get(name)
        if node is None:
            return
        self._rest_on(name, node, basis)
        if self._state.node_speed[node.row] != speed:
            self._state.node_speed[node.row] = speed
            self._bump(node.row)

    def _rest_on(self, name: str, node: NodeAccount, basis: SpeedBasis) -> None:
        if node.basis.full_at != basis.full_at:
            self._dirty[name] = node
        node.basis = basis

    def remove_node(self, name: str) -> bool:
        """Forget a node and free its row; pods still seen on it wait for its return. Returns whether it was known."""
        self._check_owner()
        node = self._nodes.pop(name, None)
        if node is None:
            return False
        del self._rows[name]
        self._assignments += 1
        self._dirty.pop(name, None)
        self._ready -= int(node.ready)
        self._names[node.row] = None
        self._free.append(node.row)
        if node.pods:
            self._homeless[name] = node.pods
        for column in (self._state.cpu_allocatable, self._state.memory_allocatable, self._state.node_speed):
            column[node.row] = 1.0
        for column in (
            self._state.cpu_requested,
            self._state.memory_requested,
            self._state.cpu_nonzero,
            self._state.memory_nonzero,
            self._state.memory_unseen,
            self._state.cpu_used,
            self._state.memory_used,
            self._state.cpu_pressure,
        ):
            column[node.row] = 0.0
        self._state.memory_ratio[node.row] = 1.0
        self._bump(node.row)
        return True

    def keep_only_nodes(self, names: Collection[str]) -> int:
        """Forget every node that is not in `names` (pass a set): what a list must do. Returns how many."""
        gone = [name for name in self._nodes if name not in names]
        for name in gone:
            self.remove_node(name)
        return len(gone)

    # ---- pods ----------------------------------------------------------------------------------------------------

    def pod_bound(
        self,
        uid: str,
        node: str,
        cpu: float,
        memory: float,
        since: float | None = None,
        cpu_nonzero: float | None = None,
        memory_nonzero: float | None = None,
    ) -> None:
        """The watch shows this pod on this node; call it again whenever anything of it changed.

        Ends the assumption about it. The node may be unknown still: the pod counts once it appears.

        Args:
            uid: `metadata.uid`.
            node: `spec.nodeName`.
            cpu: CPU request, cores, as `extender.requests` computes it for the whole pod.
            memory: memory request, GiB.
            since: when it was bound (condition PodScheduled), seconds since the epoch; default: now, which is also the
                latest. Its use counts as expected until a measurement whose interval starts later.
            cpu_nonzero: non-zero CPU request, cores; default: `cpu`.
            memory_nonzero: non-zero memory request, GiB; default: `memory`.
        """
        self._check_owner()
        now = self._clock()
        self._waiting.end(uid)
        known = self._pods.get(uid)
        since = now if since is None else min(since, now)
        pod = HeldPod.of(node, cpu, memory, cpu_nonzero, memory_nonzero, since, assumed=False)
        if known is not None and known.same(pod):
            return  # most events of a pod change its status alone
        first = known is None or known.assumed or known.node != node
        if known is not None:
            self._take_off(uid, known)
            self._assumed.end(uid)
        self._put_on(uid, pod)
        if first:
            self.listeners.pod_bound(uid, node, now)

    def pod_waiting(self, uid: str, demand: PodDemand) -> None:
        """The watch shows this pod unbound, and it asks for our scheduler."""
        self._check_owner()
        self._waiting.add(uid, demand)

    def pod_given_up(self, uid: str, said: Hashable) -> bool:
        """kube-scheduler says of an unbound pod that it could not place it: an assumed placement of it ends.

        Args:
            uid: `metadata.uid`.
            said: all that it says. Where that is what it said before, nothing has happened.

        Returns:
            Whether a placement was assumed, and ended.
        """
        self._check_owner()
        return self._waiting.give_up(uid, said) and self.withdraw(uid)

    def pod_nominated(self, uid: str, node: str) -> None:
        """kube-scheduler expects an unbound pod on this node: a placement assumed elsewhere moves there."""
        self._check_owner()
        pod = self._pods.get(uid)
        if pod is None or not pod.assumed:
            return
        self._assumed.add(uid, node, self._clock())
        if pod.node != node:
            self._take_off(uid, pod)
            self._put_on(uid, replace(pod, node=node, unmeasured=True))

    def pod_removed(self, uid: str, reason: str = "deleted") -> bool:
        """The pod is deleted or has ended, bound or not. Returns whether anything was known of it."""
        self._check_owner()
        self._assumed.end(uid)
        self._waiting.end(uid)
        pod = self._pods.get(uid)
        if pod is not None:
            self._take_off(uid, pod)
        self.listeners.pod_removed(uid, reason, self._clock())
        return pod is not None

    def keep_only_pods(self, uids: Collection[str]) -> int:
        """Remove every pod seen earlier, bound or not, that is not in `uids` (pass a set). Returns how many.

        Pods that were assumed and never seen stay: the list may be older than they are.
        """
        gone = {uid for uid, pod in self._pods.items() if uid not in uids and not pod.assumed}
        gone |= self._waiting.beyond(uids)
        for uid in gone:
            self.pod_removed(uid, "deleted")
        return len(gone)

    def assume(
        self,
        uid: str,
        node: str,
        cpu: float,
        memory: float,
        cpu_nonzero: float | None = None,
        memory_nonzero: float | None = None,
        certain: bool = False,
        gang: bool = False,
    ) -> bool:
        """Believe that the pod goes to this node until the watch shows it; see `extender.cluster.assumption`.

        Args:
            uid: `metadata.uid`.
            node: its name.
            cpu: CPU request, cores.
            memory: memory request, GiB.
            cpu_nonzero: non-zero CPU request, cores; default: `cpu`.
            memory_nonzero: non-zero memory request, GiB; default: `memory`.
            certain: whether the API server has already bound the pod there.
            gang: whether the pod belongs to a group, which is placed as a whole or not at all.

        Returns whether it is believed: a pod that the watch already showed on a node is not moved.
        """
        self._check_owner()
        known = self._pods.get(uid)
        if known is not None:
            if not known.assumed:
                return False
            self._take_off(uid, known)
        now = self._clock()
        doubtful = not certain and self._waiting.was_given_up(uid)
        self._assumed.add(uid, node, now, (GANG_LIMIT if gang else RETRIED_LIMIT) if doubtful else math.inf)
        self._put_on(uid, HeldPod.of(node, cpu, memory, cpu_nonzero, memory_nonzero, now, assumed=True))
        return True

    def withdraw(self, uid: str) -> bool:
        """Stop believing in an assumed placement: the attempt is known to have failed. Returns whether it was."""
        self._check_owner()
        if self._assumed.end(uid) is None:
            return False
        self._take_off(uid, self._pods[uid])
        return True

    def expire_assumed(self) -> int:
        """End the assumptions older than their time limit; returns how many."""
        self._check_owner()
        now = self._clock()
        expired = self._assumed.expired(now)
        self.assumed_expired += len(expired)
        for assumption in expired:
            self._take_off(assumption.uid, self._pods[assumption.uid])
            self.listeners.assumption_expired(assumption.uid, assumption.node, now)
        return len(expired)

    # ---- usage ---------------------------------------------------------------------------------------------------

    def set_usage(
        self,
        node: str,
        cpu: float,
        memory: float,
        pressure: float | None,
        measured_at: float,
        *,
        until: float | None = None,
        ahead: bool = False,
        by: str | None = None,
    ) -> bool:
        """Record a measurement of a node.

        Args:
            node: its name.
            cpu: CPU use, cores, >= 0.
            memory: memory use (working set), GiB, >= 0.
            pressure: share of time that tasks waited for a CPU, 0..1; None where it is not measured: then it is
                estimated from the CPU use.
            measured_at: start of the interval that the measurement covers, seconds since the epoch. Pods bound later
                are not in it, or only in part, and keep counting with their expected use, or the rest of it.
            until: its end; None: it was no longer than a moment, or is not known.
            ahead: whether the clock that stamped it is known to be ahead of ours.
            by: what measured, such as "kubelet"; None: it does not say.

        Returns:
            Whether it was taken: not for unknown nodes, values that are not finite or negative, or a measurement that
            is older than the one known. One that was stamped by a clock ahead of ours gives way to the next one,
            whatever its time.
        """
        self._check_owner()
        known = self._nodes.get(node)
        values = (cpu, memory, 0.0 if pressure is None else pressure, measured_at)
        if known is None or not all(math.isfinite(value) and value >= 0.0 for value in values):
            return False
        now = self._clock()
        if measured_at < known.measured_at <= now and not known.measured_ahead:
            return False
        ahead = ahead or measured_at > now
        pressure = None if pressure is None else min(pressure, 1.0)
        until = None if until is None else min(until, now)
        known.measure(cpu, memory, pressure, min(measured_at, now), until=until, now=now, ahead=ahead, by=by)
        self._dirty[node] = known
        return True

    def forget_usage_before(self, measured_at: float) -> int:
        """Drop measurements older than this: use is then expected from requests alone. Returns how many nodes."""
        self._check_owner()
        stale = {name: node for name, node in self._nodes.items() if -math.inf < node.measured_at < measured_at}
        for node in stale.values():
            node.measure(0.0, 0.0, None, -math.inf)
        self._dirty.update(stale)
        return len(stale)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _check_owner(self) -> None:
        if self._owner is not None and self._owner != threading.get_ident():
            raise OwnershipError("the cluster table was changed outside its event loop; use loop.call_soon_threadsafe")

    def _bump(self, row: int) -> None:
        """Versions come from one counter, so a row given to another node never shows an old version again."""
        self._version += 1
        self._state.version[row] = self._version
        if len(self._bumped) >= 2 * KEPT_CHANGES:
            del self._bumped[:KEPT_CHANGES]
        self._bumped.append(row)

    def _add(self, name: str, ready: bool) -> NodeAccount:
        if not self._free:
            self._grow()
        node = NodeAccount(row=self._free.pop(), ready=ready)
        self._ready += int(ready)
        self._nodes[name] = node
        self._rows[name] = node.row
        self._assignments += 1
        self._names[node.row] = name
        self._state.memory_ratio[node.row] = UNMEASURED_MEMORY_RATIO
        self._bump(node.row)
        for listener in self._row_listeners:
            listener(node.row, name)
        for uid, pod in self._homeless.pop(name, {}).items():
            node.add(uid, pod)
            self._dirty[name] = node
        return node

    def _grow(self) -> None:
        """Double the capacity; old rows keep their numbers and versions."""
        block, old = self._block, self._state
        rows = len(old)
        self._block, self._state = _columns(2 * rows)
        self._block[:, :rows] = block
        self._state.version[:rows] = old.version
        self._names.extend([None] * rows)
        self._free.extend(range(2 * rows - 1, rows - 1, -1))

    def _put_on(self, uid: str, pod: HeldPod) -> None:
        self._pods[uid] = pod
        node = self._nodes.get(pod.node)
        if node is None:
            self._homeless.setdefault(pod.node, {})[uid] = pod
            return
        node.add(uid, pod)
        self._dirty[pod.node] = node

    def _take_off(self, uid: str, pod: HeldPod) -> None:
        """Undo `_put_on`."""
        del self._pods[uid]
        node = self._nodes.get(pod.node)
        if node is None:
            waiting = self._homeless.get(pod.node, {})
            waiting.pop(uid, None)
            if not waiting:
                self._homeless.pop(pod.node, None)
            return
        node.remove(uid)
        self._dirty[pod.node] = node

    def _derive(self) -> None:
        """Bring the columns of every touched row up to date; a version moves only if one of its numbers does."""
        nodes = list(self._dirty.values())
        self._dirty.clear()
        block = self._block
        used = [node.cpu_used for node in nodes]
        pressures = [node.measured_pressure for node in nodes]
        if None in pressures:
            pressures = _estimated(pressures, used, self._state.cpu_allocatable[[node.row for node in nodes]])
        for node, cpu_used, pressure in zip(nodes, used, pressures, strict=True):
            known = block[_MEMORY_AND_DERIVED, node.row].tolist()
            fresh = [
                known[0],
                node.requested_cpu / NANO,
                node.requested_memory / GIB,
                cpu_used,
                node.memory_used,
                pressure,
                node.nonzero_cpu / NANO,
                node.nonzero_memory / GIB,
                node.unmeasured_memory / GIB,
                node.memory_ratio(known[0]),
            ]
            if known != fresh:
                block[_MEMORY_AND_DERIVED, node.row] = fresh
                self._bump(node.row)


def _estimated(pressures: list[float | None], used: list[float], cpu: NDArray[np.float64]) -> list[float | None]:
    """The pressures, those that are not measured estimated from the use, cores, of nodes of these sizes, ``[n]``."""
    if len(used) == 1:
        return [estimated_pressure_of_one(used[0], cpu.item())]
    estimates = estimated_pressure(np.array(used), cpu).tolist()
    return [estimate if known is None else known for known, estimate in zip(pressures, estimates, strict=True)]


def _columns(rows: int) -> tuple[NDArray[np.float64], ClusterState]:
    """Columns of so many rows without nodes, and the block ``[12, rows]`` they lie in: to copy rows takes one step."""
    idle = ClusterState.idle(np.ones(rows), np.ones(rows))
    block = np.array([getattr(idle, line) for line in _LINES])
    return block, state_of(block, idle.version)


def state_of(block: NDArray[np.float64], version: NDArray[np.int64]) -> ClusterState:
    """Columns that are the lines of a block ``[12, n]``, which lie there in the order of `_LINES`."""
    return ClusterState(
        *(block[0], block[1], block[2], block[3], block[4], block[5], block[6], block[11], version),
        *(block[7], block[8], block[9], block[10]),
    )
