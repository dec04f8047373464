"""What the connections of one port share: limits, and who gives way when there are too many of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from extender.transport.budget import ByteBudget
from extender.transport.turns import Turns

REFUSALS: Final = (
    "connections", "gave_way", "requests", "bytes", "header_timeout", "header_size", "answer_timeout", "malformed",
    "client_name", "busy",
)  # fmt: skip
"""What a request or a connection can be refused for before anything looks at it."""

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that are answered whatever else is asked: the kubelet restarts a container that does not answer them."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What callers at one port are held to."""

    header_timeout_s: float  # time for the head of a request, and for a TLS handshake
    max_header_bytes: int  # length of the head, or of all heads that wait for an answer on one connection
    body_timeout_s: float  # time for the body of a request
    answer_timeout_s: float  # time for the caller to read an answer
    max_connections: int
    max_requests: int
    names: frozenset[str] = frozenset()  # a client certificate must have one of them; empty: any, or none


class Peer(Protocol):
    """One connection, or what will be one."""

    @property
    def waits(self) -> bool:
        """Whether it is the caller's turn: to ask, to go on sending, or to read."""

    def give_way(self) -> None:
        """End at once: a new connection needs the place."""


@dataclass(eq=False)
class Port:
    """The connections of one port."""

    limits: ConnectionLimits  # what each is held to
    budget: ByteBudget  # bytes that the callers of all ports make the service hold
    turns: Turns  # when operators' requests begin
    verbs: frozenset[str]  # paths of requests that begin at once
    refused: Callable[[str], None]  # told the reason of each refusal, one of `REFUSALS`
    _peers: OrderedDict[Peer, None] = field(default_factory=OrderedDict, init=False)
    """Those that asked last, or came, longest ago first."""

    def __len__(self) -> int:
        """How many connections there are, TLS handshakes among them."""
        return len(self._peers)

    def enter(self, peer: Peer) -> bool:
        """Count a new connection. Where that is one too many, the one that has been idle longest gives way.

        Connections whose caller owes the rest of a request, or does not read its answer, count as idle.

        Returns:
            Whether there is room: not where all others are being answered.
        """
        self._peers[peer] = None
        excess = len(self._peers) - self.limits.max_connections
        for other in list(self._peers) if excess > 0 else ():
            if other is peer:
                return False
            if other.waits:
                del self._peers[other]
                self.refused("gave_way")
                other.give_way()
                return True
        return True

    def used(self, peer: Peer) -> None:
        """A request of this connection was answered: it is the last to give way."""
        if peer in self._peers:
            self._peers.move_to_end(peer)

    def leave(self, peer: Peer) -> None:
        """This connection has ended."""
        self._peers.pop(peer, None)
