"""The sink: receives corrections, and checks that each comes once, in order, from the right plan, for the truth."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from firmware_sim.kernels.receive import receive_corrections
from firmware_sim.kernels.records import CHECKED, RECEIVED, SINK_WORDS
from rtqec.kernels.histogram import NUM_BINS, bin_of
from rtqec.kernels.native import compiled, timespec
from rtqec.kernels.records import CONTROL_WORDS, STOP
from rtqec.wire import CORRECTION, RESPONSE_MAGIC, VERSION, CorrectionFlag, FrameStatus, Rung

CAPACITY = 1 << 17
"""Corrections between two looks of the checker: at a million a second it may be away for 130 ms."""
_RECEIVE_TIMEOUT_MS = 50


@compiled
def add_samples(samples: Any, counts: Any) -> Any:
    """Count samples into a histogram."""
    for sample in samples:
        counts[bin_of(sample)] += 1


@dataclass
class PatchAccount:
    """What came back for one patch.

    Attributes:
        patch_id, plan_tag: Whom it is about.
        num_shots: Shots that are sent.
        frames: uint64, shape (num_shots,): frame after the last round of each shot.
        finished: bool, shape (num_shots,): shots whose last correction came.
    """

    patch_id: int
    plan_tag: int
    num_shots: int
    received: int = 0
    out_of_order: int = 0
    wrong_digest: int = 0
    wrong_frame: int = 0
    flags: dict[str, int] = field(default_factory=lambda: {str(flag.name).lower(): 0 for flag in CorrectionFlag})
    rungs: dict[str, int] = field(default_factory=lambda: {rung.name.lower(): 0 for rung in Rung})
    tainted: int = 0
    _last: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        self.frames = np.zeros(self.num_shots, np.uint64)
        self.finished = np.zeros(self.num_shots, np.bool_)
        self._flips = np.zeros(self.num_shots, np.uint64)

    def check(self, corrections: NDArray[Any]) -> None:
        """Account for corrections of this patch, in the order in which they came.

        Args:
            corrections: `wire.CORRECTION`, shape (n,), n > 0.
        """
        self.received += len(corrections)
        self.wrong_digest += int((corrections["plan_tag"] != self.plan_tag).sum())
        self.out_of_order += self._count_breaks(corrections)
        for flag in CorrectionFlag:
            self.flags[str(flag.name).lower()] += int(((corrections["flags"] & flag) != 0).sum())
        for rung in Rung:
            self.rungs[rung.name.lower()] += int((corrections["rung"] == rung).sum())
        self.tainted += int((corrections["frame_status"] == FrameStatus.TAINTED).sum())
        shots = corrections["shot_id"].astype(np.int64)
        known = corrections[shots < self.num_shots]
        shots = shots[shots < self.num_shots]
        np.bitwise_xor.at(self._flips, shots, known["flips"])
        last = (known["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0
        self.frames[shots[last]] = known["frame"][last]
        self.finished[shots[last]] = True
        self.wrong_frame += int((self._flips[shots[last]] != known["frame"][last]).sum())

    def _count_breaks(self, corrections: NDArray[Any]) -> int:
        """Places where a correction does not follow the one before it."""
        before = corrections[:-1]
        after = corrections[1:]
        breaks = int((~_follows(before, after)).sum())
        if self._last is not None:
            breaks += int(not _follows(self._last, corrections[:1])[0])
        else:
            breaks += int(bool(corrections[0]["shot_id"] or corrections[0]["window_index"]))
        self._last = corrections[-1:].copy()
        return breaks


def _follows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each correction commits exactly the rounds after those of the one before it."""
    last = (before["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0
    next_window = (
        (after["shot_id"] == before["shot_id"])
        & (after["window_index"] == before["window_index"] + 1)
        & (after["first_round"] == before["first_round"] + before["num_rounds"])
    )
    next_shot = (after["shot_id"] == before["shot_id"] + 1) & (after["window_index"] == 0) & (after["first_round"] == 0)
    follows: NDArray[np.bool_] = np.where(last, next_shot, next_window)
    return follows


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

    def _check_piece(self, corrections: NDArray[Any]) -> None:
        good = (corrections["magic"] == RESPONSE_MAGIC) & (corrections["version"] == VERSION)
        good &= np.isin(corrections["patch_id"], self._patch_ids)
        self._strangers += int((~good).sum())
        corrections = corrections[good]
        for account in self.accounts:
            mine = corrections[corrections["patch_id"] == account.patch_id]
            if len(mine):
                account.check(mine)
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
