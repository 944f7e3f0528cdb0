"""What a client shows to a daemon on tcp: its own CURVE key, and whose daemon it must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
import zmq.auth


@dataclass(frozen=True)
class Keys:
    """Keys, as Z85; see `rtqec keys new`."""

    public: bytes
    secret: bytes = field(repr=False)
    server_public: bytes

    @classmethod
    def load(cls, key_file: Path, server_key_file: Path) -> Keys:
        """Read one's own NAME.key_secret and the daemon's NAME.key.

        Raises:
            ValueError: The first has no secret half, or a file holds no key.
            OSError: A file cannot be read.
        """
        public, secret = zmq.auth.load_certificate(key_file)
        if secret is None:
            raise ValueError(f"{key_file} holds only the public half of a key; name the file that ends in .key_secret")
        return cls(public, secret, zmq.auth.load_certificate(server_key_file)[0])


def show(socket: zmq.Socket[Any], endpoint: str, keys: Keys | None) -> None:
    """Let a socket that is not connected yet show its key, if it is for tcp and there is one."""
    if keys is not None and endpoint.startswith("tcp://"):
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
