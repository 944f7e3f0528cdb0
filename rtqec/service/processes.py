"""The processes of a lane, from the supervisor's side: one that stands by, and those that it lets begin.

See `lane_process` for the other side, and for what is said between them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from rtqec.channel import Channel
from rtqec.config import Config
from rtqec.errors import ExitCode, FaultError, RtqecError

_PREPARE_TIMEOUT_S = 600.0
"""The first start compiles the kernels, and a large endless plan many matchers."""
_BEGIN_TIMEOUT_S = 60.0
_STATUS_TIMEOUT_S = 1.0


class LaneFailedError(RtqecError):
    """A lane could not start; its own words."""

    def __init__(self, code: int, message: str) -> None:
        self.exit_code = ExitCode(code)
        super().__init__(message)


class Inbox:
    """What comes over a channel, for asyncio."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._take)

    def _take(self) -> None:
        message, fds = self._channel.receive()
        if message is None:
            self._loop.remove_reader(self._channel.fileno())
        else:
            message["fds"] = fds
        self._queue.put_nowait(message)

    async def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message, with `fds`, the descriptors that came with it; None where the other end has gone.

        Raises:
            TimeoutError: Nothing came.
        """
        message = await asyncio.wait_for(self._queue.get(), timeout_s)
        if message is None:
            self._queue.put_nowait(None)  # It stays gone, for whoever asks again.
        return message

    def close(self) -> None:
        """End the channel."""
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()


class Begun:
    """A process that carries a lane, or only its path.

    Attributes:
        pid: The process.
        inbox: What it says.
        first: What it said first: `ready` or `inherited`.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.inbox = Inbox(channel)
        self.pid = 0
        self.first: dict[str, Any] = {}

    def order(self, message: dict[str, Any]) -> None:
        """Tell it something; nothing where it has gone."""
        self._channel.send(message)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Standby:
    """A process that has prepared a lane. Make it with `prepare`.

    Attributes:
        patches: What it says of its patches; see `Lane.describe`.
        ring_fd: The memory of its ring.
    """

    def __init__(self, order: dict[str, Any], standby: bool, takes_over: Standby | None) -> None:
        self._standby = standby
        self.patches: list[dict[str, Any]] = []
        self.ring_fd = -1
        self._orders, theirs = Channel.pair()
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("NOTIFY_SOCKET", None)
        command = [sys.executable, "-m", "rtqec.cli", "lane", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._reports = Inbox(self._orders)
        digests = [patch["rounds_digest"] for patch in takes_over.patches] if takes_over else []
        self._orders.send(order | {"rounds_digests": digests}, [takes_over.ring_fd] if takes_over else [])

    @classmethod
    async def prepare(
        cls, deployment: Config, index: int, patch_ids: list[int], log_level: str, *, goes_on: bool = False,
        takes_over: Standby | None = None,
    ) -> Standby:  # fmt: skip
        """Start a process, and wait until it is warm.

        Args:
            deployment: The whole configuration.
            index: The lane's number.
            patch_ids: What it carries.
            log_level: Its log's.
            goes_on: Whether it goes on with the telemetry block of a lane before.
            takes_over: From where the lane began whose path it is to take over, or None.

        Raises:
            LaneFailedError: It cannot work.
            FaultError: It died.
        """
        order = {
            "config": deployment.model_dump(mode="json"), "folder": deployment.folder, "lane_index": index,
            "patch_ids": patch_ids, "goes_on": goes_on, "log_level": log_level, "log_format": deployment.log.format,
        }  # fmt: skip
        standby = cls(order, deployment.service.standby, takes_over)
        try:
            message = standby._or_fail(await standby._reports.next(_PREPARE_TIMEOUT_S))
        except BaseException:
            standby.end()
            raise
        standby.patches = message["patches"]
        (standby.ring_fd,) = message["fds"]
        return standby

    async def begin(self, order: dict[str, Any], keep: list[Begun]) -> Begun:
        """Let a lane, or a path, begin, and wait until it has.

        Args:
            order: `start` or `inherit`.
            keep: Where it is noted at once: who watches must know of it also while it begins.

        Raises:
            LaneFailedError: It cannot.
            FaultError: It died.
        """
        ours, theirs = Channel.pair()
        begun = Begun(ours)
        keep.append(begun)
        self._orders.send(order, [theirs.fileno()])
        theirs.close()
        try:
            begun.first = self._or_fail(await begun.inbox.next(_BEGIN_TIMEOUT_S))
        except BaseException:
            keep.remove(begun)
            begun.kill()
            begun.inbox.close()
            raise
        begun.pid = begun.first["pid"]
        return begun

    @property
    def usable(self) -> bool:
        """Whether another lane can begin from it."""
        return self._standby and self._process.poll() is None

    async def how_it_died(self) -> str:
        """In words, how the lane that began last has ended."""
        status: int | None = None
        if self._standby:
            with suppress(TimeoutError):
                while status is None:
                    message = await self._reports.next(_STATUS_TIMEOUT_S)
                    if message is None:
                        break
                    status = message["status"] if message["event"] == "exited" else None
        else:
            status = self._process.wait()
        if status is None:
            return "died"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def end(self) -> None:
        """End the process that stands by."""
        self._reports.close()
        self._process.kill()
        self._process.wait()
        if self.ring_fd >= 0:
            os.close(self.ring_fd)

    def _or_fail(self, message: dict[str, Any] | None) -> dict[str, Any]:
        if message is None:
            raise FaultError(
                f"a lane ended with status {self._process.poll()} before it was ready; its own words are above."
            )
        if message["event"] == "failed":
            raise LaneFailedError(message["code"], message["message"])
        return message
