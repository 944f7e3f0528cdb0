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
    ("flips", "u8"),
)
"""What the ring knows of a round besides its detection events. One row per slot. `flips`: observables that the
predecoder's answers of this round flip; the path writes them."""

SLOT_LAST = 1
SLOT_LOST = 2
"""Never received; its detectors read 0."""
SLOT_TRUNCATED = 4
"""No round: the shot ended before its last round came."""
SLOT_JUMP = 8
"""No round: the shot goes on at `round_index`, and what lies before it is gone."""
SLOT_GUESSED = 16
"""Lost, and its measurements could not be chosen so that later rounds fold right."""
SLOT_ECHO = 32
"""Received after a lost round: its detectors carry the news of both."""
SLOT_BLIND = 64
"""With SLOT_JUMP: what is gone (sweep bits) is needed to fold every later round of the shot."""

CURSOR_STRIDE = 16
HEAD, TAIL, NEED = 0, 8, 9
"""Cursors of a patch, int64, in cache lines of their own: rounds written by ingest; rounds given back by the path;
the head at which the path wants to be woken."""

SIGNAL_SEQUENCE, SIGNAL_WAITING, SIGNAL_WORDS = 0, 16, 32
"""uint32: counted up at every wake-up; 1 while the path sleeps."""

STOP, INGEST_BEAT, PATH_BEAT, DRAIN, OPEN_SHOTS, CONTROL_WORDS = 0, 8, 16, 24, 32, 48
"""int64, in cache lines of their own: 1 to stop; counted up by ingest and by the path, also when idle; 1 to take no
further shots; while draining, the shots that ingest still waits for, plus one (0: it has not looked yet)."""

PATH_OWNER, PATH_LEFT, FEED_ENDED, PATH_ENDED = 40, 41, 42, 43
"""int64 among the control words: the ticket of the path that may run, NOBODY after a stop; the ticket to which the one
before has left it; 1 when ingest has written its last round; 1 when the path has carried its last window."""

NOBODY = -1

SAMPLE_EVERY_ROUNDS = 61
"""Ingest counts the detection events of one round in so many: for a live picture of where they fall that is plenty.
A prime, so that no cycle of an experiment hides from it."""

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
    ("look_back", "i8"),
    ("full_detectors", "i8"),
    ("other_tag", "i8"),
)
"""What ingest must know of a patch's plan. `other_tag` is that of a plan with the same rounds, or -1;
`num_rounds` is -1 for an endless plan, `bulk_layer` -1 for a finite one."""

FEED_LIMITS = record(
    ("reorder_depth", "i8"),
    ("gap_wait_ns", "i8"),
    ("round_timeout_ns", "i8"),
    ("takeover_ns", "i8"),
)
"""`[feed]`: how far messages may come out of turn, and how long ingest waits before it gives something up."""

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
    ("highest", "u8"),
    ("seen", "u8"),
    ("late_next", "u8"),
    ("late_run", "i8"),
    ("heard_ns", "i8"),
    ("gap_since_ns", "i8"),
    ("num_waiting", "i8"),
    ("echo_left", "i8"),
    ("shot_id", "u8"),
    ("shot_state", "i8"),
    ("next_round", "i8"),
    ("back_next", "i8"),
    ("back_run", "i8"),
    ("head", "i8"),
    ("tail_seen", "i8"),
    ("draining", "i8"),
    ("sample_at", "i8"),
)
"""Where ingest stands. `seen`: which of the last 64 sequence numbers came, newest first. `late_next`, `late_run`: the
messages in a row that were too old; `back_next`, `back_run`: those that were in their turn, but of earlier rounds.
`num_waiting`: messages that came before their turn, since `gap_since_ns`."""


class ShotState(IntEnum):
    """Where ingest stands in a patch's shot."""

    NONE = 0
    """No shot yet."""
    OPEN = 1
    CLOSED = 2
    """Its last round came, or nobody waits for it any more."""


