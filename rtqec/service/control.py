"""Control: questions to a running daemon, and changes to it.

A request is one msgpack map with a `verb`, over a REQ or DEALER socket; the answer is one msgpack map with `ok`, and
either what was asked for or `error`. What is asked for is read from the lanes' telemetry blocks; budgets, steps and
resets are written there, so that the lanes' paths notice nothing but the new value.

| verb | asks | answer | needs |
|---|---|---|---|
| `hello` | | `version`, `wire`, `clock`, `patches`: id, plan tag, digest, lane, endpoints | |
| `status` | | `state`, `lanes`, `patches`: counters by name, corrections so far | |
| `frame` | `patch`, `round`; `shot`, by default the newest | `value`, `through`, `final`, `status` .. | read |
| `resend` | `patch`, `first`; `stop` | `corrections`, oldest first; `oldest` in the journal | read |
| `reset` | `patch` | from when on the frame is clean | change |
| `budget` | `patch`, `budget_us` | from when on it holds | change |
| `ladder` | `patch`, `steps`: names that the ladder may use | from when on; `steps` | change |
| `swap-plan` | `sets`: table.key=value, as for `--set` | from when on, by patch; `plan_tag` | change, of all |
| `drain` | | `state`; the daemon ends when its shots have | change, of all |
| `log-level` | `level` | `level` | change, of all |

*From when on* is `window_index`, and where a correction has been made since, its `shot` and `round`: the first
correction that was certainly chosen after the change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from rtqec import __version__, wire
from rtqec.errors import RtqecError
from rtqec.telemetry import TelemetryBlock
from rtqec.units import NS_PER_US
from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung

REQUEST_BYTES_MAX = 4096
RESEND_MAX = 1024
"""Corrections in one answer."""
LOCAL = "local"
"""Who asks over ipc: whoever the file's permissions let in."""
_LOG_LEVELS = ("debug", "info", "warning", "error")
_BUDGET_US_MAX = 60_000_000
_CHANGE_WAIT_S = 0.5
_AMENDABLE = (Reason.BACKLOG, Reason.DEADLINE)
_Answer = dict[str, Any]


class RequestError(Exception):
    """A request that cannot be answered; its text goes back."""


class Daemon(Protocol):
    """What control knows of the daemon: the supervisor."""

    @property
    def state(self) -> str:
        """Of the whole: starting, ready, draining, stopped."""

    def blocks(self) -> list[TelemetryBlock]:
        """The telemetry blocks of all lanes, writable."""

    def describe(self) -> dict[str, Any]:
        """`lanes` and `patches` of the service file."""

    def may(self, who: str, right: str, patch_id: int) -> bool:
        """Whether a key may "feed", "read" or "change" a patch."""

    def note(self, event: str, who: str, **details: Any) -> None:
        """Write into the audit log."""

    def drain(self) -> None:
        """Begin to end."""

    def set_log_level(self, level: str) -> None:
        """Of the supervisor and of all lanes."""

    async def swap_plan(self, sets: list[str], who: str) -> dict[str, Any]:
        """Take over new plans.

        Raises:
            RtqecError: They do not fit.
        """


