"""Between the supervisor and its lanes: whole messages (msgpack maps) over a Unix socket pair, with file descriptors.

Nothing else crosses between them but the telemetry block. Either end sees the other's death as the end of the channel.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import msgpack

_INLINE_BYTES_MAX = 1 << 15
"""A larger message (the configuration of a thousand patches) travels as a file in memory: datagrams have a bound."""
_INLINE, _IN_FILE = b"\0", b"\1"
_FDS_MAX = 4


class Channel:
    """One end.

    Args:
        end: A `SOCK_SEQPACKET` socket; see `pair` and `of_fd`.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends of a new channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    @classmethod
    def of_fd(cls, fd: int) -> Channel:
        """The end that was inherited as this descriptor."""
        return cls(socket.socket(fileno=fd))

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> bool:
        """Hand over one message. False where nobody is at the other end any more."""
        packed: bytes = msgpack.packb(message)
        fds = fds or []
        try:
            if len(packed) <= _INLINE_BYTES_MAX:
                socket.send_fds(self._socket, [_INLINE + packed], fds)
                return True
            with os.fdopen(os.memfd_create("message"), "w+b") as file:
                file.write(packed)
                file.flush()
                socket.send_fds(self._socket, [_IN_FILE], [file.fileno(), *fds])
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Wait for the next message, None at the end of the channel, and the descriptors that came with it."""
        try:
            packed, fds, _, _ = socket.recv_fds(self._socket, _INLINE_BYTES_MAX + 1, _FDS_MAX)
        except ConnectionResetError:
            return None, []
        if not packed:
            return None, []
        content = packed[1:]
        if packed[:1] == _IN_FILE:
            with os.fdopen(fds.pop(0), "rb") as file:
                file.seek(0)
                content = file.read()
        message: dict[str, Any] = msgpack.unpackb(content)
        return message, list(fds)

    def fileno(self) -> int:
        """For poll and asyncio."""
        return self._socket.fileno()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._socket.close()
