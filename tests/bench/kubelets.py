"""What one interval of `usage_source: kubelet` costs: CPU, memory, and how long the service's event loop is kept busy.

Fake kubelets are one server on loopback, in a process of its own, which answers over TLS as each node in turn: the
handshake says for which node. Each answer is a whole summary, with everything that is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from extender.cluster.api import ApiServer
from extender.cluster.decoding import decode_node
from extender.cluster.handover import Handover
from extender.cluster.identity import Identity
from extender.cluster.kubelet import KubeletOptions
from extender.cluster.kubelets import Kubelets
from extender.cluster.table import ClusterTable
from extender.supervision import Supervisor
from tests.bench.report import Result
from tests.bench.source_memory import resident_mib
from tests.control_plane.certificates import Authority
from tests.extender.cluster.fake_kubelet import chunked, head, summary_of, time_of

NAME = "node-00000"
"""Name in the answer that is made once; each node's own, of the same length, is put in its place."""
PODS_IN_TABLE = 10
TICK = 0.02


class _Node(asyncio.Protocol):
    """Answers as the node it is asked for."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            name = self._transport.get_extra_info("ssl_object").asked_for.encode()
            self._transport.write(b"".join((self._before, name, self._after)))


def serve(certificate: str, key: str, pods: int, containers: int) -> None:
    """Be the kubelets until standard input ends."""
    uids = {f"00000000-0000-4000-8000-{i:012d}": 1000.0 + i for i in range(pods)}
    body = json.dumps(summary_of(NAME, "TIME", uids, pressure=0.01, containers=containers)).encode()

    def name_it(connection: Any, name: str, _: ssl.SSLContext) -> None:
        connection.asked_for = name

    async def until_told() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = name_it
        loop = asyncio.get_running_loop()
        made: tuple[float, bytes, bytes] = (0.0, b"", b"")

        def a_node() -> _Node:
            nonlocal made
            if time.time() - made[0] >= 1.0:  # so that each answer is newer than the one before
                now = time.time()
                whole = head(200, "Transfer-Encoding: chunked") + chunked(
                    body.replace(b"TIME", time_of(now - 1.0).encode()), size=1 << 20
                )
                before, _, after = whole.partition(NAME.encode())
                made = now, before, after
            return _Node(made[1], made[2])

        server = await loop.create_server(a_node, "127.0.0.1", 0, ssl=context, backlog=1024)
        said = {"port": server.sockets[0].getsockname()[1], "bytes": len(body)}
        print(json.dumps(said), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_told())


class _Api:
    """Who the service is."""

    def __init__(self, authorities: bytes) -> None:
        self.authorities = authorities

    def identity(self) -> Identity:
        return Identity("Bearer " + 900 * "x")  # as long as a ServiceAccount's


async def follow(options: argparse.Namespace, port: int, authorities: bytes) -> dict[str, float]:
    """Ask for a while; the first interval is left out."""
    table, supervisor = ClusterTable(), Supervisor()
    table.claim()
    handover = Handover(asyncio.get_running_loop(), supervisor.failures)
    chosen = KubeletOptions(options.interval, options.connections, options.kept, loopback=True)
    found = Kubelets(chosen, cast("ApiServer", _Api(authorities)), table, handover.put, supervisor.failures)
    for number in range(options.nodes):
        name = f"node-{number:05d}"
        table.upsert_node(name, 64.0, 256.0)
        for pod in range(PODS_IN_TABLE):
            table.pod_bound(f"{number}-{pod}", name, 0.1, 0.1)
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        found.present(decode_node(msgspec.Raw(json.dumps({"metadata": {"name": name}, "status": status}).encode())))
    gc.collect()
    gc.freeze()
    before = resident_mib(os.getpid())
    supervisor.start("usage", found.run)
    await asyncio.sleep(options.interval)
    began, used, asked = time.monotonic(), time.process_time(), found.results.total()
    slowest = 0.0
    late = []
    while (now := time.monotonic()) < began + options.intervals * options.interval:
        await asyncio.sleep(TICK)
        late.append(time.monotonic() - now - TICK)
        slowest = max(slowest, found.rounds.lag)
    took = time.monotonic() - began
    used, asked = time.process_time() - used, found.results.total() - asked
    late.sort()
    figures = {
        "cores": used / took,
        "cores_of_interval": used / asked * options.nodes / options.interval,
        "asked_per_interval": asked * options.interval / took,
        "measured_share": found.results["measured"] / found.results.total(),
        "nodes_measured": float(found.rounds.states()["measured"]),
        "pods_known": float(len(found.cpu_times)),
        "memory_mib": resident_mib(os.getpid(), "VmHWM") - before,
        "loop_p99_ms": 1000.0 * late[int(0.99 * len(late))],
        "loop_max_ms": 1000.0 * late[-1],
        "lag_s": slowest,
    }
    handover.close()
    await supervisor.stop()
    return figures


def measure(arguments: Sequence[str]) -> list[Result]:
    """Be asked by a service that knows so many nodes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving kubelets", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=30, help="in each answer")
    parser.add_argument("--containers", type=int, default=1, help="of each pod")
    parser.add_argument("--interval", type=float, default=15.0)
    parser.add_argument("--intervals", type=int, default=2)
    parser.add_argument("--connections", type=int, default=KubeletOptions().connections)
    parser.add_argument("--kept", type=int, default=KubeletOptions().kept)
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # as `serve` does; the kubelets inherit it
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder), "kubelet-ca")
        pair = authority.issue("kubelet", "127.0.0.1")
        files, size = (str(pair.certificate), str(pair.key)), (str(options.pods), str(options.containers))
        with subprocess.Popen(
            [sys.executable, "-m", __name__, *files, *size],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as server:  # fmt: skip
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(follow(options, said["port"], authority.certificate.read_bytes()))
            server.terminate()
    print(json.dumps({**figures, "answer_bytes": said["bytes"]}, indent=2))
    title = f"{options.nodes} kubelets of {options.pods} pods, every {options.interval:g} s"
    return [
        # Of as many questions as an interval has, also where a busy machine did not let it ask them all.
        Result(f"{title}, CPU cores for the work of an interval", figures["cores_of_interval"], "cores", at_most=0.6),
        Result(f"{title}, CPU cores used", figures["cores"], "cores"),
        Result(f"{title}, asked each interval", figures["asked_per_interval"], "nodes", at_least=0.95 * options.nodes),
        Result(f"{title}, memory at most", figures["memory_mib"], "MiB"),
        Result(f"{title}, event loop kept busy at most", figures["loop_max_ms"], "ms"),
        Result(f"{title}, event loop kept busy, 99th percentile", figures["loop_p99_ms"], "ms"),
        Result(f"{title}, size of an answer", said["bytes"] / 1024, "KiB"),
    ]


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
