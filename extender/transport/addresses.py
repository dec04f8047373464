"""Where a port listens: one socket for each address of a list, all at the same port."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Any, Final

from extender import logs
from extender.errors import SettingsError, kind_of
from extender.settings import separated

BACKLOG: Final = 2048
TRIES: Final = 20
"""How often another free port is looked for, where the one found for the first address is taken at another."""

_LACKING: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

_log = logs.get(__name__)

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def listen(setting: str, hosts: str, port: int) -> list[socket.socket]:
    """Listening sockets at these addresses.

    An address whose family this machine lacks is skipped: the defaults name addresses of both. ``::`` means all
    addresses of IPv6 and none of IPv4, so that the two lists add up.

    Args:
        setting: that the addresses come from.
        hosts: addresses or names, separated by commas; a name stands for all of its addresses.
        port: 0 takes one that is free at all of them.

    Raises:
        SettingsError: an address cannot be had, or none is left.
    """
    wanted = [address for host in separated(hosts) for address in _resolved(setting, host, port)]
    for tries_left in reversed(range(TRIES)):
        opened = _open(setting, list(dict.fromkeys(wanted)), port, last_try=not tries_left)
        if opened is not None:
            return opened
    raise SettingsError(f"{setting}: no port is free at all of {hosts}; set one")


def shown(sockets: list[socket.socket]) -> list[str]:
    """Addresses and port of these sockets, for people."""
    names = [each.getsockname() for each in sockets]
    return [f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names]


def _open(setting: str, addresses: list[_Address], port: int, *, last_try: bool) -> list[socket.socket] | None:
    """A socket for each address; None where the port that was free at one of them is taken at another."""
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            number = sockets[0].getsockname()[1] if sockets else port
            try:
                listening = socket.create_server((address[0], number, *address[2:]), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port == 0 and not last_try:
                    return None
                if error.errno in _LACKING and not _has(family):
                    _log.info("address skipped: this machine lacks its family", setting=setting, address=address[0])
                    continue
                raise _refused(setting, address[0], number, error) from error
            sockets.append(opened.enter_context(listening))
        if not sockets:
            names = ", ".join(address[0] for _, address in addresses)
            raise SettingsError(f"{setting}: this machine lacks the families of all of {names}; name others")
        opened.pop_all()
        return sockets


def _resolved(setting: str, host: str, port: int) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refused(setting, host, port, error) from error
    return [(family, address) for family, _, _, _, address in found]


def _has(family: socket.AddressFamily) -> bool:
    """Whether this machine has addresses of this family: at least that of the loopback."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((_LOOPBACK[family], 0))
    except OSError:
        return False
    return True


def _refused(setting: str, host: str, port: int, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot listen on {host} port {port} ({kind_of(error)}); set {setting} to addresses of this machine, "
        "and the port to one that is free"
    )
