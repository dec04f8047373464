"""Error answers over many requests, without faults and with faults injected one after the other, as long as they last.

Several connections over TLS, kept alive, ask every verb with 1 to 500 nodes. An error answer is any but 200 with the
body kube-scheduler can use, and a connection that breaks. Faults: a corrupt bundle and a good one on SIGHUP, a scorer
slower than the deadline, measurements that stop, certificates exchanged, and another client whose requests are
malformed (what it is answered does not count).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from policy.bundle import shipped_bundle_path
from tests.bench.client import extender_args, node_names
from tests.bench.report import Result
from tests.control_plane.certificates import Authority

NODES: Final = 500
SIZES: Final = (1, 10, 100, 500)
CONNECTIONS: Final = 4
RECONNECT_EVERY: Final = 500
"""Requests on one connection; a new one then meets the certificate of now, as a kube-scheduler that restarts does."""
FAULT_S: Final = 1.0
MOST_ERRORS_PERCENT: Final = 0.03


@dataclass
class Count:
    """What the requests were answered."""

    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def percent(self) -> float:
        """Share of answers that were errors."""
        return 100.0 * sum(self.errors.values()) / max(1, self.answers)


class Load:
    """Asks over several connections until a number of answers has come."""

    def __init__(self, port: int, trusted: ssl.SSLContext, requests: int) -> None:
        self._port = port
        self._trusted = trusted
        self._left = requests
        self._lock = threading.Lock()
        self.count = Count()
        self._names = node_names(NODES)

    def run(self) -> Count:
        """Ask, and wait for all answers."""
        workers = [threading.Thread(target=self._work, args=(seed,)) for seed in range(CONNECTIONS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.count

    def _take(self) -> int | None:
        with self._lock:
            self._left -= 1
            return self._left if self._left >= 0 else None

    def _work(self, seed: int) -> None:
        draw = random.Random(seed)
        connection: http.client.HTTPSConnection | None = None
        done = 0
        while (number := self._take()) is not None:
            if connection is None or done % RECONNECT_EVERY == 0:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPSConnection("localhost", self._port, timeout=30, context=self._trusted)
            done += 1
            verb = draw.choices(("prioritize", "filter", "preempt"), (6, 3, 1))[0]
            names = self._names[: draw.choice(SIZES)]
            body = extender_args(names, number, cpu=f"{100 * draw.randint(1, 40)}m")
            if verb == "preempt":
                asked = json.loads(body)
                victims = {name: {"Pods": [], "NumPDBViolations": 0} for name in names}
                body = json.dumps({"Pod": asked["Pod"], "NodeNameToMetaVictims": victims}).encode()
            try:
                connection.request("POST", f"/{verb}", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                problem = _problem(verb, names, answer.status, answer.read())
            except (OSError, http.client.HTTPException) as error:
                problem = type(error).__name__
                connection.close()
                connection = None
            with self._lock:
                self.count.answers += 1
                if problem:
                    self.count.errors[problem] += 1


def _problem(verb: str, names: Sequence[str], status: int, body: bytes) -> str | None:
    """Why kube-scheduler could not use this answer; None if it could."""
    if status != 200:
        return f"{verb}: status {status}"
    document: Any = json.loads(body)
    found = {
        "prioritize": lambda: {each["Host"] for each in document if 0 <= each["Score"] <= 10},
        "filter": lambda: set(document["NodeNames"]) if not document["Error"] else set(),
        "preempt": lambda: set(document["NodeNameToMetaVictims"]),
    }[verb]()
    return None if found == set(names) else f"{verb}: other nodes than asked about"


class Faults:
    """Does one thing after the other to a service until told to end, and puts all right again."""

    def __init__(self, process: subprocess.Popen[str], bundle: Path, rotate: Callable[[], None], port: int) -> None:
        self.done: Counter[str] = Counter()
        self._process = process
        self._model = bundle / "actor.onnx"
        self._good = self._model.read_bytes()
        self._rotate = rotate
        self._port = port
        self._ending = threading.Event()

    @contextlib.contextmanager
    def injected(self, trusted: ssl.SSLContext) -> Iterator[None]:
        """Faults happen inside the block."""
        threads = [threading.Thread(target=self._inject), threading.Thread(target=self._pester, args=(trusted,))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _inject(self) -> None:
        faults = {
            "corrupt bundle": (lambda: self._swap(self._good[: len(self._good) // 2]), lambda: self._swap(self._good)),
            "slow scorer": (lambda: self._signal(signal.SIGUSR1),) * 2,
            "measurements stop": (lambda: self._signal(signal.SIGUSR2),) * 2,
            "certificate exchanged": (self._rotate, lambda: None),
        }
        while not self._ending.is_set():
            for name, (begin, end) in faults.items():
                begin()
                self._ending.wait(FAULT_S)
                end()
                self.done[name] += 1

    def _pester(self, trusted: ssl.SSLContext) -> None:
        bodies = (b"", b"{", b"[]", b'{"Pod":7}', b'{"Pod":{"metadata":{}},"NodeNames":"a"}', b"\xff" * 1000)
        while not self._ending.wait(0.01):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPSConnection("localhost", self._port, timeout=30, context=trusted)
                connection.request("POST", "/prioritize", random.choice(bodies))
                self.done[f"malformed, answered {connection.getresponse().status}"] += 1
                connection.close()

    def _swap(self, content: bytes) -> None:
        draft = self._model.with_name("draft")
        draft.write_bytes(content)
        draft.replace(self._model)
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


def measure(arguments: Sequence[str]) -> list[Result]:
    """Ask without faults, then with them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving errors", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="with faults injected")
    parser.add_argument("--calm", type=int, default=20_000, help="without")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        bundle = shutil.copytree(shipped_bundle_path(), directory / "bundle")
        authority = Authority(directory, "authority")
        first = authority.issue("first", "localhost", "127.0.0.1")
        files = (first.certificate, first.key)
        certificate, key = (Path(shutil.copy(file, directory / f"served-{i}.pem")) for i, file in enumerate(files))
        trusted = ssl.create_default_context(cafile=str(authority.certificate))

        def rotate() -> None:
            fresh = authority.issue(f"next-{time.monotonic_ns()}", "localhost", "127.0.0.1")
            for source, target in ((fresh.certificate, certificate), (fresh.key, key)):
                draft = directory / "draft.pem"
                shutil.copy(source, draft)
                draft.replace(target)

        command = [
            sys.executable,
            "-m",
            "tests.bench.faulty_service",
            str(NODES),
            *map(str, (bundle, certificate, key)),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                port = int(json.loads(process.stdout.readline() if process.stdout else "")["port"])
                calm = Load(port, trusted, chosen.calm).run()
                faults = Faults(process, bundle, rotate, port)
                began = time.monotonic()
                with faults.injected(trusted):
                    faulty = Load(port, trusted, chosen.requests).run()
                elapsed = time.monotonic() - began
            finally:
                process.terminate()
    for title, count in (("calm", calm), ("with faults", faulty)):
        for problem, times in count.errors.items():
            print(f"{title}: {times} x {problem}")
    print(", ".join(f"{times} x {name}" for name, times in sorted(faults.done.items())))
    return [
        Result(f"error answers of {calm.answers} without faults", calm.percent, "%", at_most=0.0),
        Result(
            f"error answers of {faulty.answers} with faults injected", faulty.percent, "%", at_most=MOST_ERRORS_PERCENT
        ),
        Result("requests a second with faults injected", faulty.answers / elapsed, "1/s"),
        Result("faults injected meanwhile", sum(faults.done.values()), "faults", at_least=4),
    ]
