"""Which proxy a URL is asked through: as Go's tools decide it, so that one shell means the same to kubectl and to us.

The source is golang.org/x/net/http/httpproxy, which net/http's ProxyFromEnvironment is made of. Python's urllib and
requests differ from it: they ask a proxy for loopback addresses, which are another machine's there.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

PORTS: Final[Mapping[str, int | None]] = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str], *, loopback: bool = False) -> str | None:
    """Return the URL of the proxy that the environment names for this URL; None to ask the host itself.

    Args:
        url: ``http`` or ``https``, with a host.
        environment: such as ``os.environ``; HTTP_PROXY, HTTPS_PROXY and NO_PROXY count, in capitals or not.
        loopback: whether hosts that are this machine may have a proxy, too, as no tool of Go's lets them.
    """
    parts = urlsplit(url)
    name = f"{parts.scheme.upper()}_PROXY"
    proxy = environment.get(name) or environment.get(name.lower()) or ""
    # a CGI program's HTTP_PROXY is the header `Proxy` of whoever calls it
    if not proxy or (name == "HTTP_PROXY" and environment.get("REQUEST_METHOD")):
        return None
    host, port = (parts.hostname or "").lower(), str(parts.port or PORTS.get(parts.scheme))
    excluded = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if (is_loopback(host) and not loopback) or any(
        _covers(entry.strip().lower(), host, port) for entry in excluded.split(",")
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, whatever the environment says."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, an IPv4 address that is written as an IPv6 address as what it is; None if it is a name."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _covers(entry: str, host: str, port: str) -> bool:
    """Whether an entry of NO_PROXY means this host."""
    if entry in ("", "*"):
        return entry == "*"
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, only = entry.rpartition(":")
    if not colon or (":" in name and not name.startswith("[")):  # no port; an IPv6 address has colons of its own
        name, only = entry, ""
    if only not in ("", port):
        return False
    name = name.strip("[]").removeprefix("*")
    excluded = _address(name)
    if excluded is not None:
        return excluded == address
    return bool(name.strip(".")) and (host.endswith(name if name.startswith(".") else f".{name}") or host == name)
