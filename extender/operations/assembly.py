"""Large answers for operators: put together in threads, one at a time, so that no verb and no probe waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar, cast

from extender.errors import BusyError
from extender.pace import SHARE

T = TypeVar("T")

PATIENCE_S: Final = 1.0
"""How long a request waits for its turn before it is told to come again."""

SCRAPE_PATIENCE_S: Final = 10.0
"""The same for metrics, which are never long in coming: Prometheus' own time limit."""


class Assembly:
    """Puts answers together, one at a time, and rests after each that worked without a rest.

    Args:
        refused: told "busy" for each request that found no turn.
        patience_s: how long a request waits for its turn.
        timer: monotonic seconds.
    """

    def __init__(
        self,
        refused: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refused = refused
        self._patience_s = patience_s
        self._timer = timer
        self._turn = asyncio.Lock()
        self._rest_s = 0.0
        self._latest: dict[str, tuple[float, bytes]] = {}

    async def of(self, build: Callable[[], T]) -> T:
        """Return what `build` returns, called in a thread once nobody else's is being put together.

        Raises:
            BusyError: others' took too long.
        """
        async with self._turns():
            return await self._built(build)

    async def shared(self, name: str, build: Callable[[], bytes]) -> bytes:
        """Return what `build` returns, called after now: requests for the same answer that come meanwhile share it.

        Raises:
            BusyError: others' took too long.
        """
        asked = self._timer()
        async with self._turns():
            begun, answer = self._latest.get(name, (-1.0, b""))
            if begun < asked:
                begun, answer = self._timer(), await self._built(build)
                self._latest[name] = begun, answer
            return answer

    async def _built(self, build: Callable[[], T]) -> T:
        def work() -> tuple[T, float]:
            begun, used = time.monotonic(), time.thread_time()
            answer = build()
            return answer, (time.thread_time() - used) / SHARE - (time.monotonic() - begun)

        answer, self._rest_s = await _in_thread(work)
        return answer

    @asynccontextmanager
    async def _turns(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._turn.acquire()
        except TimeoutError:
            self._refused("busy")
            raise BusyError(f"other answers take longer than {self._patience_s:g} s; ask again") from None
        self._rest_s = 0.0
        try:
            yield
        finally:
            if self._rest_s > 0.0:
                asyncio.get_running_loop().call_later(self._rest_s, self._turn.release)
            else:
                self._turn.release()


async def _in_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, called in a thread that a service which ends does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # handed to whoever waits
            error = raised
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="document", daemon=True).start()
    return await done
