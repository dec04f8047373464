"""Notices another policy bundle where the served one lies, proves it, and puts it to use; or refuses it and says why.

The folder may be replaced by a rename, be a mounted ConfigMap (whose files are links through ``..data``, swapped at
once), a volume or an image. All are seen alike: by the resolved path and the hash of the manifest and by the identity,
size and time of the model, looked at every few seconds in a thread. What differs from what was judged last is loaded,
validated, held against its own recorded vectors and asked once, in that thread; then it is installed between two
decisions. One that fails is looked at again at the next turn, because it may be a copy in progress; if it has not
changed by then it is refused, and whatever serves goes on. Nothing unproven ever decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from extender import logs
from extender.scorer.load import LoadedScorer, bundle_path, load_policy, warm
from extender.scorer.worker import Worker
from extender.settings import Settings
from policy.bundle import MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE, Manifest, read_file
from policy.errors import BundleError, SchedulerError

REFUSAL_REASONS: Final = ("manifest", "model", *(field.name for field in fields(Manifest)), "scoring")
"""Every reason a bundle may be refused for: a file, a field of the manifest, or that it failed to answer."""

_log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that was not put to use."""

    at: float  # when, seconds since the epoch
    reason: str  # one of `REFUSAL_REASONS`
    message: str  # what is wrong with it, and the fix


@dataclass(slots=True)
class ReloadCounts:
    """Sums since the start: bundles put to use after the first one, and bundles refused."""

    swaps: int = 0
    refusals: int = 0


class BundleReloader:
    """Follows one bundle's folder. Owned by the event loop's thread.

    Args:
        path: the folder, as the settings name it; links are followed anew each time.
        load: reads and proves a bundle; raises `SchedulerError` to refuse it. Called in a thread.
        install: puts it to use; called on the event loop.

    Attributes:
        serving: what serves now.
        refusals: bundles refused since the start, by reason.
        last_refusal: the latest one; None if there was none.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], LoadedScorer],
        install: Callable[[LoadedScorer], None],
        serving: LoadedScorer | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.serving = serving
        self.counts = ReloadCounts()
        self.refusals = Counter(dict.fromkeys(REFUSAL_REASONS, 0))
        self.last_refusal: Refusal | None = None
        self._load = load
        self._install = install
        self._clock = clock
        self._worker = Worker("bundle")
        self._asked = asyncio.Event()
        self._judged: str | None = None
        self._doubtful: str | None = None
        self._since = clock()
        self._checked_at: float | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        install: Callable[[LoadedScorer], None],
        serving: LoadedScorer | None,
        clock: Callable[[], float],
    ) -> Self | None:
        """Return what follows the bundle that the settings name; None where a heuristic decides."""
        if settings.scorer != "policy":
            return None
        load = partial(load_policy, threads=settings.inference_threads)
        return cls(bundle_path(settings), load, install, serving, clock)

    def request(self) -> None:
        """Look now and judge at once, also what was refused before; callable on the event loop only."""
        self._asked.set()

    async def follow(self, interval_s: float) -> None:
        """Look once: after `interval_s` seconds, or as soon as asked (0: only then)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval_s or None):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        await self.look(at_once=asked)

    def stop(self) -> bool:
        """End the thread that reads bundles; returns whether it ended."""
        return self._worker.stop()

    async def look(self, at_once: bool = False) -> None:
        """Look once.

        Args:
            at_once: judge what is there even if it was judged before, and refuse it even if it may still be copied.
        """
        before = await self._worker.submit(lambda: fingerprint(self.path))
        self._checked_at = self._clock()
        if before == self._judged and not at_once:
            return
        try:
            loaded = await self._worker.submit(self._proven)
        except SchedulerError as error:
            after = await self._worker.submit(lambda: fingerprint(self.path))
            if after == before and (at_once or self._doubtful == before):
                self._judged = before
                self._refuse(error)
            else:
                self._doubtful = after
            return
        self._judged, self._doubtful = before, None
        if self.serving is not None and loaded.manifest_sha256 == self.serving.manifest_sha256:
            return
        former, self.serving = self.serving, loaded
        self._install(loaded)
        self._since = self._clock()
        self.counts.swaps += 1
        _log.info(
            "another policy serves",
            scorer=loaded.scorer.name,
            model_sha256=loaded.model_sha256,
            former_model_sha256="" if former is None else former.model_sha256,
        )

    def status(self) -> dict[str, Any]:
        """What serves since when, and what was refused, as JSON."""
        return {
            "path": str(self.path),
            "serving_since": self._since,
            "checked_at": self._checked_at,
            **asdict(self.counts),
            "last_refusal": None if self.last_refusal is None else asdict(self.last_refusal),
        }

    def _proven(self) -> LoadedScorer:
        loaded = self._load(self.path)
        warm(loaded.scorer)
        return loaded

    def _refuse(self, error: SchedulerError) -> None:
        reason = error.field.partition(".")[0] if isinstance(error, BundleError) else "scoring"
        refusal = Refusal(self._clock(), reason if reason in REFUSAL_REASONS else "manifest", str(error))
        self.last_refusal = refusal
        self.counts.refusals += 1
        self.refusals[refusal.reason] += 1
        _log.error(
            "a policy bundle was refused; nothing changes", reason=refusal.reason, error=str(error), path=str(self.path)
        )


def fingerprint(path: Path) -> str:
    """What tells one state of a bundle's folder from another: equal texts, equal bundle."""
    parts: list[object] = []
    try:
        manifest = (path / MANIFEST_FILE).resolve()
        raw = read_file(manifest, "manifest", MAX_MANIFEST_BYTES)
        parts += [manifest, hashlib.sha256(raw).hexdigest()]
        model = (path / MODEL_FILE).resolve()
        status = model.stat()
        parts += [model, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a null byte in the path; links in a circle, up to Python 3.12
        parts.append(type(error).__name__)
    except BundleError as error:
        parts.append(str(error))
    return repr(parts)
