"""Connections to the daemon: proven before a round is sent, and back soon after a lane has died."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import zmq

from rtqec.config import Config, expand_variables
from rtqec.curve import ClientKeys, load_key, load_secret, secure_client
from rtqec.errors import ConfigError, NoPeerError
from rtqec.units import MS_PER_S

_RECONNECT_MS = 10
_RECONNECT_MS_MAX = 100
"""libzmq would wait 100 ms before it looks for a lane that died; one that stands by is back within milliseconds."""


def client_keys(config: Config) -> ClientKeys | None:
    """The keys that this controller shows on tcp: `[source] key_file` and `server_key_file`; None without.

    Raises:
        ConfigError: Only one of them is set, or a file holds no such key.
    """
    names = {"key_file": config.source.key_file, "server_key_file": config.source.server_key_file}
    found = {key: Path(config.folder) / expand_variables(f"[source] {key}", name)
             for key, name in names.items() if name is not None}  # fmt: skip
    if not found:
        return None
    for key in names:
        if key not in found:
            raise ConfigError(
                f"[source] {key}", "is not set, but the other one of key_file and server_key_file is.",
                "To prove a key on tcp takes one's own secret key and the daemon's public one.",
                "Set both, or neither; rtqec keys new NAME makes keys.",
            )  # fmt: skip
    own = load_secret("[source] key_file", found["key_file"])
    return ClientKeys(own, load_key("[source] server_key_file", found["server_key_file"])[0])


def connect(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, key: str, written: Sequence[str], config: Config,
    keys: ClientKeys | None,
) -> zmq.Socket[bytes]:  # fmt: skip
    """Connect one socket to endpoints of the daemon, and wait until it has let it in at each.

    Args:
        context: The context of the socket.
        kind: PUSH or PULL.
        key: The key of the endpoints, as `[table] key`, for the message.
        written: The endpoints as configured, of one lane each.
        config: `[source] send_queue` and `[sink] connect_timeout_s` are read.
        keys: What to show on tcp.

    Raises:
        NoPeerError: Nobody listens.
    """
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.set_hwm(config.source.send_queue)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS_MAX)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    unanswered = None
    for endpoint in (expand_variables(key, one) for one in written):
        secure_client(socket, endpoint, keys)
        socket.connect(endpoint)
        if not monitor.poll(round(config.sink.connect_timeout_s * MS_PER_S)):
            unanswered = endpoint
            break
        monitor.recv_multipart()
    socket.disable_monitor()
    monitor.close(linger=0)
    if unanswered is not None:
        socket.close(linger=0)
        raise _nobody(key, unanswered, config.sink.connect_timeout_s)
    return socket


def _nobody(key: str, endpoint: str, timeout_s: float) -> NoPeerError:
    return NoPeerError(
        f"{key} is {endpoint!r}, but no daemon answered there within {timeout_s:g} s. "
        "Rounds would be sent to nobody. Start it: rtqec run CONFIG, or use firmware-sim loop CONFIG. "
        "(A daemon that already serves another controller, or asks for another key, does not answer either; its log "
        "says so.)"
    )
