"""Control: questions to a running lane, answered by a process of its own from the lane's telemetry block.

So that no question, however long, costs the path anything: it shares neither a thread nor an interpreter with it. A
request is one msgpack map with a `verb`, over a REQ or DEALER socket; the answer is one msgpack map with `ok`, and
either what was asked for or `error`.

| verb | asks | answer |
|---|---|---|
| `hello` | | `version`, `wire`, `clock`, `patches`: id, plan tag, digest |
| `status` | | `patches`: counters by name, corrections so far |
| `frame` | `patch`, `round`; `shot`, by default the newest | `value`, `through`, `final`, `status`, `tainted_since` |
| `resend` | `patch`, `first`; `stop` | `corrections`: as on the wire, oldest first; `oldest` that the journal has |
| `reset` | `patch` | `window_index`: from this correction on, the frame is clean |
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

from rtqec import __version__, wire
from rtqec.config import Config, expand_variables
from rtqec.endpoints import bind_alone
from rtqec.errors import ConfigError, NoPeerError
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung

REQUEST_BYTES_MAX = 4096
RESEND_MAX = 1024
"""Corrections in one answer."""
_POLL_MS = 200
_RESET_WAIT_S = 0.5
_LOOPBACK = ("tcp://127.", "tcp://localhost", "tcp://[::1]")
_AMENDABLE = (Reason.BACKLOG, Reason.DEADLINE)


class RequestError(Exception):
    """A request that cannot be answered; its text goes back."""


def check_endpoint(config: Config) -> None:
    """Refuse a control endpoint that strangers could reach.

    Raises:
        ConfigError: It is on the network.
    """
    written = config.control.endpoint
    if written is None:
        return
    endpoint = expand_variables("[control] endpoint", written)
    if not endpoint.startswith(("ipc://", *_LOOPBACK)):
        raise ConfigError(
            "[control] endpoint", f"is {endpoint!r}, which is neither ipc:// nor on the loopback.",
            "Whoever reaches it can change what the daemon does, and it asks for no key.",
            "Use ipc:///path, whose file permissions decide, or tcp://127.0.0.1:port.",
        )  # fmt: skip


class Control:
    """Answers requests. Knows nothing of sockets.

    Args:
        telemetry: The block of a lane, writable.
    """

    def __init__(self, telemetry: TelemetryBlock) -> None:
        self._telemetry = telemetry
        self._verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "status": self._status,
            "frame": self._frame,
            "resend": self._resend,
            "reset": self._reset,
        }

    def answer(self, request: bytes) -> bytes:
        """One answer to one request, whatever it is."""
        try:
            found = self._verbs[self._verb(request)](self._asked)
            reply = {"ok": True} | found
        except RequestError as error:
            reply = {"ok": False, "error": str(error)}
        packed: bytes = msgpack.packb(reply)
        return packed

    def _verb(self, request: bytes) -> str:
        if len(request) > REQUEST_BYTES_MAX:
            raise RequestError(f"the request has {len(request)} bytes; the bound is {REQUEST_BYTES_MAX}")
        try:
            asked = msgpack.unpackb(request)
        except Exception as error:
            raise RequestError("the request is not msgpack") from error
        if not isinstance(asked, dict) or not isinstance(asked.get("verb"), str) or asked["verb"] not in self._verbs:
            raise RequestError(f"the request needs a verb: one of {', '.join(self._verbs)}")
        self._asked = asked
        return str(asked["verb"])

    def _number(self, asked: dict[str, Any], key: str, default: int | None = None) -> int:
        value = asked.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise RequestError(f"{asked['verb']} needs {key}, a whole number from 0 on; it is {value!r}")
        return value

    def _patch(self, asked: dict[str, Any]) -> int:
        """The row of the patch that is asked about."""
        patch_id = self._number(asked, "patch")
        rows = np.flatnonzero(self._telemetry.patch_ids == patch_id)
        if not len(rows):
            known = ", ".join(str(known) for known in self._telemetry.patch_ids.tolist())
            raise RequestError(f"there is no patch {patch_id}; the lane has {known}")
        return int(rows[0])

    def _hello(self, _asked: dict[str, Any]) -> dict[str, Any]:
        telemetry = self._telemetry
        patches = [
            {"id": patch_id, "plan_tag": int.from_bytes(digest[:4], "big"), "digest": digest.hex()}
            for patch_id, digest in zip(
                telemetry.patch_ids.tolist(), [row.tobytes() for row in telemetry.digests], strict=True
            )
        ]
        return {"version": __version__, "wire": wire.VERSION, "clock": "CLOCK_MONOTONIC", "patches": patches}

    def _status(self, _asked: dict[str, Any]) -> dict[str, Any]:
        telemetry = self._telemetry
        patches = [
            {"id": patch_id, "corrections": int(telemetry.written[row]), "counters": telemetry.counters_of(row)}
            for row, patch_id in enumerate(telemetry.patch_ids.tolist())
        ]
        return {"pid": int(telemetry.header["pid"][0]), "patches": patches}

    def _frame(self, asked: dict[str, Any]) -> dict[str, Any]:
        row, round_index = self._patch(asked), self._number(asked, "round")
        kept = self._telemetry.corrections_of(row, 0, 1 << 62)
        if not len(kept):
            raise RequestError("no correction has been made yet")
        newest = kept[(kept["flags"] & CorrectionFlag.AMENDMENT) == 0][-1:]
        shot = self._number(asked, "shot", int(newest["shot_id"][0]) if len(newest) else 0)
        return frame_at(kept[kept["shot_id"] == shot], kept, shot, round_index)

    def _resend(self, asked: dict[str, Any]) -> dict[str, Any]:
        row, first = self._patch(asked), self._number(asked, "first")
        stop = self._number(asked, "stop", first + RESEND_MAX)
        found = self._telemetry.corrections_of(row, first, min(stop, first + RESEND_MAX))
        oldest = max(int(self._telemetry.written[row]) - self._telemetry.journal.shape[1] + 1, 0)
        return {"corrections": [correction.tobytes() for correction in found], "oldest": oldest}

    def _reset(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Ask, and wait for a correction that was certainly made after that; one may have been under way."""
        row = self._patch(asked)
        index = int(self._telemetry.written[row]) + 1
        self._telemetry.resets[row] += 1
        give_up = time.monotonic() + _RESET_WAIT_S
        while int(self._telemetry.written[row]) <= index and time.monotonic() < give_up:
            time.sleep(_RESET_WAIT_S / 100)
        found = self._telemetry.corrections_of(row, index, index + 1)
        known = {"shot": int(found["shot_id"][0]), "round": int(found["first_round"][0])} if len(found) else {}
        return {"window_index": index} | known


