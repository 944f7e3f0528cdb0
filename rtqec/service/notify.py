"""What the daemon tells its service manager, where there is one (the protocol of sd_notify)."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send one state, for example READY=1."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.connect("\0" + address[1:] if address.startswith("@") else address)
        datagrams.sendall(state.encode())


def watchdog_period_s() -> float | None:
    """How often the service manager wants to hear of this process, or None."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if microseconds is None or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
