"""Use and pressure of nodes, and CPU time of pods, from the kubelet of each node. Knows HTTP by `kubelet` alone.

One thread with an event loop of its own asks and decodes; what it finds reaches the table as changes that are handed
over one by one, so that requests wait for none of it. At most `KubeletOptions.connections` nodes are asked at once.
At most `KubeletOptions.kept` connections are kept for the next question: a new one costs more than everything else.

Each node is asked every `KubeletOptions.interval` seconds, cut or stretched at random by up to a tenth, and the first
questions are spread over time, so that nodes stay spread over the interval. A node whose kubelet does not answer is
asked less and less often (`extender.cluster.rounds`), and costs the others nothing but a connection meanwhile. Who
measures it instead asks `rounds`.
"""

from __future__ import annotations

import asyncio
import math
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import structlog
import uvloop

from extender.cluster.api import ApiServer
from extender.cluster.cpu_times import CpuTimes
from extender.cluster.decoding import Node
from extender.cluster.identity import CredentialError, Identity
from extender.cluster.kubelet import (
    ANSWER_TIMEOUT,
    RESULTS,
    Endpoint,
    KubeletError,
    KubeletOptions,
    Trust,
    endpoint_of,
)
from extender.cluster.kubelet_connection import Connection
from extender.cluster.machines import reserved_of
from extender.cluster.rounds import Kubelet, Rounds
from extender.cluster.stats import WINDOW, Amounts, NodePressure, Summary, SummaryError, decode_summary
from extender.cluster.table import ClusterTable
from extender.cluster.usage import READY_INTERVAL_S, Intake, NodeUse, ignored_events
from extender.supervision import Failures, detached

THREAD: Final = "kubelets"
"""Name of the thread, and of its failures where failures of background work are counted."""
HAND_OVER_S: Final = 0.1
"""Seconds for which measurements gather before they are handed over: one wake-up of the service serves them all."""
IDENTITY_CACHE_S: Final = 10.0
"""Seconds for which credentials are used before they are asked for again: that may run a program."""
FILES_PER_KEPT: Final = 4
"""Files that the process may have open, for each connection that is kept: most of them are for those who ask it."""
REPORT_S: Final = 60.0
"""Least seconds between two lines in the log about kubelets that do not answer."""
STOP_TIMEOUT: Final = 5.0
"""Seconds that stopping waits for the thread."""

log = structlog.stdlib.get_logger(__name__)