class Control:
    """Answers requests. Knows nothing of sockets.

    Args:
        daemon: What it answers for.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._verbs: dict[str, Callable[[dict[str, Any], str], Coroutine[Any, Any, _Answer]]] = {
            "hello": self._hello,
            "status": self._status,
            "frame": self._frame,
            "resend": self._resend,
            "reset": self._reset,
            "budget": self._budget,
            "ladder": self._ladder,
            "swap-plan": self._swap_plan,
            "drain": self._drain,
            "log-level": self._log_level,
        }

    async def answer(self, request: bytes, who: str = LOCAL) -> bytes:
        """One answer to one request, whatever it is.

        Args:
            request: As it came.
            who: Who asks; see `security`.
        """
        try:
            asked = self._read(request)
            reply: _Answer = {"ok": True} | await self._verbs[asked["verb"]](asked, who)
        except (RequestError, RtqecError) as error:
            reply = {"ok": False, "error": str(error)}
        packed: bytes = msgpack.packb(reply)
        return packed

    def _read(self, request: bytes) -> dict[str, Any]:
        if len(request) > REQUEST_BYTES_MAX:
            raise RequestError(f"the request has {len(request)} bytes; the bound is {REQUEST_BYTES_MAX}")
        try:
            asked = msgpack.unpackb(request)
        except Exception as error:
            raise RequestError("the request is not msgpack") from error
        if not isinstance(asked, dict) or not isinstance(asked.get("verb"), str) or asked["verb"] not in self._verbs:
            raise RequestError(f"the request needs a verb: one of {', '.join(self._verbs)}")
        return asked

    def _number(self, asked: dict[str, Any], key: str, default: int | None = None) -> int:
        value = asked.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise RequestError(f"{asked['verb']} needs {key}, a whole number from 0 on; it is {value!r}")
        return value

    def _patch(self, asked: dict[str, Any], who: str, right: str) -> tuple[TelemetryBlock, int]:
        """The patch that is asked about: its lane's block, and its row there."""
        patch_id = self._number(asked, "patch")
        for block in self._daemon.blocks():
            rows = np.flatnonzero(block.patch_ids == patch_id)
            if len(rows):
                self._check(who, right, patch_id)
                return block, int(rows[0])
        known = ", ".join(str(known) for known in self._patch_ids())
        raise RequestError(f"there is no patch {patch_id}; the daemon has {known}")

    def _patch_ids(self) -> list[int]:
        return sorted(patch_id for block in self._daemon.blocks() for patch_id in block.patch_ids.tolist())

    def _check(self, who: str, right: str, patch_id: int) -> None:
        if not self._daemon.may(who, right, patch_id):
            raise RequestError(f"{who} may not {right} patch {patch_id}; its [[client]] table says what it may")

    def _check_all(self, who: str) -> None:
        """For what concerns the whole daemon."""
        for patch_id in self._patch_ids():
            self._check(who, "change", patch_id)

    def _known_to(self, who: str, patch_id: int) -> bool:
        return any(self._daemon.may(who, right, patch_id) for right in ("feed", "read", "change"))

    async def _hello(self, _asked: dict[str, Any], who: str) -> _Answer:
        described = self._daemon.describe()
        lanes = {lane["name"]: lane for lane in described["lanes"]}
        patches = [
            {
                "id": patch["id"], "plan_tag": int(patch["plan_tag"], 16), "digest": patch["digest"],
                "lane": patch["lane"], "feed": lanes[patch["lane"]]["feed"], "publish": lanes[patch["lane"]]["publish"],
            }
            for patch in described["patches"] if self._known_to(who, patch["id"])
        ]  # fmt: skip
        return {"version": __version__, "wire": wire.VERSION, "clock": "CLOCK_MONOTONIC", "patches": patches}

    async def _status(self, _asked: dict[str, Any], who: str) -> _Answer:
        patches = [
            {"id": patch_id, "corrections": int(block.written[row]), "counters": block.counters_of(row)}
            for block in self._daemon.blocks()
            for row, patch_id in enumerate(block.patch_ids.tolist())
            if self._known_to(who, patch_id)
        ]
        lanes = [{key: lane[key] for key in ("name", "state", "pid", "restarts")}
                 for lane in self._daemon.describe()["lanes"]]  # fmt: skip
        return {"state": self._daemon.state, "lanes": lanes, "patches": patches}

    async def _frame(self, asked: dict[str, Any], who: str) -> _Answer:
        (block, row), round_index = self._patch(asked, who, "read"), self._number(asked, "round")
        kept = block.corrections_of(row, 0, 1 << 62)
        if not len(kept):
            raise RequestError("no correction has been made yet")
        newest = kept[(kept["flags"] & CorrectionFlag.AMENDMENT) == 0][-1:]
        shot = self._number(asked, "shot", int(newest["shot_id"][0]) if len(newest) else 0)
        return frame_at(kept[kept["shot_id"] == shot], kept, shot, round_index)

    async def _resend(self, asked: dict[str, Any], who: str) -> _Answer:
        (block, row), first = self._patch(asked, who, "read"), self._number(asked, "first")
        stop = self._number(asked, "stop", first + RESEND_MAX)
        found = block.corrections_of(row, first, min(stop, first + RESEND_MAX))
        oldest = max(int(block.written[row]) - block.journal.shape[1] + 1, 0)
        return {"corrections": [correction.tobytes() for correction in found], "oldest": oldest}

    async def _reset(self, asked: dict[str, Any], who: str) -> _Answer:
        block, row = self._patch(asked, who, "change")

        def change() -> None:
            block.resets[row] += 1

        return await self._apply(asked, who, block, row, change)

    async def _budget(self, asked: dict[str, Any], who: str) -> _Answer:
        block, row = self._patch(asked, who, "change")
        budget_us = asked.get("budget_us")
        if isinstance(budget_us, bool) or not isinstance(budget_us, int | float) or not 0 < budget_us <= _BUDGET_US_MAX:
            raise RequestError(f"budget needs budget_us, above 0 and at most {_BUDGET_US_MAX}; it is {budget_us!r}")

        def change() -> None:
            block.patches[row]["budget_ns"] = round(budget_us * NS_PER_US)

        return await self._apply(asked, who, block, row, change)

    async def _ladder(self, asked: dict[str, Any], who: str) -> _Answer:
        block, row = self._patch(asked, who, "change")
        known = next(p["ladder"] for p in self._daemon.describe()["patches"] if p["id"] == asked["patch"])
        wanted = asked.get("steps")
        if not isinstance(wanted, list) or not wanted or not all(step in known for step in wanted):
            raise RequestError(f"ladder needs steps, a list of some of {', '.join(known)}; it is {wanted!r}")
        if not any(step not in ("catch_up", "hold") for step in wanted):
            raise RequestError(f"ladder needs a step that decodes by itself; of {', '.join(wanted)} none does")
        mask = sum(1 << k for k, step in enumerate(known) if step in wanted)

        def change() -> None:
            block.patches[row]["steps_mask"] = mask

        steps = [step for step in known if step in wanted]
        return await self._apply(asked, who, block, row, change) | {"steps": steps}

    async def _swap_plan(self, asked: dict[str, Any], who: str) -> _Answer:
        self._check_all(who)
        sets = asked.get("sets", [])
        if not isinstance(sets, list) or not all(isinstance(item, str) for item in sets):
            raise RequestError(f"swap-plan takes sets, a list of table.key=value; it is {sets!r}")
        return await self._daemon.swap_plan(sets, who)

    async def _drain(self, _asked: dict[str, Any], who: str) -> _Answer:
        self._check_all(who)
        self._daemon.note("drain", who)
        self._daemon.drain()
        return {"state": "draining"}

    async def _log_level(self, asked: dict[str, Any], who: str) -> _Answer:
        self._check_all(who)
        level = asked.get("level")
        if level not in _LOG_LEVELS:
            raise RequestError(f"log-level needs level, one of {', '.join(_LOG_LEVELS)}; it is {level!r}")
        self._daemon.set_log_level(level)
        self._daemon.note("configuration_changed", who, key="log.level", value=level)
        return {"level": level}

    async def _apply(
        self, asked: dict[str, Any], who: str, block: TelemetryBlock, row: int, change: Callable[[], None]
    ) -> _Answer:
        """Change something of a patch, and say from when on it holds.

        One correction may have been under way; the one after it was certainly chosen after the change.
        """
        index = int(block.written[row]) + 1
        change()
        details = {key: value for key, value in asked.items() if key != "verb"}
        self._daemon.note(f"{asked['verb']}_changed", who, **details)
        return await first_correction_from(block, row, index)


async def first_correction_from(block: TelemetryBlock, row: int, index: int) -> _Answer:
    """Wait a moment for the correction with a window index; `window_index`, and its `shot` and `round` if it came."""
    give_up = time.monotonic() + _CHANGE_WAIT_S
    while int(block.written[row]) <= index and time.monotonic() < give_up:
        await asyncio.sleep(_CHANGE_WAIT_S / 100)
    found = block.corrections_of(row, index, index + 1)
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
