"""Counters are seen by other readers while they are written, and nothing else is taken for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rtqec.cudaq.frames import Status
from rtqec.errors import FaultError
from rtqec.histogram import NUM_BINS
from rtqec.kernels.records import FeedCounter, PathCounter
from rtqec.telemetry import TelemetryBlock, answered
from rtqec.wire import Reason, Rung

JOURNAL = 16


def test_a_reader_sees_what_the_lane_writes(tmp_path: Path) -> None:
    """An attached block shows the writer's counters, also those written later, and cannot write them."""
    path = tmp_path / "deep" / "lane0.telemetry"
    written = TelemetryBlock.create(path, [7, 3], JOURNAL)
    seen = TelemetryBlock.attach(path)
    written.feed_counters[1, FeedCounter.ROUNDS] = 5
    written.path_counters[0, PathCounter.WINDOWS] = 6
    written.service_counts[1, NUM_BINS - 1] = 8
    assert seen.patch_ids.tolist() == [7, 3]
    assert seen.feed_counters[1, FeedCounter.ROUNDS] == 5
    assert seen.path_counters[0, PathCounter.WINDOWS] == 6
    assert seen.service_counts[1, -1] == seen.service_counts.sum() == 8
    assert seen.header["pid"] == os.getpid()
    with pytest.raises(ValueError, match="read-only"):
        seen.feed_counters[0, 0] = 1


def test_totals_sum_over_patches_and_the_unknown(tmp_path: Path) -> None:
    """Totals name every counter once, summed over patches and, for the feed, messages of no known patch."""
    block = TelemetryBlock.create(tmp_path / "block", [0, 1], JOURNAL)
    block.feed_counters[:] = 1
    block.path_counters[:] = 10
    block.rung_counts[:] = 100
    block.answers[:] = 1
    names = [c.name.lower() for c in (*FeedCounter, *PathCounter)] + [f"rung_{rung.name.lower()}" for rung in Rung]
    names += [answered(status) for status in Status]
    totals = block.totals()
    # A name that ingest and the path share would hide one of the two counters.
    assert sorted(totals) == sorted(names)
    assert sorted(set(totals.values())) == [3, 20, 200 * len(Reason)]


def test_arrays_do_not_overlap(tmp_path: Path) -> None:
    """Filling one array of a block leaves the others as they were."""
    block = TelemetryBlock.create(tmp_path / "block", [4, 5, 6], JOURNAL)
    arrays = (
        block.feed_counters, block.path_counters, block.service_counts, block.rung_counts, block.written, block.resets,
        block.journal_sent, block.journal.view(np.uint8),
    )  # fmt: skip
    for value, array in enumerate(arrays, start=1):
        array[:] = value
    assert [(array == value).all() for value, array in enumerate(arrays, start=1)] == [True] * len(arrays)
    assert block.patch_ids.tolist() == [4, 5, 6]


@pytest.mark.parametrize("damage", ["short", "magic", "size", "patches"])
def test_a_foreign_file_is_refused(tmp_path: Path, damage: str) -> None:
    """A file that is no block of this version is refused by its path."""
    path = tmp_path / "block"
    TelemetryBlock.create(path, [0], JOURNAL)
    octets = bytearray(path.read_bytes())
    if damage == "magic":
        octets[0] ^= 1
    if damage == "patches":
        octets[8] = 2
    path.write_bytes({"short": octets[:8], "size": octets[:-64]}.get(damage, octets))
    with pytest.raises(FaultError, match=r"block is not the telemetry block"):
        TelemetryBlock.attach(path)


def test_a_new_lane_starts_from_zero(tmp_path: Path) -> None:
    """A block made anew forgets the old one, whose readers keep what they had mapped."""
    path = tmp_path / "block"
    old = TelemetryBlock.create(path, [0], JOURNAL)
    old.feed_counters[:] = 9
    assert not TelemetryBlock.create(path, [0], JOURNAL).feed_counters.any()
    assert (old.feed_counters == 9).all()
