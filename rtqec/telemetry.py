"""Counters and histograms of one lane, in a memory-mapped file that any process may read while the lane writes.

One writer per field: ingest writes `feed_counters`, the path writes the rest. A reader sees single 64-bit values
whole; two of them may be of different moments.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.config import Config
from rtqec.errors import FaultError
from rtqec.kernels.histogram import NUM_BINS
from rtqec.kernels.records import FeedCounter, PathCounter

_MAGIC = 0x5254514543303031
_HEADER = np.dtype([("magic", "<u8"), ("num_patches", "<i8"), ("pid", "<i8"), ("ready_ns", "<i8")])


def telemetry_path(config: Config) -> Path:
    """Where a lane's telemetry block lies."""
    return config.runtime_dir / f"{config.lane.name}.telemetry"


class TelemetryBlock:
    """The block of one lane.

    Attributes:
        patch_ids: int64, shape (num_patches,).
        feed_counters: int64, shape (num_patches + 1, len(FeedCounter)); the last row is for unknown patches.
        path_counters: int64, shape (num_patches, len(PathCounter)).
        service_counts: int64, shape (num_patches, NUM_BINS): histograms of service time in ns.
        header: Record with `pid` and `ready_ns` (CLOCK_MONOTONIC at READY, 0 before).
    """

    def __init__(self, memory: mmap.mmap, num_patches: int) -> None:
        self._memory = memory
        self._at = 0
        self.header = self._take(_HEADER, (1,))
        self.patch_ids = self._take(np.int64, (num_patches,))
        self.feed_counters = self._take(np.int64, (num_patches + 1, len(FeedCounter)))
        self.path_counters = self._take(np.int64, (num_patches, len(PathCounter)))
        self.service_counts = self._take(np.int64, (num_patches, NUM_BINS))

    def _take(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """The next array of the block, on a cache line of its own."""
        array = np.frombuffer(self._memory, dtype, count=int(np.prod(shape)), offset=self._at).reshape(shape)
        self._at += -(-array.nbytes // 64) * 64
        return array

    @classmethod
    def create(cls, path: Path, patch_ids: list[int]) -> TelemetryBlock:
        """Make the file anew and touch all of it."""
        size = _block_bytes(len(patch_ids))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("w+b") as file:
            file.write(bytes(size))
            file.flush()
            block = cls(mmap.mmap(file.fileno(), size), len(patch_ids))
        block.patch_ids[:] = patch_ids
        block.header[0] = (_MAGIC, len(patch_ids), os.getpid(), 0)
        return block

    @classmethod
    def attach(cls, path: Path) -> TelemetryBlock:
        """Map the block of a running lane, read-only.

        Raises:
            FaultError: The file is not such a block.
        """
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        header = np.frombuffer(memory, _HEADER, count=1)[0] if len(memory) >= _HEADER.itemsize else None
        if header is None or header["magic"] != _MAGIC or len(memory) != _block_bytes(int(header["num_patches"])):
            raise FaultError(f"{path} is not the telemetry block of a lane of this version.")
        return cls(memory, int(header["num_patches"]))

    def totals(self) -> dict[str, int]:
        """All counters, summed over patches, by name."""
        feed = {c.name.lower(): int(self.feed_counters[:, c].sum()) for c in FeedCounter}
        path = {c.name.lower(): int(self.path_counters[:, c].sum()) for c in PathCounter}
        return feed | path


def _block_bytes(num_patches: int) -> int:
    sizes = (
        _HEADER.itemsize,
        8 * num_patches,
        8 * (num_patches + 1) * len(FeedCounter),
        8 * num_patches * len(PathCounter),
        8 * num_patches * NUM_BINS,
    )
    return sum(-(-size // 64) * 64 for size in sizes)