def frame_at(mine: NDArray[Any], kept: NDArray[Any], shot: int, round_index: int) -> dict[str, Any]:
    """The Pauli frame of a shot at a round, from its corrections.

    Args:
        mine: `wire.CORRECTION`, those of the shot, oldest first.
        kept: All that the journal has.

    Returns:
        `value`: frame after round `through`, the end of the correction that covers `round_index`, or of the last one
        before it; `final`: whether nothing can change it any more; `status`, `tainted_since`.

    Raises:
        RequestError: The journal has nothing of that round any more.
    """
    before = mine[mine["first_round"] <= round_index]
    if not len(before):
        raise RequestError(f"the journal has nothing of round {round_index} of shot {shot}, or nothing any more")
    # Of two that answer the same rounds the later one amends the earlier one.
    ends = (before["first_round"] + before["num_rounds"]).astype(np.int64)
    covering = before[ends == ends.max()][-1] if ends.max() <= round_index else before[ends > round_index][-1]
    through = int(covering["first_round"] + covering["num_rounds"]) - 1
    held = covering["rung"] == Rung.HOLD and covering["reason"] in _AMENDABLE
    decoded_since = (
        (kept["window_index"] > covering["window_index"])
        & (kept["rung"] != Rung.HOLD)
        & ((kept["flags"] & CorrectionFlag.AMENDMENT) == 0)
    )
    tainted = covering["frame_status"] == FrameStatus.TAINTED
    return {
        "shot": shot,
        "round": round_index,
        "value": int(covering["frame"]),
        "through": through,
        "final": bool(through >= round_index and (not held or decoded_since.any())),
        "status": "tainted" if tainted else "clean",
        "tainted_since": int(covering["tainted_since"]) if tainted else None,
    }


def serve(config: Config, path: Path, say_ready: Callable[[], None]) -> None:
    """Answer requests until the process that started this one has gone.

    Raises:
        ConfigError: The endpoint cannot be bound.
    """
    assert config.control.endpoint is not None
    control = Control(TelemetryBlock.attach(path, control=True))
    parent = os.getppid()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES_MAX)
    lock = bind_alone(socket, "[control] endpoint", config.control.endpoint)
    say_ready()
    try:
        while os.getppid() == parent:
            if socket.poll(_POLL_MS):
                *envelope, request = socket.recv_multipart()
                socket.send_multipart([*envelope, control.answer(request)], flags=zmq.NOBLOCK)
    finally:
        socket.close()
        context.term()
        if lock is not None:
            lock.close()


def ask(config: Config, request: dict[str, Any], timeout_s: float = 2.0) -> dict[str, Any]:
    """Ask a running daemon.

    Returns:
        Its answer.

    Raises:
        ConfigError: No endpoint is configured.
        NoPeerError: Nobody answers.
    """
    if config.control.endpoint is None:
        raise ConfigError(
            "[control] endpoint", "is not set.", "Without it the daemon answers no questions.",
            'Set it, for example endpoint = "ipc:///run/rtqec/lane0-control.ipc", and restart the daemon.',
        )  # fmt: skip
    endpoint = expand_variables("[control] endpoint", config.control.endpoint)
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        socket.send(msgpack.packb(request))
        if not socket.poll(round(1000 * timeout_s)):
            raise NoPeerError(
                f"[control] endpoint is {endpoint!r}, but nothing answered there within {timeout_s:g} s. "
                "Is the daemon running? Start it: rtqec run CONFIG."
            )
        answer: dict[str, Any] = msgpack.unpackb(socket.recv())
    return answer
