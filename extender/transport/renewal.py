"""Looks at the service's certificates again and again, and says what it finds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from extender import logs
from extender.errors import CertificateError
from extender.transport.tls import Certificates, date_of

WARN_EVERY_S: Final = 3600.0

_log = logs.get(__name__)


class CertificateWatch:
    """Exchanges certificates that changed, warns of those that expire, and logs failed handshakes."""

    def __init__(self, certificates: Certificates, timer: Callable[[], float] = time.monotonic) -> None:
        self._certificates = certificates
        self._timer = timer
        self._warned = float("-inf")
        self._failed = Counter(certificates.failed_handshakes)

    async def look(self) -> None:
        """Look at the files once."""
        self._warn()
        failed = self._certificates.failed_handshakes - self._failed
        if failed:
            self._failed += failed
            _log.warning("TLS handshakes failed", **failed)
        try:
            identity = await asyncio.to_thread(self._certificates.poll)
        except CertificateError as error:
            _log.error("new certificates refused; the old ones serve on", error=str(error))
            return
        if identity is not None:
            self._certificates.loads["loaded"] += 1
            ends = {name: date_of(validity.end) for name, validity in identity.validity.items()}
            _log.info("new certificates in use", **ends)

    def _warn(self) -> None:
        expiring = self._certificates.expiring()
        if expiring and self._timer() - self._warned >= WARN_EVERY_S:
            self._warned = self._timer()
            for name, left in expiring.items():
                _log.warning("certificate expires soon; renew it", file=name, hours_left=round(left / 3600.0, 1))