WINDOW_PATCH = record(
    ("commit_rounds", "i8"),
    ("window_rounds", "i8"),
    ("num_rounds", "i8"),
    ("look_back", "i8"),
    ("num_rows", "i8"),
    ("left_max", "i8"),
    ("open_offset", "i8"),
    ("closing_offset", "i8"),
    ("num_multiples", "i8"),
    ("step_offset", "i8"),
    ("num_steps", "i8"),
    ("budget_ns", "i8"),
    ("backlog_rounds", "i8"),
    ("ring_rounds", "i8"),
    ("plan_tag", "i8"),
    ("patch_id", "i8"),
    ("num_observables", "i8"),
    ("steps_mask", "i8"),
    ("predecodes", "i8"),
)
"""What the path must know of a patch's plan. Open windows: by table of matchers, row (`start / commit_rounds`, at most
`num_rows - 1`), multiple of the commit region, and whether the past is open. Closing windows: by table, row, rounds
left (at most `left_max`), past. Bit k of `steps_mask` allows step k of the ladder."""

STEP = record(("kind", "i8"), ("table", "i8"), ("rung", "i8"), ("predecode", "i8"))
"""One step of a patch's ladder; `table` is its table of matchers, `predecode` 1 where the network goes first."""

STEP_DECODE, STEP_CATCH_UP, STEP_HOLD = 0, 1, 2

MODEL = record(
    ("row_bytes", "i8"),
    ("mask_offset", "i8"),
    ("num_observables", "i8"),
    ("answer_bytes", "i8"),
    ("seam_start", "i8"),
    ("seam_stop", "i8"),
    ("erased_offset", "i8"),
)
"""One matcher of the lane. One row per matcher. `erased_offset` is where its windows with a lost round begin, or -1."""

WINDOW_STATE = record(
    ("open", "i8"),
    ("base", "i8"),
    ("start", "i8"),
    ("scanned", "i8"),
    ("origin", "i8"),
    ("num_rounds", "i8"),
    ("ended", "i8"),
    ("hole_stop", "i8"),
    ("past_open", "i8"),
    ("num_shots", "i8"),
    ("shot_id", "u8"),
    ("frame", "u8"),
    ("tainted", "i8"),
    ("tainted_since", "i8"),
    ("behind", "i8"),
    ("window_index", "i8"),
    ("resets", "i8"),
    ("copied", "i8"),
    ("filtered", "i8"),
)
"""A place in a patch's stream. `base` is the ring ordinal of round 0 of its shot; rounds before `origin` are not in
the ring; `num_rounds` is -1 until the last round was seen; `ended` is 1 where the shot broke off instead; rounds before
`hole_stop` cannot be decoded; `past_open` is 1 where the rounds before `start` are not known; `num_shots` have begun so
far, this one included.

A patch has two: where it decodes, and how far it has answered. They differ (`behind` is 1) only while rounds that were
answered by holding wait to be decoded. `behind`, `window_index` (corrections so far) and `resets` (of the frame's
status, obeyed so far) count in the first. So do, of a patch with a predecoder, `copied` and `filtered`: the first round
of the shot that is still as it came, and the first that was not yet predecoded or passed over."""

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
    ("clock_round", "i8"),
    ("decided_ns", "i8"),
    ("predicted_ns", "i8"),
    ("num_events", "i8"),
    ("rounds_lost", "i8"),
    ("lossy", "i8"),
    ("guessed", "i8"),
    ("rung", "i8"),
    ("reason", "i8"),
    ("step", "i8"),
    ("flags", "i8"),
    ("place", "i8"),
    ("predecode", "i8"),
)
"""One window of a batch. `model` is -1 for a window that is held; `consumed` is the ring ordinal up to which slots are
given back; `clock_round` is the round with whose arrival the deadline's clock started; `flags` go to the correction."""

OUTSIDE, BULK, EDGE, LAST = 0, 1, 2, 3
"""What a layer of a chunk is: beyond the ends of the shot; of both kinds of checks; of the own kind only: the first of
the shot, or its last, the data readout. See `device.chunks`."""

FILTER = record(("halo", "i8"), ("soft", "i8"))
"""A patch's predecoder; `halo` is 0 where it has none, `soft` 1 where its answers only weigh edges. One row per patch.
See `kernels.filter`."""

FILTER_PAST = record(("byte_offset", "i8"), ("mask", "i8"), ("shot", "i8"), ("origin", "i8"))
"""The copies of a patch's raw rounds: where they lie, how many there are less one, of which shot (`num_shots`), and
from which round on they are whole: 0 where the shot's true beginning is known."""

