"""Tasks carried out by processes of this machine; one that fails does not stop the others, and none outlives us."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Generic, TypeVar, cast

from policy.errors import SchedulerError

POLL_S: Final = 1.0
"""How often whoever watches is told which tasks are under way."""

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What numeric libraries read when they are first imported."""

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task came to nothing: `reason`, in a line."""

    reason: str


class TaskError(SchedulerError):
    """A task failed whose result the others need."""


def explain(error: BaseException) -> str:
    """Return why something failed, in a line: our own errors speak for themselves, others need their type."""
    return str(error) if isinstance(error, SchedulerError) else f"{type(error).__name__}: {error}"


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let processes started within see `THREAD_VARIABLES` at 1; afterwards the environment is as it was."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Worker(Generic[Task, Result]):
    """A process and this end of the pipe to it."""

    def __init__(self, work: Callable[[Task], Result]) -> None:
        context = multiprocessing.get_context("spawn")  # neither torch's nor ONNX Runtime's threads survive a fork
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(work, theirs))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def begin(self, task: Task) -> None:
        with suppress(ConnectionError):  # it has ended already, which `result` finds
            self.connection.send(task)

    def result(self) -> Result | Failure:
        try:
            return cast("Result | Failure", self.connection.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            return Failure(f"its process ended with exit code {self.process.exitcode}")

    def end(self) -> None:
        self.connection.close()
        self.process.join()


def run_in_processes(
    work: Callable[[Task], Result],
    tasks: Mapping[Key, Task],
    jobs: int,
    *,
    ended: Callable[[Key, Result | Failure], None] = lambda _key, _result: None,
    watch: Callable[[Iterable[Key]], None] = lambda _keys: None,
    reuse: bool = False,
) -> dict[Key, Result | Failure]:
    """Carry out every task; the results by the keys of the tasks, in the order in which they ended.

    Args:
        work: a function of a module, so that it pickles, as tasks and results must.
        tasks: begun in their order.
        jobs: processes at a time.
        ended: told of each task that has ended; what it raises ends the others.
        watch: told every `POLL_S` which tasks are under way.
        reuse: let a process carry out several tasks, for short ones; by default each has its own.
    """
    waiting = list(tasks.items())[::-1]
    busy: dict[Connection, tuple[Key, _Worker[Task, Result]]] = {}
    idle: list[_Worker[Task, Result]] = []
    results: dict[Key, Result | Failure] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                key, task = waiting.pop()
                worker = idle.pop() if idle else _Worker(work)
                busy[worker.connection] = key, worker
                worker.begin(task)
            for ready in multiprocessing.connection.wait(list(busy), timeout=POLL_S):
                key, worker = busy.pop(cast("Connection", ready))
                results[key] = worker.result()
                if reuse and worker.process.is_alive():
                    idle.append(worker)
                else:
                    worker.end()
                ended(key, results[key])
            watch([key for key, _ in busy.values()])
    finally:
        for _, worker in busy.values():
            worker.process.terminate()
        for worker in [*idle, *(worker for _, worker in busy.values())]:
            worker.end()
    return results


def _serve(work: Callable[[Task], Result], theirs: Connection) -> None:
    """Carry out one task after another until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            task = theirs.recv()
            try:
                theirs.send(work(task))
            except Exception as error:  # whatever it is, the parent reports it and the other tasks go on
                if not isinstance(error, SchedulerError):
                    traceback.print_exc(file=sys.stderr)
                theirs.send(Failure(explain(error)))


def _end_with_parent() -> None:
    """Leave at once when the parent is gone: nobody waits for the result, and the folder must be free to go on in."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
