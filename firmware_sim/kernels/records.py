"""The records of the simulator's compiled loops."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from rtqec.kernels.records import record

SEND_PATCH = record(
    ("endless", "i8"),
    ("num_shots", "i8"),
    ("num_rounds", "i8"),
    ("rounds_per_message", "i8"),
    ("message_offset", "i8"),
    ("messages_per_shot", "i8"),
    ("tape_offset", "i8"),
    ("shot_bytes", "i8"),
    ("sweep_offset", "i8"),
    ("sweep_bytes", "i8"),
    ("head_groups", "i8"),
    ("num_head_groups", "i8"),
    ("bulk_group", "i8"),
    ("tail_groups", "i8"),
    ("num_tail_groups", "i8"),
    ("pending_offset", "i8"),
    ("pending_mask", "i8"),
    ("layer_words", "i8"),
    ("crc", "i8"),
    ("source_epoch", "i8"),
)
"""What a patch sends: a tape of finite shots, or one endless shot of `num_rounds` rounds made on the way."""

SEND_STATE = record(
    ("done", "i8"),
    ("shot", "i8"),
    ("message", "i8"),
    ("round_index", "i8"),
    ("rounds_sent", "i8"),
    ("sequence", "u8"),
    ("random", "u8"),
    ("observables", "u8"),
)

ERROR_GROUP = record(("start", "i8"), ("stop", "i8"), ("log_miss", "f8"), ("largest", "f8"))
"""Errors with one anchor: rows of the error arrays, and log(1 - p) and p of the most probable of them."""

MESSAGES, ROUNDS, UNSENT, LATE_MAX_NS, LATE_BOUND_NS, LATE_ROUNDS, PROGRESS_WORDS = 0, 1, 2, 3, 4, 5, 16
"""Progress of the sender, int64; read by another thread while it runs. `LATE_ROUNDS` left more than `LATE_BOUND_NS`,
which is set before it starts, after they were due."""

PAUSED = 8
"""Place in the sink's control words: 1 while the controller does not read."""

RECEIVED, CHECKED, SINK_WORDS = 0, 8, 16
"""Cursors of the sink, int64."""


class FaultKind(IntEnum):
    """`kind` of a `[[fault]]` table."""

    DROP = 0
    REORDER = 1
    DUPLICATE = 2
    CORRUPT = 3
    WRONG_PLAN = 4
    DELAY = 5
    STALL = 6
    SKIP = 7
    RESTART = 8
    BURST = 9
    DRIFT = 10


class Fate(IntFlag):
    """What became of a message. Where several faults strike one message, the first named here wins."""

    CUT_OFF = 1
    """Never made: the source restarted before it."""
    SKIPPED = 2
    DROPPED = 4
    WRONG_PLAN = 8
    CORRUPTED = 16
    REORDERED = 32
    """Left after messages that were made after it."""
    DUPLICATED = 64
    UNSENT = 128
    """The transport did not take it; beside another fate, or alone."""


FATES_LOST = int(Fate.CUT_OFF | Fate.SKIPPED | Fate.DROPPED | Fate.WRONG_PLAN | Fate.CORRUPTED | Fate.UNSENT)
"""Whose rounds never reach the daemon intact."""

RULE = record(
    ("kind", "i8"),
    ("probability", "f8"),
    ("every_rounds", "i8"),
    ("start_round", "i8"),
    ("stop_round", "i8"),
    ("distance", "i8"),
    ("distribution", "i8"),
    ("mean_ns", "f8"),
    ("sigma_ns", "f8"),
    ("duration_ns", "i8"),
    ("num_rounds", "i8"),
    ("centre_random", "i8"),
    ("x", "f8"),
    ("y", "f8"),
    ("x_extent", "f8"),
    ("y_extent", "f8"),
    ("radius", "f8"),
    ("factor", "f8"),
    ("decay_rounds", "f8"),
)
"""One `[[fault]]` of one patch. `every_rounds` is 0 where it strikes by chance. Rules of messages come before the rules
of error rates (burst, drift). `x`, `y` with `x_extent`, `y_extent`: the centre, or the box in which it is drawn."""

EXPONENTIAL, UNIFORM, NORMAL = 0, 1, 2

RULE_STATE = record(("random", "u8"), ("next_round", "i8"), ("began", "i8"), ("x", "f8"), ("y", "f8"), ("rate", "f8"))
"""`next_round`: when it strikes next, with `every_rounds`. Of a burst: the round in which it began, or -1, its centre,
and by how much it multiplies the rates of errors in this round."""

FAULT_STATE = record(
    ("first_rule", "i8"),
    ("first_rate_rule", "i8"),
    ("stop_rule", "i8"),
    ("decided", "i8"),
    ("fate", "i8"),
    ("random", "u8"),
    ("distance", "i8"),
    ("delay_ns", "i8"),
    ("silence_ns", "i8"),
    ("offset_ns", "i8"),
    ("released_ns", "i8"),
    ("skip_left", "i8"),
    ("last_sent", "i8"),
    ("store_offset", "i8"),
    ("held_bytes", "i8"),
    ("held_entry", "i8"),
    ("held_until", "u8"),
)
"""A patch's rules, what was decided about its next message (`fate` to `silence_ns`), and the message that is held back
(`held_bytes` is 0 without one). `offset_ns`: how much later than undisturbed its rounds are due, by restarts.
`last_sent`: the last sequence number of this epoch that left, or -1."""

FATE_ENTRY = record(
    ("patch_index", "i8"),
    ("epoch", "i8"),
    ("sequence", "u8"),
    ("shot", "i8"),
    ("first_round", "i8"),
    ("num_rounds", "i8"),
    ("fate", "i8"),
    ("after", "i8"),
)
"""A message that did not arrive normally. `after`: with REORDERED, the last sequence number that left before it."""

BURST_ENTRY = record(("patch_index", "i8"), ("first_round", "i8"), ("num_rounds", "i8"), ("x", "f8"), ("y", "f8"))
"""A burst of errors that was injected."""

TIMES, TOUCHED_MESSAGES, TOUCHED_ROUNDS, COUNT_COLUMNS = 0, 1, 2, 3
"""Columns of what was injected, per patch and kind: how often it struck; messages and rounds that it touched."""

FATES_LOGGED, FATES_OVERFLOWED, BURSTS_LOGGED, LOG_WORDS = 0, 1, 2, 8
"""Cursors of the logs, int64."""
