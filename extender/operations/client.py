"""Asks a running service at its operations port, for the commands that show what it answers."""

from __future__ import annotations

import json
import os
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from extender.errors import ClientError
from extender.proxies import proxy_for

TIMEOUT_S: Final = 10.0

AGAIN: Final = urllib3.Retry(
    5, connect=0, read=0, redirect=0, other=0, status_forcelist=(503,), raise_on_status=False, raise_on_redirect=False
)
"""The service answers 503 with Retry-After while it computes documents for others."""


def ask(url: str, path: str) -> dict[str, Any] | None:
    """Return the JSON object at a path; None where the service answers 404.

    Args:
        url: of the operations port, such as ``http://127.0.0.1:8888``; a proxy of the environment is asked as Go's
            tools ask it, so never for loopback.
        path: what follows it.

    Raises:
        ClientError: the URL is none, nobody answers, or no service of ours does.
    """
    base = _checked(url)
    try:
        with _pool(base) as pool:
            answer = pool.request("GET", f"{base}{path}", timeout=TIMEOUT_S, retries=AGAIN, redirect=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClientError(
            f"cannot ask {base}: {_reason(error)}; is the service running, and --url its operations port?"
        ) from error
    if answer.status == 404:
        return None
    if answer.status == 503:
        raise ClientError(f"{base} answered 503: it is busy with other requests, or its ledger cannot be read")
    if answer.status != 200:
        raise ClientError(f"{base} answered {answer.status}; is --url the operations port of the service?")
    try:
        document = json.loads(answer.data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ClientError(f"{base} answered no JSON object; is --url the operations port of the service?")
    return document


def _checked(url: str) -> str:
    """The URL without a slash at its end."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # either may raise ValueError
    except ValueError:
        host = None
    if "@" in url:
        raise ClientError("--url holds a user or password, which the service does not ask for; leave it out")
    if host is None or not url.startswith(("http://", "https://")) or not url.isprintable() or " " in url:
        raise ClientError(f"{url[:200]!a} is no http or https URL; give --url http://host:port")
    return url.rstrip("/")


def _pool(url: str) -> urllib3.PoolManager:
    proxy = proxy_for(url, os.environ)
    if proxy is None:
        return urllib3.PoolManager()
    user = urllib3.util.parse_url(proxy).auth
    return urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=user) if user else None)


def _reason(error: BaseException | None) -> str:
    """What the system says, where it was asked; else the kind of failure: a proxy's URL may hold a password."""
    kind = type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        inner = getattr(error, "reason", None) or getattr(error, "original_error", None) or error.__cause__
        error = inner if isinstance(inner, BaseException) else error.__context__
    return kind
