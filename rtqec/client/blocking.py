"""The client for programs that wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import zmq
from numpy.typing import ArrayLike

from rtqec.client.connection import SETTLE_S, LaneConnection, connect, milliseconds, nobody, open_lane
from rtqec.client.control import Frame, PatchPlace, Status, frame_of, pack, place_of, status_of, unpack
from rtqec.client.keys import Keys
from rtqec.client.messages import Correction, RoundsEncoder


class Client:
    """A connection to a daemon. Not for several threads at once.

    Args:
        control: Its `[control] endpoint`.
        keys: What to show on tcp.
        timeout_s: How long to wait for a connection and for an answer.

    Raises:
        NoPeerError: Nobody is there.
    """

    def __init__(self, control: str, keys: Keys | None = None, timeout_s: float = 5.0) -> None:
        self._endpoint, self._keys, self._timeout_s = control, keys, timeout_s
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._lanes: dict[str, LaneConnection] = {}
        try:
            self._control = connect(self._context, zmq.REQ, control, keys, timeout_s)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Any question of docs/control.md.

        Raises:
            RefusedError: The daemon refuses.
            NoPeerError: It does not answer in time.
        """
        self._control.send(pack(verb, arguments))
        if not self._control.poll(milliseconds(self._timeout_s)):
            raise nobody(self._endpoint, self._timeout_s)
        return unpack(self._control.recv())

    def status(self) -> Status:
        """How the daemon, its lanes and its patches are."""
        return status_of(self.ask("status"))

    def frame(self, patch_id: int, round_index: int, shot_id: int | None = None) -> Frame:
        """The Pauli frame of a shot after a round; by default, of the newest shot."""
        shot = {} if shot_id is None else {"shot": shot_id}
        return frame_of(self.ask("frame", patch=patch_id, round=round_index, **shot))

    def open(
        self, patch_id: int, *, detection_events: bool = False, crc: bool = False,
        settle_s: float = SETTLE_S,
    ) -> Patch:  # fmt: skip
        """Be the controller of a patch.

        Args:
            patch_id: The patch.
            detection_events: Whether rounds will be detection events instead of raw measurements.
            crc: Whether messages carry a checksum.
            settle_s: How long to wait before the first round: longer than the daemon's [feed] takeover_ms, so that a
                controller that was there before is known to be gone.

        Raises:
            RefusedError: The daemon has no such patch.
            NoPeerError: Another controller is there.
        """
        place = place_of(self.ask("hello"), patch_id)
        if place.lane not in self._lanes:
            self._lanes[place.lane] = open_lane(self._context, place, self._keys, self._timeout_s)
        encoder = RoundsEncoder(patch_id, place.plan_tag, detection_events=detection_events, crc=crc)
        time.sleep(settle_s)
        return Patch(place, self._lanes[place.lane], encoder, self._timeout_s)

    def close(self) -> None:
        """Disconnect."""
        for lane in self._lanes.values():
            lane.close()
        self._context.destroy(linger=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Patch:
    """One patch of a client; see `Client.open`."""

    def __init__(self, place: PatchPlace, lane: LaneConnection, encoder: RoundsEncoder, timeout_s: float) -> None:
        self.place = place
        self._lane, self._encoder, self._timeout_s = lane, encoder, timeout_s
        self._queue = lane.queues.setdefault(place.patch_id, deque())

    def send(self, rounds: ArrayLike, *, last: bool = False, sweep: ArrayLike | None = None) -> None:
        """Send the next rounds; see `RoundsEncoder.encode`.

        Raises:
            ValueError: A message cannot carry them.
            NoPeerError: The daemon takes none.
        """
        try:
            self._lane.feed.send(self._encoder.encode(rounds, last=last, sweep=sweep))
        except zmq.Again:
            raise nobody(self.place.feed, self._timeout_s) from None

    def receive(self, timeout_s: float | None = None) -> Correction:
        """The next correction.

        Args:
            timeout_s: How long to wait; by default as long as for an answer.

        Raises:
            TimeoutError: None came.
        """
        give_up = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while not self._queue:
            if not self._lane.publish.poll(milliseconds(max(give_up - time.monotonic(), 0))):
                raise TimeoutError(f"no correction of patch {self.place.patch_id} came")
            self._lane.take(self._lane.publish.recv())
        return self._queue.popleft()

    def decode(self, rounds: Iterable[ArrayLike], sweep: ArrayLike | None = None) -> Correction:
        """Send a whole shot, round by round, and wait until it is answered.

        Returns:
            Its last correction: `frame` is the correction of the shot.

        Raises:
            TimeoutError: No correction came for as long as an answer may take.
        """
        *blocks, readout = rounds
        shot_id = self._encoder.shot_id
        for block in blocks:
            self.send(block, sweep=sweep)
            sweep = None
        self.send(readout, last=True, sweep=sweep)
        while True:
            correction = self.receive()
            if correction.shot_id == shot_id and correction.last_of_shot:
                return correction