class Kubelets:
    """Asks the kubelets of all nodes; is a `Receiver` of nodes, and a `UsageFeed`.

    Args:
        options: see there.
        api: the API server: who the service is to it, it is to kubelets.
        table: whom to tell.
        put: hands a change over to the table's event loop: `Handover.put`.
        failures: records what nobody expected.
        ready: whether the table knows pods: a node's use cannot be judged before.
        clock: seconds since the epoch.
        rng: source of the jitter.

    Attributes:
        rounds: whom it asks when, and how that ended; another one after each start.
        instead: where the use of a node comes from whose kubelet does not answer, for the log.
        results: questions by how they ended, so far.
        pods_ignored: pods whose CPU time was missing or made no sense, counted each time, so far.
        pressures: pressure by node, as it was measured last.
        cpu_times: CPU time of pods.
    """

    def __init__(
        self,
        options: KubeletOptions,
        api: ApiServer,
        table: ClusterTable,
        put: Callable[[Callable[[], object]], object],
        failures: Failures,
        ready: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._options = options
        self._api = api
        self._put = put
        self._failures = failures
        self._ready = ready
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 # nosec B311 # jitter
        self._intake = Intake(table, "kubelet", clock)
        self._trust = Trust(lambda: api.authorities, options.ca_file, options.insecure)
        self._lock = threading.Lock()
        self._endpoints: dict[str, Endpoint | None] = {}
        self._reserved: dict[str, Amounts] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # of the thread alone
        self._found: list[NodeUse] = []
        self._identity: tuple[float, Identity] | None = None
        self._identifying = asyncio.Lock()
        self._reported: set[tuple[str, bool]] = set()
        self._reported_at = -math.inf

        self.rounds = Rounds(options.interval, self._rng)
        self.instead = "expected from requests once it is too old"
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self.pods_ignored = 0
        self.pressures: dict[str, NodePressure] = {}
        self.cpu_times = CpuTimes()
        failures.expect(THREAD)

    def present(self, received: Node) -> None:
        """The node exists: its kubelet is asked from now on, where its status gives an address."""
        self._reserved[received.metadata.name] = reserved_of(received)
        self._know(received.metadata.name, endpoint_of(received, loopback=self._options.loopback))

    def absent(self, received: Node) -> None:
        """The node was deleted."""
        self._forget(received.metadata.name)

    def complete(self, keys: set[str]) -> None:
        """These are all."""
        for name in [name for name in self._endpoints if name not in keys]:
            self._forget(name)

    def _know(self, name: str, endpoint: Endpoint | None) -> None:
        with self._lock:
            if name in self._endpoints and self._endpoints[name] == endpoint:
                return
            self._endpoints[name] = endpoint
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._follow, name, endpoint)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._endpoints.pop(name, None)
            self._reserved.pop(name, None)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._leave, name)

    async def run(self) -> None:
        """Ask until cancelled."""
        while not self._ready():  # noqa: ASYNC110 # that is for the watches to know, on other threads
            await asyncio.sleep(READY_INTERVAL_S)
        self._stopping = False
        done = detached(self._work, THREAD)
        try:
            await asyncio.wait((done,))
            done.result()
        finally:
            with self._lock:
                self._stopping = True
                if self._loop is not None and self._task is not None:
                    self._loop.call_soon_threadsafe(self._task.cancel)
            await asyncio.wait((done,), timeout=STOP_TIMEOUT)

    def staleness(self) -> float | None:
        """Seconds since the end of the newest measurement of any node; None if there never was one."""
        return self._intake.staleness()

    def events(self) -> Mapping[str, int]:
        """See `UsageFeed`."""
        failures = self.results.total() - self.results["measured"]
        return {"failures": failures, **ignored_events(self._intake.refused)}

    def psi(self) -> dict[str, int]:
        """Nodes that were measured, by whether their kernel collects pressure."""
        measured = Counter(pressure.measured for pressure in list(self.pressures.values()))
        return {"true": measured[True], "false": measured[False]}

    def _work(self) -> None:
        """Body of the thread."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(self._serve())
            except asyncio.CancelledError:
                return
            finally:
                with self._lock:
                    self._loop = self._task = None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        kept = min(self._options.kept, files // FILES_PER_KEPT)
        self.rounds = Rounds(self._options.interval, self._rng, kept)
        self._found, self._identifying, self._identity = [], asyncio.Lock(), None
        with self._lock:
            if self._stopping:
                return
            self._loop, self._task = loop, asyncio.current_task()
            known = dict(self._endpoints)
        for name, endpoint in known.items():
            self._follow(name, endpoint)
        try:
            async with asyncio.TaskGroup() as group:
                slots = asyncio.Semaphore(self._options.connections)
                while True:
                    await slots.acquire()
                    kubelet = await self.rounds.next()
                    group.create_task(self._visit(kubelet)).add_done_callback(lambda _: slots.release())
        finally:
            self.rounds.close()

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody awaits."""
        error = context.get("exception")
        self._failures.record(THREAD, error if isinstance(error, Exception) else RuntimeError(context["message"]))

    def _follow(self, name: str, endpoint: Endpoint | None) -> None:
        """A node came or moved."""
        if endpoint is None:
            self._leave(name)
        self.rounds.follow(name, endpoint)

    def _leave(self, name: str) -> None:
        """A node went, or has no address any more."""
        self.rounds.forget(name)
        self.pressures.pop(name, None)
        self.cpu_times.forget(name)

    async def _visit(self, kubelet: Kubelet) -> None:
        """Ask one node, take what it says, and see to the next time."""
        message = ""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                summary = decode_summary(await self._ask(kubelet))
            result = "measured"
            if summary.node != kubelet.endpoint.node:
                result, message = "other_node", "it is the kubelet of another node"
        except (KubeletError, SummaryError) as error:
            result, message = error.reason, str(error)
        except CredentialError as error:
            result, message = "credentials", str(error)
        except TimeoutError:
            result, message = "timeout", f"no answer within {ANSWER_TIMEOUT:g} s"
        except Exception as error:
            self._failures.record(THREAD, error)
            result = "unexpected"
        self.results[result] += 1
        if not self.rounds.follows(kubelet):
            return
        kubelet.result = result
        if result == "measured":
            self._take(summary)
            self.rounds.answered(kubelet)
            if self._reported and not self.rounds.failing:
                self._reported.clear()
                log.info("all kubelets answer again")
            return
        self.pressures.pop(kubelet.endpoint.node, None)
        self.rounds.failed(kubelet)
        self._report(kubelet.endpoint.node, result, message)

    async def _ask(self, kubelet: Kubelet) -> bytes:
        """The answer of a kubelet, on the connection that was kept or on a new one.

        Raises:
            KubeletError, CredentialError, TimeoutError: there is none.
        """
        identity, endpoint = await self._identified(), kubelet.endpoint
        connection = self.rounds.taken(kubelet)
        if connection is not None and not connection.usable(self._trust, identity):
            connection.close()
            connection = None
        kept = connection is not None
        while True:
            if connection is None:
                connection = await Connection.open(endpoint, self._trust, identity)
            try:
                body = await connection.ask(endpoint, identity)
            except KubeletError as error:
                connection.close()
                if kept and error.reason == "lost":  # closed while nothing was asked
                    connection, kept = None, False
                    continue
                if error.reason == "unauthorized":
                    self._api.refused(identity)
                    self._identity = None
                raise
            except BaseException:
                connection.close()
                raise
            self.rounds.keep(kubelet, connection)
            return body

    async def _identified(self) -> Identity:
        """Who the service is.

        Raises:
            CredentialError: there are no credentials now.
        """
        async with self._identifying:
            now = time.monotonic()
            if self._identity is None or now - self._identity[0] >= IDENTITY_CACHE_S:
                self._identity = now, await detached(self._api.identity, "kubelet-credentials")
            return self._identity[1]

    def _take(self, summary: Summary) -> None:
        """Keep what an answer says, and hand its measurement over."""
        self.pressures[summary.node] = summary.pressure
        self.cpu_times.record(summary.node, summary.cpu_times)
        self.pods_ignored += summary.ignored
        if not self._found:
            asyncio.get_running_loop().call_later(HAND_OVER_S, self._hand_over)
        claimed = summary.claimed(self._reserved.get(summary.node, Amounts()))
        self._found.append(
            NodeUse(summary.node, *claimed, pressure=summary.pressure.cpu, begin=summary.at - WINDOW, end=summary.at)
        )

    def _hand_over(self) -> None:
        found, self._found = self._found, []
        for use in found:
            self._put(partial(self._intake.take, use))

    def _report(self, node: str, result: str, message: str) -> None:
        """Log that some kubelets do not answer, or that none does: once for each reason until all answer again."""
        now, told = time.monotonic(), (result, bool(self.rounds.answering))
        if told not in self._reported and now - self._reported_at >= REPORT_S:
            self._reported.add(told)
            self._reported_at = now
            log.warning(
                "kubelets do not answer", use_of_their_nodes=self.instead, node=node, reason=result, error=message
            )
