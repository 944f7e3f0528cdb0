"""Rounds out, corrections in, as bytes; see `rtqec.wire`. No sockets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtqec.layout import bytes_for_bits
from rtqec.wire import (
    MESSAGE_BYTES_MAX,
    REQUEST_MAGIC,
    ROUNDS_FUNCTION,
    ROUNDS_HEADER,
    ROUNDS_PER_MESSAGE_MAX,
    RPC_HEADER_BYTES,
    VERSION,
    CorrectionFlag,
    FrameStatus,
    Reason,
    RoundFlag,
    Rung,
    padded,
    parse_correction,
    rounds_message_bytes,
)

_EPOCHS = 1 << 16
_CASTAGNOLI = 0x82F63B78


@dataclass(frozen=True)
class Correction:
    """What one window decided.

    Attributes:
        patch_id: The patch.
        plan_tag: The plan that made it.
        shot_id: The shot.
        window_index: Counts corrections of the patch.
        first_round: It answers `num_rounds` rounds from this one on.
        num_rounds: See there.
        flips: Observable flips of these rounds, one bit per observable, LSB first.
        frame: XOR of all flips of the shot so far.
        rung: The way it was decoded.
        reason: Why that way.
        flags: Of these rounds; `degraded`, `late` and `last_of_shot` read three of them.
        tainted_since: The round of the first guess that is in the frame; None where it is clean.
        received_ns: When the last round that it needed came, CLOCK_MONOTONIC of the daemon.
        published_ns: When it was handed to the transport.
    """

    patch_id: int
    plan_tag: int
    shot_id: int
    window_index: int
    first_round: int
    num_rounds: int
    num_observables: int
    flips: int
    frame: int
    rung: Rung
    reason: Reason
    flags: CorrectionFlag
    tainted_since: int | None
    received_ns: int
    published_ns: int

    @classmethod
    def parse(cls, message: bytes) -> Correction:
        """Read one message.

        Raises:
            ValueError: It is not a correction of this version of the wire.
        """
        record: Any = parse_correction(message)
        fields = {name: int(record[name]) for name in cls.__dataclass_fields__ if name in _NUMBERS}
        tainted = record["frame_status"] == FrameStatus.TAINTED
        return cls(
            **fields,
            rung=Rung(int(record["rung"])),
            reason=Reason(int(record["reason"])),
            flags=CorrectionFlag(int(record["flags"])),
            tainted_since=int(record["tainted_since"]) if tainted else None,
        )

    @property
    def last_of_shot(self) -> bool:
        """Whether the shot is answered."""
        return CorrectionFlag.LAST_OF_SHOT in self.flags

    @property
    def degraded(self) -> bool:
        """Whether it is a guess."""
        return CorrectionFlag.DEGRADED in self.flags

    @property
    def late(self) -> bool:
        """Whether it was handed over after its deadline."""
        return CorrectionFlag.LATE in self.flags

    @property
    def frame_bits(self) -> NDArray[np.bool_]:
        """The frame, bool, shape (num_observables,)."""
        return np.array([self.frame >> observable & 1 for observable in range(self.num_observables)], np.bool_)


_NUMBERS = frozenset(Correction.__dataclass_fields__) - {"rung", "reason", "flags", "tainted_since"}


class RoundsEncoder:
    """The messages of one patch, in order: counts messages, shots and rounds.

    Args:
        patch_id: The patch.
        plan_tag: Of the plan that the daemon runs for it.
        detection_events: Whether rounds carry detection events instead of raw measurements.
        crc: Whether messages carry a checksum (some 10 us each: it is made in Python).
        source_epoch: Tells this run of the controller from others; by default from the clock.

    Attributes:
        shot_id: The shot that the next round belongs to.
        next_round: Its number.
    """

    def __init__(
        self, patch_id: int, plan_tag: int, *, detection_events: bool = False, crc: bool = False,
        source_epoch: int | None = None,
    ) -> None:  # fmt: skip
        self.shot_id = self.next_round = 0
        self._sequence = 0
        self._crc = crc
        self._flags = RoundFlag.DETECTION_EVENTS if detection_events else RoundFlag(0)
        self._header = np.zeros(1, ROUNDS_HEADER)[0]
        self._header["magic"], self._header["function_id"] = REQUEST_MAGIC, ROUNDS_FUNCTION
        self._header["version"], self._header["patch_id"], self._header["plan_tag"] = VERSION, patch_id, plan_tag
        self._header["source_epoch"] = time.time_ns() % _EPOCHS if source_epoch is None else source_epoch

    def encode(
        self, rounds: ArrayLike, *, last: bool = False, sweep: ArrayLike | None = None, sent_ns: int | None = None
    ) -> bytes:
        """The next message.

        Args:
            rounds: Of 0 and 1, shape (bits,) for one round, (num_rounds, bits) for several of equal width.
            last: Whether the last of them is the data readout, which ends the shot.
            sweep: Sweep bits, shape (num_sweep_bits,), with the first round of a shot.
            sent_ns: When they were due, in the daemon's clock; by default now, CLOCK_MONOTONIC.

        Raises:
            ValueError: A message cannot carry them, or sweep bits come later than with the first round.
        """
        bits = np.atleast_2d(np.asarray(rounds, np.bool_))
        swept = np.asarray([] if sweep is None else sweep, np.bool_)
        if bits.ndim != 2 or not 1 <= len(bits) <= ROUNDS_PER_MESSAGE_MAX or not bits.shape[1]:
            raise ValueError(f"rounds have the shape {bits.shape}; it is (1 to {ROUNDS_PER_MESSAGE_MAX}, bits)")
        if rounds_message_bytes(len(bits), bits.shape[1], len(swept)) > MESSAGE_BYTES_MAX:
            raise ValueError(f"{len(bits)} rounds of {bits.shape[1]} bits exceed {MESSAGE_BYTES_MAX} bytes; send fewer")
        if len(swept) and self.next_round:
            raise ValueError(f"sweep bits go with round 0 of a shot, not with round {self.next_round}")
        flags = self._flags | (RoundFlag.LAST if last else 0) | (RoundFlag.SWEEP if len(swept) else 0)
        flags |= RoundFlag(0) if self.next_round else RoundFlag.FIRST
        blocks = [_packed(swept)] if len(swept) else []
        payload = b"".join([*blocks, _packed(bits)])
        header = self._header
        header["flags"], header["arg_len"] = flags, ROUNDS_HEADER.itemsize - RPC_HEADER_BYTES + len(payload)
        header["request_id"], header["sequence"] = self._sequence & 0xFFFFFFFF, self._sequence
        header["shot_id"], header["first_round"] = self.shot_id, self.next_round
        header["num_rounds"], header["bits_per_round"] = bits.shape
        header["sent_ns"] = time.monotonic_ns() if sent_ns is None else sent_ns
        header["crc32c"] = 0
        if self._crc:
            header["flags"] |= np.uint16(RoundFlag.CRC)
            header["crc32c"] = crc32c(header.tobytes() + payload)
        self._sequence += 1
        self.next_round = 0 if last else self.next_round + len(bits)
        self.shot_id += last
        return bytes(header.tobytes()) + payload


def crc32c(octets: bytes) -> int:
    """CRC-32C (RFC 3720) by a table."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for octet in octets:
        crc = table[(crc ^ octet) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = (crc >> 1) ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def _packed(bits: NDArray[np.bool_]) -> bytes:
    """Rows of bits in whole bytes, LSB first, padded to whole words together."""
    octets = np.packbits(bits, axis=-1, bitorder="little").tobytes()
    assert len(octets) == int(np.prod(bits.shape[:-1])) * bytes_for_bits(bits.shape[-1])
    return octets + bytes(padded(len(octets)) - len(octets))