CHUNK = record(("window", "i8"), ("first", "i8"), ("stop", "i8"))
"""One chunk of a call: the window of the batch that it belongs to, and the rounds that it answers."""

ANSWERED = -1
"""What became of a call of the engine, where it is not the counter of those that were bypassed."""

PLACE_LIVE, PLACE_AHEAD, PLACE_BEHIND = 0, 1, 2
"""`WINDOW_SLOT.place`: decoded when it closed; answered by holding, decoded later; decoded later, an amendment."""


class Span(IntEnum):
    """The times of which histograms are kept, one sample per correction (amendments have none)."""

    REACTION = 0
    """From when the last round that was needed should have been sent (its `sent_ns`) to the hand-over."""
    SERVICE = 1
    """From when that round was received to the hand-over."""
    QUEUE = 2
    """From when it was received to the decision how to decode."""
    DECODE = 3
    """From that decision to the hand-over."""
    ENGINE = 4
    """Of a window that went through the network: the call of the engine, those of a batch together."""


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
    LATE = 12
    """Came after its place had been given up as lost."""
    DUPLICATE = 13
    REORDERED = 14
    """Came after a later one, and was placed in its turn."""
    SECOND_SOURCE = 15
    """From another source than the one that feeds the patch."""
    RESTARTS = 16
    """The source came back with another epoch."""
    RESYNCS = 17
    """The source counts anew without another epoch."""
    MESSAGES_MISSING = 18
    ROUNDS_FILLED = 19
    JUMPS = 20
    """A shot went on after a gap that cannot be filled."""
    RING_FULL = 21
    SHOTS_TRUNCATED = 22
    SHOTS_HEADLESS = 23
    SHOTS_TIMED_OUT = 24
    DRAINED = 25
    """Would have begun a shot while the daemon drains."""
    SESSIONS_FAILED = 26
    """A CUDA-Q decoder was given what cannot be decoded, and answers nothing until it is reset."""
    ANSWERS_UNSENT = 27
    """Answers to CUDA-Q requests that the transport did not take."""


class PathCounter(IntEnum):
    """What the path counts."""

    WINDOWS = 0
    BATCHES = 1
    """Counted for the patch with the earliest deadline."""
    ROUNDS_COMMITTED = 2
    CORRECTIONS_SENT = 3
    CORRECTIONS_UNSENT = 4
    """The controller did not take them; the journal keeps them for a while."""
    JOURNAL_DROPS = 5
    """Of those, overwritten in the journal before anybody took them."""
    CORRECTIONS_LATE = 6
    LOSSY = 7
    DEGRADED = 8
    UNEXPLAINED = 9
    SEAM_DETECTORS = 10
    STEPPED_DOWN = 11
    """Windows decoded below the first rung."""
    MISPREDICTED = 12
    """Windows that were late although they were predicted to be on time."""
    CAUGHT_UP = 13
    ROUNDS_HELD = 14
    """Answered without having been decoded, although they had come."""
    ROUNDS_AMENDED = 15
    """Of those, decoded later."""
    ROUNDS_GIVEN_UP = 16
    """The others: gone before they could be decoded, or rounds for which the plan has no window."""
    BACKLOG_MAX = 17
    """The most rounds that waited for an answer when the path looked; no sum."""
    BACKLOG = 18
    """The rounds that waited when it looked last; no sum."""
    ROUNDS_PREDECODED = 19
    BYPASSED_MISSING = 20
    """Windows that went on without the network, although it was their turn: there is no engine."""
    BYPASSED_LATE = 21
    """The engine was late, or still busy with a call that had been given up."""
    BYPASSED_FAILED = 22
    """The engine's call failed."""
    BYPASSED_NAN = 23
    """It answered what is no number."""
    EVENTS_FOUND = 24
    """Detection events of the own kind in the rounds that were predecoded."""
    EVENTS_LEFT = 25
    """Of those rounds, what the network has left to be matched."""
    PREDECODINGS_CHECKED = 26
    """Windows of which it was checked that what is left is what came, less what the answers flip."""
    PREDECODINGS_WRONG = 27
    """Of those, where it was not: a broken invariant."""
