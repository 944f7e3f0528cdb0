"""The client for programs that do other things meanwhile: as `blocking`, with `await`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import zmq
import zmq.asyncio
from numpy.typing import ArrayLike

from rtqec.client.connection import SETTLE_S, LaneConnection, connect, nobody, open_lane
from rtqec.client.control import Frame, PatchPlace, Status, frame_of, pack, place_of, status_of, unpack
from rtqec.client.keys import Keys
from rtqec.client.messages import Correction, RoundsEncoder


class AsyncClient:
    """A connection to a daemon, of one event loop: `async with AsyncClient(control) as client`.

    Args:
        control: Its `[control] endpoint`.
        keys: What to show on tcp.
        timeout_s: How long to wait for a connection and for an answer.
    """

    def __init__(self, control: str, keys: Keys | None = None, timeout_s: float = 5.0) -> None:
        self._endpoint, self._keys, self._timeout_s = control, keys, timeout_s
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._lanes: dict[str, LaneConnection] = {}
        self._asking, self._opening = asyncio.Lock(), asyncio.Lock()
        self._control: zmq.asyncio.Socket

    async def __aenter__(self) -> AsyncClient:
        """Connect.

        Raises:
            NoPeerError: Nobody is there.
        """
        try:
            # Waiting for the handshake takes another thread, the socket is used in this one only.
            socket = await asyncio.to_thread(
                connect, self._context, zmq.REQ, self._endpoint, self._keys, self._timeout_s
            )
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._control = zmq.asyncio.Socket.from_socket(socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Any question of docs/control.md, one after the other.

        Raises:
            RefusedError: The daemon refuses.
            NoPeerError: It does not answer in time.
        """
        async with self._asking:
            await self._control.send(pack(verb, arguments))
            try:
                return unpack(await asyncio.wait_for(self._control.recv(), self._timeout_s))
            except TimeoutError:
                raise nobody(self._endpoint, self._timeout_s) from None

    async def status(self) -> Status:
        """How the daemon, its lanes and its patches are."""
        return status_of(await self.ask("status"))

    async def frame(self, patch_id: int, round_index: int, shot_id: int | None = None) -> Frame:
        """The Pauli frame of a shot after a round; by default, of the newest shot."""
        shot = {} if shot_id is None else {"shot": shot_id}
        return frame_of(await self.ask("frame", patch=patch_id, round=round_index, **shot))

    async def open(
        self, patch_id: int, *, detection_events: bool = False, crc: bool = False,
        settle_s: float = SETTLE_S,
    ) -> AsyncPatch:  # fmt: skip
        """Be the controller of a patch; see `Client.open`.

        Raises:
            RefusedError: The daemon has no such patch.
            NoPeerError: Another controller is there.
        """
        place = place_of(await self.ask("hello"), patch_id)
        async with self._opening:
            if place.lane not in self._lanes:
                lane = await asyncio.to_thread(open_lane, self._context, place, self._keys, self._timeout_s)
                lane.feed = zmq.asyncio.Socket.from_socket(lane.feed)
                lane.publish = zmq.asyncio.Socket.from_socket(lane.publish)
                self._lanes[place.lane] = lane
        encoder = RoundsEncoder(patch_id, place.plan_tag, detection_events=detection_events, crc=crc)
        await asyncio.sleep(settle_s)
        return AsyncPatch(place, self._lanes[place.lane], encoder, self._timeout_s)

    def close(self) -> None:
        """Disconnect."""
        for lane in self._lanes.values():
            lane.close()
        self._control.close(linger=0)
        self._context.destroy(linger=0)


class AsyncPatch:
    """One patch of a client; see `AsyncClient.open`."""

    def __init__(self, place: PatchPlace, lane: LaneConnection, encoder: RoundsEncoder, timeout_s: float) -> None:
        self.place = place
        self._lane, self._encoder, self._timeout_s = lane, encoder, timeout_s
        self._queue = lane.queues.setdefault(place.patch_id, deque())

    async def send(self, rounds: ArrayLike, *, last: bool = False, sweep: ArrayLike | None = None) -> None:
        """Send the next rounds; see `RoundsEncoder.encode`.

        Raises:
            ValueError: A message cannot carry them.
            NoPeerError: The daemon takes none.
        """
        try:
            await self._lane.feed.send(self._encoder.encode(rounds, last=last, sweep=sweep))
        except zmq.Again:
            raise nobody(self.place.feed, self._timeout_s) from None

    async def receive(self, timeout_s: float | None = None) -> Correction:
        """The next correction; patches of one lane may wait for theirs at the same time.

        Args:
            timeout_s: How long to wait; by default as long as for an answer.

        Raises:
            TimeoutError: None came.
        """
        async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
            while not self._queue:
                await self._sort_one()
        return self._queue.popleft()

    async def decode(self, rounds: Iterable[ArrayLike], sweep: ArrayLike | None = None) -> Correction:
        """Send a whole shot, round by round, and wait until it is answered; see `Patch.decode`.

        Raises:
            TimeoutError: No correction came for as long as an answer may take.
        """
        *blocks, readout = rounds
        shot_id = self._encoder.shot_id
        for block in blocks:
            await self.send(block, sweep=sweep)
            sweep = None
        await self.send(readout, last=True, sweep=sweep)
        while True:
            correction = await self.receive()
            if correction.shot_id == shot_id and correction.last_of_shot:
                return correction

    async def _sort_one(self) -> None:
        """Wait for one message of the lane, of whichever patch, unless another patch does so already."""
        async with self._lane.reading:
            if not self._queue:
                self._lane.take(await self._lane.publish.recv())
