"""The sink: receives corrections, and hands them to the accounts of their patches."""

from __future__ import annotations

import threading

import numpy as np
import zmq
from numpy.typing import NDArray

from firmware_sim.account import PatchAccount, add_samples
from firmware_sim.kernels.receive import receive_corrections
from firmware_sim.kernels.records import CHECKED, PAUSED, RECEIVED, SINK_WORDS
from rtqec.histogram import NUM_BINS
from rtqec.kernels.native import timespec
from rtqec.kernels.records import CONTROL_WORDS, STOP
from rtqec.wire import CORRECTION, RESPONSE_MAGIC, VERSION, CorrectionFlag

CAPACITY = 1 << 17
"""Corrections between two looks of the checker: at a million a second it may be away for 130 ms."""
_RECEIVE_TIMEOUT_MS = 50


class Sink:
    """Receives in a compiled thread; `check` looks at what has come since it last looked.

    Args:
        accounts: One per patch.
        shot_rounds: int64, rounds of a shot of each patch.

    Attributes:
        covered: int64, rounds of each patch up to which corrections have come.
        reaction_counts, service_counts: int64, histograms in ns.
    """

    def __init__(self, accounts: list[PatchAccount], shot_rounds: NDArray[np.int64]) -> None:
        self.accounts = accounts
        self._shot_rounds = shot_rounds
        self._patch_ids = np.array([account.patch_id for account in accounts], np.int64)
        self._records = np.zeros(CAPACITY, CORRECTION)
        self._cursors = np.zeros(SINK_WORDS, np.int64)
        self._control = np.zeros(CONTROL_WORDS, np.int64)
        self._bad = np.zeros(1, np.int64)
        self.covered = np.zeros(len(accounts), np.int64)
        self.reaction_counts = np.zeros(NUM_BINS, np.int64)
        self.service_counts = np.zeros(NUM_BINS, np.int64)
        self.reaction_ns_max = self.service_ns_max = 0
        self._thread: threading.Thread | None = None
        self._run(0, np.ones_like(self._control))
        add_samples(np.zeros(0, np.int64), self.reaction_counts)

    def start(self, socket: zmq.Socket[bytes]) -> None:
        """Begin to receive."""
        socket.setsockopt(zmq.RCVTIMEO, _RECEIVE_TIMEOUT_MS)
        self._thread = threading.Thread(
            target=self._run, args=(socket.underlying, self._control), name="sink", daemon=True
        )  # fmt: skip
        self._thread.start()

    def stop(self) -> None:
        """Stop receiving, and check what is left."""
        self._control[STOP] = 1
        if self._thread is not None:
            self._thread.join()
        self.check()

    @property
    def paused(self) -> bool:
        """Whether the controller does not read for now."""
        return bool(self._control[PAUSED])

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._control[PAUSED] = paused

    @property
    def received(self) -> int:
        """Corrections received so far."""
        return int(self._cursors[RECEIVED])

    @property
    def bad_messages(self) -> int:
        """Messages that are no correction of this version, or of no known patch."""
        return int(self._bad[0]) + self._strangers

    _strangers = 0

    def check(self) -> None:
        """Check everything that has come since the last call."""
        checked, received = int(self._cursors[CHECKED]), self.received
        while checked < received:
            start = checked % CAPACITY
            stop = min(start + received - checked, CAPACITY)
            self._check_piece(self._records[start:stop])
            checked += stop - start
            self._cursors[CHECKED] = checked

    def _check_piece(self, corrections: NDArray[np.void]) -> None:
        good = (corrections["magic"] == RESPONSE_MAGIC) & (corrections["version"] == VERSION)
        good &= np.isin(corrections["patch_id"], self._patch_ids)
        self._strangers += int((~good).sum())
        corrections = corrections[good]
        for account in self.accounts:
            mine = corrections[corrections["patch_id"] == account.patch_id]
            if len(mine):
                account.check(mine)
        # An amendment is no answer: its rounds have been answered.
        corrections = corrections[(corrections["flags"] & CorrectionFlag.AMENDMENT) == 0]
        published = corrections["published_ns"].astype(np.int64)
        reaction = published - corrections["sent_ns"].astype(np.int64)
        service = published - corrections["received_ns"].astype(np.int64)
        add_samples(reaction, self.reaction_counts)
        add_samples(service, self.service_counts)
        self.reaction_ns_max = max(self.reaction_ns_max, int(reaction.max(initial=0)))
        self.service_ns_max = max(self.service_ns_max, int(service.max(initial=0)))

    def _run(self, socket: int, control: NDArray[np.int64]) -> None:
        receive_corrections(
            socket, self._records.view(np.uint8), self.covered, self._shot_rounds, self._patch_ids,
            self._records, self._cursors, control, self._bad, timespec(),
        )  # fmt: skip
