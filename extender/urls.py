"""URLs that settings and kubeconfigs name. Refuses to show any: they may hold passwords."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL of HTTP or HTTPS with a host; None if it is none."""
    if not text.isprintable() or " " in text:
        return None  # `urlsplit` cuts some of these off, and connections do not
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as every connection does: no label is empty, or too long
    except ValueError:
        return None
    return parts if usable else None


def secret_problem(url: str, instead: str) -> str | None:
    """Return what is wrong with the URL of a setting; None if nothing is.

    A URL is shown by check-config, in logs and in errors, so it must not hold what is secret.

    Args:
        url: to look at.
        instead: where user, password and keys belong.
    """
    parts = split_url(url)
    if parts is None:
        return "is no URL; begin it with http:// or https://, and give a host"
    if "@" in parts.netloc:
        return f"holds a user or a password; give them by {instead}"
    if parts.query or parts.fragment:
        return f"has a query or a fragment; leave it out, and give keys by {instead}"
    return None
