"""The records of the simulator's compiled loops."""

from __future__ import annotations

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

ERROR_GROUP = record(("start", "i8"), ("stop", "i8"), ("log_miss", "f8"))
"""Errors with one anchor: rows of the error arrays, and log(1 - p) of the most probable of them."""

MESSAGES, ROUNDS, UNSENT, LATE_MAX_NS, PROGRESS_WORDS = 0, 1, 2, 3, 16
"""Progress of the sender, int64; read by another thread while it runs."""

RECEIVED, CHECKED, SINK_WORDS = 0, 8, 16
"""Cursors of the sink, int64."""
