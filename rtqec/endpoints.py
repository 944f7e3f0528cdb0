"""Addresses that exactly one daemon serves, and files that only its own group may use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zmq

from rtqec.config import expand_variables
from rtqec.errors import ConfigError

_IPC = "ipc://"
_SOCKET_UMASK = 0o117
"""Leaves rw-rw----: connecting to a socket asks for the right to write."""


def bind_alone(socket: zmq.Socket[bytes], key: str, written: str) -> IO[str] | None:
    """Bind a socket to an endpoint that nobody else serves. An ipc endpoint is for its owner and group (0660).

    Args:
        socket: Not bound yet.
        key: The key, as `[table] key`, for the message.
        written: The endpoint as configured.

    Returns:
        The lock of an ipc endpoint, to be kept open as long as the socket; None for others, which the kernel guards.

    Raises:
        ConfigError: It is in use, or cannot be bound.
    """
    endpoint = expand_variables(key, written)
    lock = None
    try:
        if endpoint.startswith(_IPC):
            lock = lock_beside(Path(endpoint.removeprefix(_IPC)))
        with _umask(_SOCKET_UMASK):
            socket.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        if lock is not None:
            lock.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            key, f"is {endpoint!r}, but it cannot be bound: {reason}.",
            "Exactly one daemon serves an endpoint; a second one would steal half of its messages.",
            "Stop the other daemon, or name another endpoint (ipc:///path or tcp://host:port).",
        ) from error  # fmt: skip
    return lock


def lock_beside(path: Path) -> IO[str]:
    """Hold the lock beside a file that only one daemon may own (0600).

    ZeroMQ itself would silently take an ipc endpoint over from a running daemon.

    Raises:
        OSError: Another daemon holds it, or it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # In /tmp the name may be somebody's link.
    lock = os.fdopen(os.open(path.with_name(path.name + ".lock"), flags, 0o600), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise OSError(error.errno, "address in use by a running daemon") from error
    return lock


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    """Create files under another mask: permissions that come after the bind come after the first stranger."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
