"""The control socket: bounded in size, in number, and in time. Refuses what it cannot take, and serves the next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import IO, cast

import msgpack
import zmq
import zmq.asyncio

from rtqec.config import Config, expand_variables
from rtqec.curve import load_server_key
from rtqec.endpoints import bind_alone
from rtqec.gate import Gate
from rtqec.security import Rights
from rtqec.service.control import REQUEST_BYTES_MAX, Control

_REQUESTS_MAX = 32
"""Requests in work at once, of all clients; a reset may wait half a second."""
_QUEUE = 64
_FRAMES_MAX = 8
"""Of one request: the client's address, whatever it put in front, the request."""
_BUSY: bytes = msgpack.packb({"ok": False, "error": f"busy: {_REQUESTS_MAX} requests are in work; ask again"})


class ControlServer:
    """Serves `[control] endpoint`.

    Args:
        config: The deployment; its endpoint is set.
        control: Answers.

    Raises:
        ConfigError: The endpoint cannot be bound.
    """

    def __init__(self, config: Config, control: Control) -> None:
        assert config.control.endpoint is not None
        self._control = control
        self._context = zmq.asyncio.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.set_hwm(_QUEUE)
        self._gate = Gate(self._context, Rights.of(config), load_server_key(config))
        where, endpoint = "[control] endpoint", expand_variables("[control] endpoint", config.control.endpoint)
        self._gate.guard(self._socket, where, endpoint, alone=False, message_bytes=REQUEST_BYTES_MAX)
        self._working: set[asyncio.Task[None]] = set()
        # To pyzmq's types an asynchronous socket is no socket; it is one for binding.
        socket = cast("zmq.Socket[bytes]", self._socket)
        self._lock: IO[str] | None = bind_alone(socket, where, endpoint)
        self._gate.start()

    async def serve(self) -> None:
        """Answer, until cancelled."""
        while True:
            frames = await self._socket.recv_multipart(copy=False)
            if len(frames) > _FRAMES_MAX:
                continue
            *envelope, request = frames
            addresses = [frame.bytes for frame in envelope]
            if len(self._working) >= _REQUESTS_MAX:
                await self._send(addresses, _BUSY)
                continue
            task = asyncio.create_task(self._answer(addresses, request.bytes, _who(request)))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    def admit_only(self, rights: Rights) -> None:
        """Replace the allow-list; requests of those who are connected are judged one by one, by `Daemon.may`."""
        self._gate.admit_only(rights)

    def close(self) -> None:
        """Stop listening."""
        for task in self._working:
            task.cancel()
        self._gate.stop([self._socket])
        self._context.destroy(linger=0)
        if self._lock is not None:
            self._lock.close()

    async def _answer(self, addresses: list[bytes], request: bytes, who: str) -> None:
        await self._send(addresses, await self._control.answer(request, who))

    async def _send(self, addresses: list[bytes], answer: bytes) -> None:
        with suppress(zmq.Again):  # It has gone, or does not read.
            await self._socket.send_multipart([*addresses, answer], flags=zmq.NOBLOCK)


def _who(request: zmq.Frame) -> str:
    """Who asks, as the gate has found out; see `security`."""
    return str(request["User-Id"])
