"""Counters, histograms and the journal of one lane, in a memory-mapped file that any process may read while the lane
writes.

One writer per field, see ARCHITECTURE.md. A reader sees single 64-bit values whole; two of them may be of different
moments. Of the journal it may believe what was written before it looked and is not yet overwritten: see
`corrections_of`. The file outlives its lane: the next one goes on counting where a lane that died has stopped.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.config import Config
from rtqec.cudaq.frames import Status
from rtqec.errors import FaultError
from rtqec.histogram import NUM_BINS
from rtqec.kernels.records import CONTROL_WORDS, WINDOW_PATCH, FeedCounter, PathCounter, Span
from rtqec.wire import CORRECTION, Reason, Rung

_MAGIC = 0x5254514543303034
_HEADER = np.dtype(
    [
        ("magic", "<u8"), ("num_patches", "<i8"), ("journal_corrections", "<i8"), ("num_detectors", "<i8"),
        ("pid", "<i8"), ("ready_ns", "<i8"), ("starts", "<i8"),
    ]
)  # fmt: skip

_DIGEST_BYTES = 32


def answered(status: Status) -> str:
    """The name of the counter of such answers."""
    return f"answered_{status.name.lower()}"


def telemetry_path(config: Config) -> Path:
    """Where the telemetry block of a lane lies; see `Config.of_lane`."""
    return config.runtime_dir / f"{config.service.name}-{config.lane_name}.telemetry"


class TelemetryBlock:
    """The block of one lane.

    Attributes:
        patch_ids: int64, shape (num_patches,).
        digests: uint8, shape (num_patches, 32): sha256 of each patch's plan.
        feed_counters: int64, shape (num_patches + 1, len(FeedCounter)); the last row is for unknown patches.
        path_counters: int64, shape (num_patches, len(PathCounter)).
        span_counts: int64, shape (num_patches, len(Span), NUM_BINS): histograms of times in ns.
        event_counts: int64, shape (num_patches, num_detectors): how often each detector of a full layer fired, in the
            rounds that ingest sampled.
        event_rounds: int64, shape (num_patches,): how many rounds it sampled.
        heard_tags: int64, shape (num_patches,): the plan tag of the last message that was accepted, -1 before one was.
        rung_counts: int64, shape (num_patches, len(Rung), len(Reason)): corrections by rung and reason.
        answers: int64, shape (num_patches + 1, len(Status)): what CUDA-Q requests were answered; the last row is for
            those of no decoder.
        written: int64, shape (num_patches,): corrections so far; number k lies at place k modulo the journal's length.
        journal: `wire.CORRECTION`, shape (num_patches, journal_corrections): the last corrections, sent or not.
        journal_sent: uint8, same shape: 1 where the transport took it.
        resets: int64, shape (num_patches,): how often a reset of the frame's status was asked for.
        control: int64, shape (CONTROL_WORDS,): stop, drain and beats; see `kernels.records`.
        patches: `WINDOW_PATCH`, shape (num_patches,): what the path knows of a patch; control writes `budget_ns` and
            `steps_mask`.
        header: Record with `pid`, `ready_ns` (CLOCK_MONOTONIC at READY, 0 before), and `starts` of the lane so far.
    """

    def __init__(self, memory: mmap.mmap, num_patches: int, journal_corrections: int, num_detectors: int) -> None:
        self._memory = memory
        self._at = 0
        self.header = self._take(_HEADER, (1,))
        self.patch_ids = self._take(np.int64, (num_patches,))
        self.digests = self._take(np.uint8, (num_patches, _DIGEST_BYTES))
        self.feed_counters = self._take(np.int64, (num_patches + 1, len(FeedCounter)))
        self.path_counters = self._take(np.int64, (num_patches, len(PathCounter)))
        self.span_counts = self._take(np.int64, (num_patches, len(Span), NUM_BINS))
        self.event_counts = self._take(np.int64, (num_patches, num_detectors))
        self.event_rounds = self._take(np.int64, (num_patches,))
        self.heard_tags = self._take(np.int64, (num_patches,))
        self.rung_counts = self._take(np.int64, (num_patches, len(Rung), len(Reason)))
        self.answers = self._take(np.int64, (num_patches + 1, len(Status)))
        self.written = self._take(np.int64, (num_patches,))
        self.resets = self._take(np.int64, (num_patches,))
        self.control = self._take(np.int64, (CONTROL_WORDS,))
        self.patches = self._take(WINDOW_PATCH, (num_patches,))
        self.journal_sent = self._take(np.uint8, (num_patches, journal_corrections))
        self.journal = self._take(CORRECTION, (num_patches, journal_corrections))

    def _take(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """The next array of the block, on a cache line of its own."""
        array = np.frombuffer(self._memory, dtype, count=int(np.prod(shape)), offset=self._at).reshape(shape)
        self._at += -(-array.nbytes // 64) * 64
        return array

    @classmethod
    def create(
        cls, path: Path, patch_ids: list[int], journal_corrections: int, num_detectors: int = 0
    ) -> TelemetryBlock:
        """Make the file anew and touch all of it. `num_detectors`: the most of a layer that are counted each."""
        sizes = (len(patch_ids), journal_corrections, num_detectors)
        size = _block_bytes(*sizes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o640), "w+b") as file:
            file.write(bytes(size))
            file.flush()
            block = cls(mmap.mmap(file.fileno(), size), *sizes)
        block.patch_ids[:] = patch_ids
        block.heard_tags[:] = -1
        block.header[0] = (_MAGIC, *sizes, os.getpid(), 0, 0)
        return block

    @classmethod
    def attach(cls, path: Path, control: bool = False) -> TelemetryBlock:
        """Map the block of a running lane, read-only unless it is for control.

        Raises:
            FaultError: The file is not such a block.
        """
        with path.open("r+b" if control else "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | (mmap.PROT_WRITE if control else 0))
        header = np.frombuffer(memory, _HEADER, count=1)[0] if len(memory) >= _HEADER.itemsize else None
        names = ("num_patches", "journal_corrections", "num_detectors")
        sizes = [int(header[name]) for name in names] if header is not None else [0, 0, 0]
        if header is None or header["magic"] != _MAGIC or len(memory) != _block_bytes(*sizes):
            raise FaultError(f"{path} is not the telemetry block of a lane of this version.")
        return cls(memory, *sizes)

    def fits(self, patch_ids: list[int], journal_corrections: int, num_detectors: int) -> bool:
        """Whether a lane of these sizes can go on with this block."""
        found = self.patch_ids.tolist(), self.journal.shape[1], self.event_counts.shape[1]
        return bool(found == (patch_ids, journal_corrections, num_detectors))

    def corrections_of(self, patch_index: int, first: int, stop: int) -> NDArray[Any]:
        """The corrections with window index [first, stop) of a patch that the journal still has.

        Returns:
            `wire.CORRECTION`, oldest first. None of them was being overwritten while it was copied: of a journal of n
            entries the last n - 1 can be read, as the next one may be in writing.
        """
        length = self.journal.shape[1]
        written = int(self.written[patch_index])
        wanted = np.arange(max(first, written - length, 0), min(stop, written))
        found = self.journal[patch_index, wanted % length]
        kept: NDArray[Any] = found[wanted > int(self.written[patch_index]) - length]
        return kept

    @property
    def service_counts(self) -> NDArray[np.int64]:
        """int64, shape (num_patches, NUM_BINS): histograms of service time in ns."""
        counts: NDArray[np.int64] = self.span_counts[:, Span.SERVICE]
        return counts

    def counters_of(self, row: int) -> dict[str, int]:
        """The counters of one patch, by name; of row -1, those of no known patch."""
        feed = {c.name.lower(): int(self.feed_counters[row, c]) for c in FeedCounter}
        feed |= {answered(status): int(self.answers[row, status]) for status in Status}
        if row < 0:
            return feed
        path = {c.name.lower(): int(self.path_counters[row, c]) for c in PathCounter}
        return feed | path | {f"rung_{rung.name.lower()}": int(self.rung_counts[row, rung].sum()) for rung in Rung}

    def totals(self) -> dict[str, int]:
        """All counters, summed over patches, by name."""
        feed = {c.name.lower(): int(self.feed_counters[:, c].sum()) for c in FeedCounter}
        feed |= {answered(status): int(self.answers[:, status].sum()) for status in Status}
        path = {c.name.lower(): int(self.path_counters[:, c].sum()) for c in PathCounter}
        rungs = {f"rung_{rung.name.lower()}": int(self.rung_counts[:, rung].sum()) for rung in Rung}
        return feed | path | rungs


def _block_bytes(num_patches: int, journal_corrections: int, num_detectors: int) -> int:
    sizes = (
        _HEADER.itemsize,
        8 * num_patches,
        _DIGEST_BYTES * num_patches,
        8 * (num_patches + 1) * len(FeedCounter),
        8 * num_patches * len(PathCounter),
        8 * num_patches * len(Span) * NUM_BINS,
        8 * num_patches * num_detectors,
        8 * num_patches,
        8 * num_patches,
        8 * num_patches * len(Rung) * len(Reason),
        8 * (num_patches + 1) * len(Status),
        8 * num_patches,
        8 * num_patches,
        8 * CONTROL_WORDS,
        WINDOW_PATCH.itemsize * num_patches,
        num_patches * journal_corrections,
        CORRECTION.itemsize * num_patches * journal_corrections,
    )
    return sum(-(-size // 64) * 64 for size in sizes)
