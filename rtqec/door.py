"""What a gate decides: who may come in, and when there is room again. Knows neither sockets nor the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils import z85

from rtqec.security import LOCAL, PLAIN, Right, Rights, missing

HANDSHAKE_MS = 3000
"""How long a connection may take to prove itself: many round trips of any network. libzmq's own default, 30 s, lets
strangers who say nothing hold ten times as many descriptors."""
REPORT_EVERY_S = 10.0
"""A refused peer tries again, up to ten times a second; the log says so once in a while."""


@dataclass
class Tally:
    """How often something was refused, and when the log last said so."""

    count: int = 0
    reported_at: float = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Count one more; whether to report it now."""
        self.count += 1
        if now_s - self.reported_at < REPORT_EVERY_S:
            return False
        self.reported_at = now_s
        return True


@dataclass
class Door:
    """One guarded socket.

    ZAP does not say about which connection it asks, and a monitor not who was let in. But connections are accepted
    before they are asked about, so that the peer is one of those that are open when it is let in; the others of them
    are strangers, and gone within `HANDSHAKE_MS`. The place is free again when all of them are gone.

    Attributes:
        key: Names it in the log.
        right, patch_ids: What a key needs to come in; without a right, any known key may.
        alone: Whether it has one place only.
        keyed: Whether it asks for keys.
        port: Where it listens, if on tcp.
        connections: Those that are open.
        candidates: Those of them among which the peer is that was let in.
        caller: Who that is.
        tallies: Of what was reported, by event and reason.
    """

    key: str
    right: Right | None = None
    patch_ids: tuple[int, ...] = ()
    alone: bool = True
    keyed: bool = False
    port: int = 0
    connections: set[int] = field(default_factory=set)
    candidates: set[int] = field(default_factory=set)
    caller: str = ""
    tallies: dict[str, Tally] = field(default_factory=dict)

    def objection(self, caller: str, mechanism: bytes, rights: Rights) -> tuple[str, dict[str, Any]] | None:
        """Why a peer that knocks now may not come in, as an event for the log; None where it may."""
        if mechanism != (b"CURVE" if self.keyed else b"NULL"):
            return "key_refused", {"reason": "it proved no key"}
        if self.keyed and (lacking := self.lacking(caller, rights)):
            return "key_refused", {"caller": rights.describe(caller)} | lacking
        if self.alone and self.candidates:
            return "second_peer_refused", {"caller": rights.describe(caller), "connected": rights.describe(self.caller)}
        return None

    def lacking(self, caller: str, rights: Rights) -> dict[str, str]:
        """What a key lacks, and what to do about it; empty where it may come in."""
        client = rights.client(caller)
        if client is None:
            return {"reason": "no [[client]] has this public_key"}
        lacks = missing(client, self.right, self.patch_ids) if self.right is not None else []
        if not lacks:
            return {}
        reason = f"it may not {self.right} patches {lacks}"
        if len(lacks) == len(self.patch_ids):
            return {"reason": reason}
        return {"reason": reason, "remedy": "give the patches that it may a lane of their own: [[patch]] lane"}

    def admit(self, caller: str) -> None:
        """Note that a peer is let in."""
        self.caller = caller
        if self.alone:
            self.candidates = set(self.connections)

    def follow(self, event: int, connection: int) -> bool:
        """Note that a connection was accepted, or that one has gone. True where the peer is gone with it."""
        if event == zmq.EVENT_ACCEPTED:
            self.connections.add(connection)
            return False
        taken = bool(self.candidates)
        self.connections.discard(connection)
        self.candidates.discard(connection)
        return taken and not self.candidates


def caller_of(address: bytes, mechanism: bytes, credentials: list[bytes]) -> str:
    """Who knocks; see `security`."""
    if mechanism == b"CURVE":
        return z85.encode(credentials[0]).decode()
    where = address.decode(errors="replace")
    host, _, peer = where.partition(":")
    if host == "localhost":  # libzmq's words for a Unix socket: localhost:uid:gid:pid.
        return LOCAL + peer.partition(":")[0]
    return PLAIN + where
