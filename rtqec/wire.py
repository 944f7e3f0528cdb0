"""Wire version 1: one message per round (or per few rounds) in, one message per correction out.

Little-endian, packed, whole 64-bit words. The first 24 bytes of each are the headers of CUDA-Q Realtime
(`RPCHeader`, `RPCResponse`), so that one listener can serve both worlds. Bits are LSB first (Stim's b8).

A rounds message is `ROUNDS_HEADER`, then the optional blocks in the order of their flags (sweep bits before the
rounds), each padded to 8 bytes; `num_rounds * ceil(bits_per_round / 8)` bytes of rounds are padded to 8 together.
A correction is one `CORRECTION`: `flips` and `frame` carry one bit per observable, LSB first, in one word each. It
answers rounds `first_round` to `first_round + num_rounds - 1`; where more than 2^32 - 1 rounds are gone at once,
`num_rounds` says 2^32 - 1, and the next correction's `first_round` where the gap ended.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

from rtqec.layout import bytes_for_bits, words_for_bytes

VERSION = 1
REQUEST_MAGIC = 0x43555152
RESPONSE_MAGIC = 0x43555153


def fnv1a32(name: str) -> int:
    """The 32-bit FNV-1a hash by which CUDA-Q Realtime names functions.

    Source: CUDA-Q Realtime, `decoder_rpc_wire_format.h`: offset basis 2166136261, prime 16777619.
    """
    digest = 2166136261
    for byte in name.encode():
        digest = ((digest ^ byte) * 16777619) & 0xFFFFFFFF
    return digest


ROUNDS_FUNCTION = fnv1a32("rtqec_rounds_v1")


class RoundFlag(IntFlag):
    """Flags of a rounds message. A bit that is not named here makes the message invalid."""

    DETECTION_EVENTS = 1
    """The payload is detection events; without it, raw measurements."""
    FIRST = 2
    """Its first round is the first of a shot."""
    LAST = 4
    """Its last round is the last of a shot (data readout)."""
    SWEEP = 8
    """Sweep bits precede the rounds (first message of a shot)."""
    CRC = 64
    """`crc32c` is valid: CRC-32C of the whole message with that field zero."""


# Bits 16 and 32 are reserved by the design for leakage and soft blocks and are refused until they are decoded.
ROUND_FLAGS_KNOWN = int(sum(RoundFlag))


class CorrectionFlag(IntFlag):
    """Flags of a correction. They describe the rounds of this correction, not those before it."""

    LAST_OF_SHOT = 1
    LATE = 2
    """Handed over after `deadline_ns`; by how much: `published_ns - deadline_ns`."""
    LOSSY = 4
    """Rounds that it looked at never came."""
    DEGRADED = 8
    """A guess: rounds were held, or what was lost could not be made up for."""
    BURST = 16
    """Reserved for bursts of errors."""
    CAUGHT_UP = 32
    """Windows had queued, so that it decided more rounds at once; accuracy as ever."""
    AMENDMENT = 64
    """These rounds were held before, and have now been decoded: `flips` is what the held correction lacked."""
    OPEN_PAST = 128
    """Decoded without knowing the rounds before it."""


class Rung(IntEnum):
    """The way a window was decoded."""

    HOLD = 0
    """No decoding: the flips are zero and the correction is degraded."""
    MATCH = 1
    CORRELATED_MATCH = 2
    UNION_FIND = 3
    """A decoder with a hard bound on its time; less accurate."""
    PREDECODED_MATCH = 4
    """A network took the easy part out; what it left was matched."""
    PREDECODED_CORRELATED_MATCH = 5
    SOFT_MATCH = 6
    """All events were matched, with weights that a network gave the edges."""


class Reason(IntEnum):
    """Why that rung."""

    CONFIGURED = 0
    SHOT_TRUNCATED = 1
    """The shot ended, or another began, before its last round came."""
    GAP = 2
    """Its rounds never came, and are too many, or of a kind, that cannot be filled."""
    NO_MATCHING = 3
    """The events of this window cannot be paired: lost information, or a feed that is not of this plan."""
    NO_WINDOW = 4
    """The plan has no window that ends a shot of this length."""
    DEADLINE = 5
    """Every rung above it was predicted to come too late."""
    BACKLOG = 6
    """Too many rounds waited: see `[ladder] backlog_rounds`."""
    ENGINE = 7
    """The network was late, failed, or is missing: its rounds went on without it."""


class FrameStatus(IntEnum):
    """Whether the Pauli frame can be trusted."""

    CLEAN = 0
    TAINTED = 1
    """A guess went into it, at the round `tainted_since`: until it is amended, the shot ends, or a reset."""


ROUNDS_HEADER = np.dtype(
    [
        ("magic", "<u4"),
        ("function_id", "<u4"),
        ("arg_len", "<u4"),
        ("request_id", "<u4"),
        ("ptp_timestamp", "<u8"),
        ("version", "<u2"),
        ("flags", "<u2"),
        ("patch_id", "<u4"),
        ("sequence", "<u8"),
        ("shot_id", "<u8"),
        ("first_round", "<u8"),
        ("sent_ns", "<u8"),
        ("num_rounds", "<u2"),
        ("source_epoch", "<u2"),
        ("bits_per_round", "<u4"),
        ("crc32c", "<u4"),
        ("plan_tag", "<u4"),
    ]
)
ROUNDS_HEADER_BYTES = 80
RPC_HEADER_BYTES = 24
assert ROUNDS_HEADER.itemsize == ROUNDS_HEADER_BYTES
assert ROUNDS_HEADER.fields is not None
assert ROUNDS_HEADER.fields["version"][1] == RPC_HEADER_BYTES

CORRECTION = np.dtype(
    [
        ("magic", "<u4"),
        ("status", "<i4"),
        ("result_len", "<u4"),
        ("request_id", "<u4"),
        ("ptp_timestamp", "<u8"),
        ("version", "<u2"),
        ("flags", "<u2"),
        ("patch_id", "<u4"),
        ("plan_tag", "<u4"),
        ("rung", "u1"),
        ("reason", "u1"),
        ("num_observables", "<u2"),
        ("shot_id", "<u8"),
        ("window_index", "<u8"),
        ("first_round", "<u8"),
        ("num_rounds", "<u4"),
        ("frame_status", "<u4"),
        ("last_round_needed", "<u8"),
        ("tainted_since", "<u8"),
        ("sent_ns", "<u8"),
        ("received_ns", "<u8"),
        ("deadline_ns", "<u8"),
        ("published_ns", "<u8"),
        ("confidence", "<f4"),
        ("rounds_lost", "<u4"),
        ("flips", "<u8"),
        ("frame", "<u8"),
    ]
)
CORRECTION_BYTES = 144
OBSERVABLES_MAX = 64
assert CORRECTION.itemsize == CORRECTION_BYTES

CRC_OFFSET_ROUNDS = 72
assert ROUNDS_HEADER.fields["crc32c"][1] == CRC_OFFSET_ROUNDS

MESSAGE_BYTES_MAX = 1 << 16
ROUNDS_PER_MESSAGE_MAX = 1024


def padded(num_bytes: int) -> int:
    """`num_bytes` rounded up to whole 64-bit words."""
    return 8 * words_for_bytes(num_bytes)


def rounds_message_bytes(num_rounds: int, bits_per_round: int, num_sweep_bits: int = 0) -> int:
    """Size of a rounds message in bytes."""
    sweep = padded(bytes_for_bits(num_sweep_bits))
    return ROUNDS_HEADER_BYTES + sweep + padded(num_rounds * bytes_for_bits(bits_per_round))


def parse_correction(message: bytes) -> np.void:
    """Read one correction.

    Args:
        message: The bytes of one message, whole.

    Returns:
        A record of dtype `CORRECTION`.

    Raises:
        ValueError: It is not a correction of wire version 1, and why.
    """
    if len(message) != CORRECTION_BYTES:
        raise ValueError(f"{len(message)} bytes, but a correction of version {VERSION} has {CORRECTION_BYTES}")
    record: np.void = np.frombuffer(message, CORRECTION, count=1)[0]
    if record["magic"] != RESPONSE_MAGIC or record["version"] != VERSION:
        raise ValueError(
            f"magic {int(record['magic']):#x} version {record['version']} is not a correction of version {VERSION}"
        )
    return record
