"""One process of the test control plane: started, waited for, stopped, killed, paused; its log kept.

It knows nothing of Kubernetes. Every process dies with the one that started it, however that ends.
"""

import ctypes
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.05
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: a forked child should load nothing


class StartError(RuntimeError):
    """A process did not come up; the message ends with what it logged."""


class Process:
    """A child process whose output is appended to `<directory>/<name>.log`, over restarts too."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the process; `start` starts it.

        Args:
            name: for messages and the log's name.
            command: program and arguments.
            directory: where it runs and logs.
            ready: asked until it says yes; it must not block for long.
            environment: variables beside those of this process.
        """
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._command = list(command)
        self._directory = directory
        self._ready = ready
        self._environment = dict(environment or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id.

        Raises:
            StartError: it does not run.
        """
        if self._child is None or self._child.poll() is not None:
            raise StartError(f"{self.name} does not run")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it and return at once; `wait` says when it is ready."""
        if self.running:
            raise StartError(f"{self.name} already runs as {self.pid}")
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the test run, which then stops things in their order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait(self, timeout_s: float = 60.0) -> None:
        """Wait until it is ready.

        Raises:
            StartError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if self._child is None or self._child.poll() is not None:
                code = None if self._child is None else self._child.returncode
                raise StartError(f"{self.name} ended with status {code} before it was ready:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def stop(self, timeout_s: float = 20.0) -> None:
        """End it politely, and by force after `timeout_s`; nothing if it does not run."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGCONT)  # a paused process cannot end politely
        self._child.terminate()
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as kill -9 does, and wait until it is gone."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): it keeps its port and connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """All it has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self, lines: int = 20) -> str:
        """The end of its log, long lines cut."""
        return "\n".join(line[:300] for line in self.log().splitlines()[-lines:])


def free_ports(count: int) -> list[int]:
    """That many different TCP ports that nothing on 127.0.0.1 listens on now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def answers_ok(url: str, authority: Path | None = None) -> Callable[[], bool]:
    """A readiness check: whether a GET of `url` is answered with 200. https trusts only `authority`."""
    context = ssl.create_default_context(cafile=authority) if authority else None

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            return False

    return check


def _die_with_parent() -> None:
    """In the child, before exec: be killed when the test run is, so that kill -9 of pytest leaves nothing behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
