"""The records that compiled code shares with Python: one array of each per lane, one row per patch unless said.

Records are aligned C structs. Who writes and who reads each is in ARCHITECTURE.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np


def record(*fields: tuple[str, str]) -> np.dtype[Any]:
    """An aligned record."""
    return np.dtype(list(fields), align=True)


RING_PLACE = record(
    ("byte_offset", "i8"),
    ("slot_offset", "i8"),
    ("mask", "i8"),
    ("layer_bytes", "i8"),
)
"""Where a patch's slots lie in the lane's ring. `mask` is the number of slots minus one."""

ROUND_SLOT = record(
    ("shot_id", "u8"),
    ("round_index", "i8"),
    ("received_ns", "i8"),
    ("sent_ns", "i8"),
    ("ptp_timestamp", "u8"),
    ("flags", "i8"),
)
"""What the ring knows of a round besides its detection events. One row per slot."""

SLOT_LAST = 1
SLOT_LOST = 2
"""Never received; its detectors read 0."""
SLOT_TRUNCATED = 4
"""No round: the shot ended before its last round came."""
SLOT_HEADLESS = 8
"""No round: the shot began without its first round."""
SLOT_GUESSED = 16
"""Lost, and its measurements could not be chosen so that later rounds fold right."""
SLOT_END = SLOT_TRUNCATED | SLOT_HEADLESS

CURSOR_STRIDE = 16
HEAD, TAIL, NEED = 0, 8, 9
"""Cursors of a patch, int64, in cache lines of their own: rounds written by ingest; rounds given back by the path;
the head at which the path wants to be woken."""

SIGNAL_SEQUENCE, SIGNAL_WAITING, SIGNAL_WORDS = 0, 16, 32
"""uint32: counted up at every wake-up; 1 while the path sleeps."""

STOP, INGEST_BEAT, CONTROL_WORDS = 0, 8, 16
"""int64: 1 to stop; counted up by ingest, also when idle."""

WAIT_SPIN_NS, WAIT_COALESCE_NS = 0, 1
"""int64, shape (2,): how a thread waits; see `[lane] spin_us` and `coalesce_us`."""

COALESCE_FOR_NS = 10_000_000
"""A thread that found nothing for so long sleeps until it is woken, so that an idle lane costs nothing."""

FEED_PATCH = record(
    ("patch_id", "i8"),
    ("plan_tag", "i8"),
    ("events", "i8"),
    ("require_crc", "i8"),
    ("num_rounds", "i8"),
    ("first_layer", "i8"),
    ("num_first_layers", "i8"),
    ("bulk_layer", "i8"),
    ("last_layer", "i8"),
    ("num_sweep_bits", "i8"),
    ("sweep_offset", "i8"),
    ("history_offset", "i8"),
    ("history_mask", "i8"),
    ("history_words", "i8"),
)
"""What ingest must know of a patch's plan. `num_rounds` is -1 for an endless plan, `bulk_layer` -1 for a finite one."""

LAYER = record(
    ("num_measurements", "i8"),
    ("num_detectors", "i8"),
    ("diagonal_back", "i8"),
    ("constant_offset", "i8"),
    ("source_start", "i8"),
    ("source_stop", "i8"),
    ("sweep_start", "i8"),
    ("sweep_stop", "i8"),
    ("fix_start", "i8"),
    ("fix_stop", "i8"),
)
"""One layer of one plan; its program lies in flat arrays. One row per layer. `diagonal_back` is k where detector i is
measurement i of this round and of k rounds before, for all i and nothing else; else 0."""

FEED_STATE = record(
    ("epoch", "i8"),
    ("next_sequence", "u8"),
    ("shot_id", "u8"),
    ("shot_state", "i8"),
    ("next_round", "i8"),
    ("head", "i8"),
    ("tail_seen", "i8"),
)


class ShotState(IntEnum):
    """Where ingest stands in a patch's shot."""

    NONE = 0
    """No shot yet."""
    OPEN = 1
    CLOSED = 2
    """Its last round came."""
    DEAD = 3
    """It cannot be decoded; the rest of it is dropped and counted."""


WINDOW_PATCH = record(
    ("commit_rounds", "i8"),
    ("window_rounds", "i8"),
    ("num_rounds", "i8"),
    ("open_offset", "i8"),
    ("num_open", "i8"),
    ("closing_offset", "i8"),
    ("budget_ns", "i8"),
    ("plan_tag", "i8"),
    ("patch_id", "i8"),
    ("num_observables", "i8"),
    ("events", "i8"),
    ("rung", "i8"),
)
"""What the path must know of a patch's plan. Closing windows: row min(k, num_open - 1), column rounds left."""

MODEL = record(
    ("row_bytes", "i8"),
    ("mask_offset", "i8"),
    ("num_observables", "i8"),
    ("answer_bytes", "i8"),
    ("seam_start", "i8"),
    ("seam_stop", "i8"),
)
"""One matcher of the lane. One row per matcher."""

WINDOW_STATE = record(
    ("open", "i8"),
    ("base", "i8"),
    ("start", "i8"),
    ("scanned", "i8"),
    ("num_rounds", "i8"),
    ("ended", "i8"),
    ("window_index", "i8"),
    ("shot_id", "u8"),
    ("frame", "u8"),
    ("tainted", "i8"),
    ("tainted_since", "i8"),
)
"""Where the path stands in a patch's shot. `base` is the ring ordinal of its round 0; `num_rounds` is -1 until its
last round was seen; `ended` is the SLOT_END flag that was seen instead."""

WINDOW_SLOT = record(
    ("patch_index", "i8"),
    ("model", "i8"),
    ("start", "i8"),
    ("stop", "i8"),
    ("commit_stop", "i8"),
    ("closing", "i8"),
    ("consumed", "i8"),
    ("received_ns", "i8"),
    ("sent_ns", "i8"),
    ("ptp_timestamp", "u8"),
    ("deadline_ns", "i8"),
    ("lossy", "i8"),
    ("guessed", "i8"),
    ("reason", "i8"),
)
"""One window of a batch. `model` is -1 for a window that is held; `consumed` is the ring ordinal up to which slots are
given back."""


class FeedCounter(IntEnum):
    """What ingest counts, by cause."""

    MESSAGES = 0
    ROUNDS = 1
    SHOTS = 2
    BAD_SIZE = 3
    BAD_MAGIC = 4
    BAD_VERSION = 5
    BAD_FLAGS = 6
    UNKNOWN_PATCH = 7
    BAD_PLAN_TAG = 8
    BAD_WIDTH = 9
    BAD_ROUND = 10
    BAD_CRC = 11
    LATE_OR_DUPLICATE = 12
    MESSAGES_MISSING = 13
    ROUNDS_FILLED = 14
    RING_FULL = 15
    SHOTS_TRUNCATED = 16
    SHOTS_HEADLESS = 17
    DEAD_SHOT_MESSAGES = 18


class PathCounter(IntEnum):
    """What the path counts."""

    WINDOWS = 0
    BATCHES = 1
    """Counted for the patch with the earliest deadline."""
    ROUNDS_COMMITTED = 2
    CORRECTIONS_SENT = 3
    CORRECTIONS_UNSENT = 4
    LATE = 5
    LOSSY = 6
    DEGRADED = 7
    UNEXPLAINED = 8
    SEAM_DETECTORS = 9
