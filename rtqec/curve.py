"""Keys that peers prove on tcp (CURVE, ZeroMQ RFC 26): their files, and the sockets that ask for them or show them.

A file is a certificate of ZeroMQ's own format: NAME.key has the public half, NAME.key_secret both.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth
from zmq.utils import z85

from rtqec.config import Config, expand_variables
from rtqec.errors import ConfigError

KEY_CHARACTERS = 40
"""Of a key in Z85, ZeroMQ RFC 32."""
SERVER_KEY = "[security] server_key"
TCP = "tcp://"


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key, as Z85. The secret half is in no message and no log."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs: its own key, and the public half of the server's."""

    own: KeyPair
    server_public: bytes


def is_key(text: str) -> bool:
    """Whether a text is a CURVE key in Z85."""
    try:
        return len(z85.decode(text.encode("ascii"))) == KEY_CHARACTERS * 4 // 5
    except (KeyError, ValueError, struct.error):
        return False


def load_server_key(config: Config) -> KeyPair | None:
    """The key that `[security] server_key` names; None where it names none.

    Raises:
        ConfigError: It cannot be read, holds no secret, or others may read it.
    """
    if config.security.server_key is None:
        return None
    if not zmq.has("curve"):
        raise ConfigError(
            SERVER_KEY, f"is {config.security.server_key!r}, but this libzmq was built without CURVE.",
            "No socket could ask for a key.", "Install the wheel of pyzmq, which brings one: pip install pyzmq.",
        )  # fmt: skip
    return load_secret(SERVER_KEY, Path(config.folder) / expand_variables(SERVER_KEY, config.security.server_key))


def load_client_keys(key_file: Path, server_key_file: Path) -> ClientKeys:
    """A client's own key, and the public half of the server's.

    Raises:
        ConfigError: A file cannot be read or holds no key, or others may read the secret.
    """
    return ClientKeys(load_secret("--key", key_file), load_key("--server-key", server_key_file)[0])


def load_secret(where: str, path: Path) -> KeyPair:
    """Both halves of a key, from a `NAME.key_secret` that nobody else may read.

    Args:
        where: The key or option that names the file, for the message.
        path: The file.

    Raises:
        ConfigError: It cannot be read, is damaged, holds no secret, or others may read it.
    """
    public, secret = load_key(where, path)
    if secret is None:
        raise ConfigError(
            where, f"is {str(path)!r}, which holds only the public half of a key.",
            "Whoever has a key proves it with the secret half.",
            "Name the file that ends in .key_secret; rtqec keys new NAME makes both.",
        )  # fmt: skip
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not _is_credential(path):
        raise ConfigError(
            where, f"is {str(path)!r}, whose mode is {stat.S_IMODE(path.stat().st_mode):04o}; it may be 0600 at most.",
            "Whoever reads the secret half of a key can pass for its owner.", f"Change it: chmod 600 {path}",
        )  # fmt: skip
    try:
        intact = zmq.curve_public(secret) == public
    except (zmq.ZMQError, ValueError):
        intact = False
    if not intact:
        raise ConfigError(
            where, f"is {str(path)!r}, whose two halves do not belong together.",
            "It was damaged or edited by hand.", "Restore it, or make a new one: rtqec keys new NAME",
        )  # fmt: skip
    return KeyPair(public, secret)


def load_key(where: str, path: Path) -> tuple[bytes, bytes | None]:
    """The public half of a key, and the secret one where the file has it.

    Raises:
        ConfigError: It cannot be read, or holds no key.
    """
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        raise ConfigError(
            where, f"is {str(path)!r}, which cannot be read: {error.strerror or 'there is no such file'}.",
            "Without it no peer can be told from a stranger.",
            "Correct the path, let this user read it, or make a key: rtqec keys new NAME",
        ) from error  # fmt: skip
    except (ValueError, IndexError):
        public, secret = b"", None
    if not is_key(public.decode(errors="replace")):
        raise ConfigError(
            where, f"is {str(path)!r}, which holds no key.", "A key is 40 characters of Z85, in ZeroMQ's own format.",
            "Make one: rtqec keys new NAME",
        ) from None  # fmt: skip
    return public, secret


def _is_credential(path: Path) -> bool:
    """Whether systemd guards the file: it may show group bits there, which are the mask of its access list."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.resolve().is_relative_to(Path(folder).resolve())


def secure_server(socket: zmq.Socket[bytes], endpoint: str, server_key: KeyPair | None) -> bool:
    """Let a socket that is not bound yet ask for keys, if it is on tcp and there is a server key.

    Returns:
        Whether it will.
    """
    if server_key is None or not is_tcp(endpoint):
        return False
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, server_key.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, server_key.secret)
    return True


def secure_client(socket: zmq.Socket[bytes], endpoint: str, keys: ClientKeys | None) -> None:
    """Let a socket that is not connected yet show its key, if it is for tcp and there is one."""
    if keys is not None and is_tcp(endpoint):
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret)


def is_tcp(endpoint: str) -> bool:
    """Whether an endpoint can be reached without opening a file."""
    return endpoint.startswith(TCP)
