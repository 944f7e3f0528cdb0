"""What travels has a fixed size, place and meaning."""

from __future__ import annotations

import numpy as np
import pytest

from rtqec import wire
from rtqec.kernels import commit


@pytest.mark.parametrize(
    ("name", "identity"),
    [("enqueue_syndromes", 0x7ED8BE82), ("get_corrections", 0x882D5BA1), ("reset_decoder", 0x977A59CF)],
)
def test_function_ids_are_those_of_cudaq_realtime(name: str, identity: int) -> None:
    """FNV-1a gives the function ids that CUDA-Q Realtime publishes."""
    assert wire.fnv1a32(name) == identity


def test_sizes_and_places_are_those_of_version_1() -> None:
    """Headers are packed, whole words, and begin with CUDA-Q's 24 bytes."""
    assert (wire.ROUNDS_HEADER.itemsize, wire.CORRECTION.itemsize) == (80, 144)
    for record in (wire.ROUNDS_HEADER, wire.CORRECTION):
        assert record.itemsize % 8 == 0
        assert sum(record[name].itemsize for name in record.names) == record.itemsize
        assert [record.fields[name][1] for name in record.names[:6]] == [0, 4, 8, 12, 16, 24]
        for name in record.names:
            assert record.fields[name][1] % record[name].itemsize == 0
    places = {name: wire.ROUNDS_HEADER.fields[name][1] for name in wire.ROUNDS_HEADER.names[5:]}
    assert places == {
        "version": 24, "flags": 26, "patch_id": 28, "sequence": 32, "shot_id": 40, "first_round": 48, "sent_ns": 56,
        "num_rounds": 64, "source_epoch": 66, "bits_per_round": 68, "crc32c": 72, "plan_tag": 76,
    }  # fmt: skip
    places = {name: wire.CORRECTION.fields[name][1] for name in wire.CORRECTION.names[7:]}
    assert places == {
        "patch_id": 28, "plan_tag": 32, "rung": 36, "reason": 37, "num_observables": 38, "shot_id": 40,
        "window_index": 48, "first_round": 56, "num_rounds": 64, "frame_status": 68, "last_round_needed": 72,
        "tainted_since": 80, "sent_ns": 88, "received_ns": 96, "deadline_ns": 104, "published_ns": 112,
        "confidence": 120, "rounds_lost": 124, "flips": 128, "frame": 136,
    }  # fmt: skip
    assert commit.RESPONSE_MAGIC == wire.RESPONSE_MAGIC
    assert wire.CORRECTION_BYTES - wire.RPC_HEADER_BYTES == commit.RESULT_BYTES


def test_magic_reads_as_letters_on_the_wire() -> None:
    """The first four bytes are CUDA-Q's, in its order."""
    assert np.array(wire.REQUEST_MAGIC, "<u4").tobytes() == b"RQUC"
    assert np.array(wire.RESPONSE_MAGIC, "<u4").tobytes() == b"SQUC"


@pytest.mark.parametrize(
    ("num_rounds", "bits", "sweeps", "expected"),
    [(1, 8, 0, 88), (1, 9, 0, 88), (8, 8, 0, 88), (9, 8, 0, 96), (1, 64, 0, 88), (1, 65, 0, 96), (1, 8, 1, 96),
     (1, 8, 65, 104), (3, 0, 0, 80)],
)  # fmt: skip
def test_a_message_is_as_long_as_what_it_carries(num_rounds: int, bits: int, sweeps: int, expected: int) -> None:
    """Each optional block and the rounds together are padded to whole words."""
    assert wire.rounds_message_bytes(num_rounds, bits, sweeps) == expected


def correction(**fields: int) -> bytes:
    record = np.zeros(1, wire.CORRECTION)
    record["magic"], record["version"] = wire.RESPONSE_MAGIC, wire.VERSION
    for name, value in fields.items():
        record[name] = value
    return record.tobytes()


def test_a_correction_is_read_as_it_was_written() -> None:
    """Every field of a correction comes back."""
    rng = np.random.default_rng(3)
    record = np.frombuffer(rng.bytes(wire.CORRECTION_BYTES), wire.CORRECTION, count=1).copy()
    record["magic"], record["version"], record["confidence"] = wire.RESPONSE_MAGIC, wire.VERSION, 0.5
    found = wire.parse_correction(record.tobytes())
    assert all(found[name] == record[0][name] for name in wire.CORRECTION.names)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "0 bytes, but a correction of version 1 has 144"),
        (correction()[:-1], "143 bytes"),
        (correction() + b"\0", "145 bytes"),
        (correction(magic=wire.REQUEST_MAGIC), "magic 0x43555152"),
        (correction(version=2), "version 2 is not a correction of version 1"),
    ],
)
def test_what_is_no_correction_is_refused(message: bytes, said: str) -> None:
    """A message of another size, magic or version raises, and says which."""
    with pytest.raises(ValueError, match=said):
        wire.parse_correction(message)


def test_flags_are_single_bits_that_do_not_collide() -> None:
    """Every flag is one bit; the reserved bits of the design are not known."""
    for flags in (wire.RoundFlag, wire.CorrectionFlag):
        values = [int(flag) for flag in flags]
        assert len({*values}) == len(values)
        assert all(value & (value - 1) == 0 for value in values)
    assert not wire.ROUND_FLAGS_KNOWN & (16 | 32)
