"""Ask a running daemon over its control endpoint."""

from __future__ import annotations

from typing import Any

import msgpack
import zmq

from rtqec.config import Config, expand_variables
from rtqec.curve import ClientKeys, secure_client
from rtqec.errors import ConfigError, NoPeerError


def ask(
    config: Config, request: dict[str, Any], timeout_s: float = 2.0, keys: ClientKeys | None = None
) -> dict[str, Any]:
    """Ask a running daemon.

    Args:
        config: Its `[control] endpoint` is asked.
        request: See `service.control`.
        timeout_s: How long to wait for the answer.
        keys: What to show on tcp.

    Returns:
        Its answer.

    Raises:
        ConfigError: No endpoint is configured.
        NoPeerError: Nobody answers.
    """
    if config.control.endpoint is None:
        raise ConfigError(
            "[control] endpoint", "is not set.", "Without it the daemon answers no questions.",
            'Set it, for example endpoint = "ipc:///run/rtqec/control.ipc", and restart the daemon.',
        )  # fmt: skip
    endpoint = expand_variables("[control] endpoint", config.control.endpoint)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        secure_client(socket, endpoint, keys)
        socket.connect(endpoint)
        socket.send(msgpack.packb(request))
        if not socket.poll(round(1000 * timeout_s)):
            raise NoPeerError(
                f"[control] endpoint is {endpoint!r}, but nothing answered there within {timeout_s:g} s. "
                "Is the daemon running? Start it: rtqec run CONFIG. Does it ask for a key? Show yours: --key, "
                "--server-key; whether it was refused, the daemon's log says (key_refused)."
            )
        answer: dict[str, Any] = msgpack.unpackb(socket.recv())
    return answer
