"""Whatever arrives is counted under one cause, and the next good message is decoded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rtqec.plan import Plan
from rtqec.windowed import WindowedDecoder
from rtqec.wire import MESSAGE_BYTES_MAX, ROUND_FLAGS_KNOWN, ROUNDS_HEADER, RoundFlag
from tests.harness import Bench, BenchMaker, Piece, Speaker, check_cover, flips_of_shot, with_crc, with_header, word

HEADER_BYTES = ROUNDS_HEADER.itemsize
FIRST = int(RoundFlag.FIRST)
UNKNOWN_FLAGS = [1 << bit for bit in range(16) if not ROUND_FLAGS_KNOWN >> bit & 1]

# Name: (how a good message of round 3 is spoilt, cause, whether the patch is known by then).
SPOILT: dict[str, tuple[Callable[[bytes], bytes], str, bool]] = {
    "empty": (lambda _: b"", "bad_size", False),
    "one byte": (lambda _: b"R", "bad_size", False),
    "no whole words": (lambda m: m + b"\0", "bad_size", False),
    "oversize": (lambda m: m + bytes(MESSAGE_BYTES_MAX), "bad_size", False),
    "as large as the buffer": (lambda m: m + bytes(MESSAGE_BYTES_MAX - len(m)), "bad_size", False),
    "magic of a response": (lambda m: with_header(m, magic=0x43555153), "bad_magic", False),
    "magic zero": (lambda m: with_header(m, magic=0), "bad_magic", False),
    "function of CUDA-Q": (lambda m: with_header(m, function_id=0x7ED8BE82), "bad_magic", False),
    "version 0": (lambda m: with_header(m, version=0), "bad_version", False),
    "version 2": (lambda m: with_header(m, version=2), "bad_version", False),
    "short arg_len": (lambda m: with_header(m, arg_len=0), "bad_size", False),
    "long arg_len": (lambda m: with_header(m, arg_len=0xFFFFFFFF), "bad_size", False),
    "another request_id": (lambda m: with_header(m, request_id=77), "bad_size", False),
    "unknown patch": (lambda m: with_header(m, patch_id=5), "unknown_patch", False),
    "patch -1": (lambda m: with_header(m, patch_id=0xFFFFFFFF), "unknown_patch", False),
    "wrong plan": (lambda m: with_header(m, plan_tag=1), "bad_plan_tag", True),
    "events for measurements": (lambda m: with_header(m, flags=int(RoundFlag.DETECTION_EVENTS)), "bad_flags", True),
    "first in the middle": (lambda m: with_header(m, flags=FIRST), "bad_flags", True),
    "sweep in the middle": (lambda m: with_header(m, flags=int(RoundFlag.SWEEP)), "bad_flags", True),
    "round 0 not first": (lambda m: with_header(m, first_round=0), "bad_flags", True),
    "last in the middle": (lambda m: with_header(m, flags=int(RoundFlag.LAST)), "bad_round", True),
    "readout not last": (lambda m: with_header(m, first_round=12), "bad_round", True),
    "beyond the shot": (lambda m: with_header(m, first_round=13), "bad_round", True),
    "round 2^62": (lambda m: with_header(m, first_round=1 << 62), "bad_round", True),
    "round 2^64 - 1": (lambda m: with_header(m, first_round=(1 << 64) - 1), "bad_round", True),
    "no rounds": (lambda m: with_header(m, num_rounds=0), "bad_round", True),
    "65535 rounds": (lambda m: with_header(m, num_rounds=65535), "bad_round", True),
    "1024 rounds": (lambda m: with_header(m, num_rounds=1024), "bad_round", True),
    "rounds that it does not carry": (lambda m: with_header(m, num_rounds=9), "bad_size", True),
    "rounds into the readout": (lambda m: with_header(m, num_rounds=10), "bad_round", True),
    "too narrow": (lambda m: with_header(m, bits_per_round=7), "bad_width", True),
    "width zero": (lambda m: with_header(m, bits_per_round=0), "bad_width", True),
    "width 2^32 - 1": (lambda m: with_header(m, bits_per_round=0xFFFFFFFF), "bad_width", True),
    "payload too long": (lambda m: with_header(m + bytes(8), arg_len=len(m) - 16), "bad_size", True),
    "bad crc": (lambda m: with_header(with_crc(m), crc32c=1), "bad_crc", True),
    "crc over other bytes": (lambda m: with_crc(m)[:-1] + bytes([m[-1] ^ 1]), "bad_crc", True),
    "crc over another header": (lambda m: with_header(with_crc(m), shot_id=9), "bad_crc", True),
} | {
    f"flag {flag}": (lambda m, flag=flag: with_header(m, flags=flag), "bad_flags", True) for flag in UNKNOWN_FLAGS
}  # fmt: skip


def check_alive(bench: Bench, plan: Plan, rest: list[bytes], shot: np.ndarray, shot_id: int) -> None:
    """The rest of a shot, and all of it, is decoded as if nothing had been."""
    piece = Piece.of(plan)
    bench.ingest(*rest)
    corrections = bench.carry()
    check_cover(corrections)
    corrections = corrections[corrections["shot_id"] == shot_id]
    expected = WindowedDecoder(plan)(piece.layers_b8(shot[np.newaxis]))[0]
    assert flips_of_shot(corrections, shot_id) == word(expected)
    assert not corrections["flags"][:-1].any()
    assert corrections["num_rounds"].sum() == plan.num_rounds


@pytest.mark.parametrize("name", SPOILT)
def test_a_bad_message_is_counted_once_and_the_next_good_one_decoded(bench_d3: Bench, plan_d3: Plan, name: str) -> None:
    """A bad message in the middle of a shot adds 1 to one cause, places nothing, and changes no correction."""
    spoil, cause, patch_known = SPOILT[name]
    shot = Piece.of(plan_d3).sample(1, seed=2)[0]
    speaker = Speaker(plan_d3)
    messages = speaker.shot(Piece.of(plan_d3).blocks(shot))
    bench_d3.ingest(*messages[:3])
    before, placed = bench_d3.feed_counts(), bench_d3.placed()
    bench_d3.ingest(spoil(messages[3]))
    after = bench_d3.feed_counts()
    if patch_known:
        assert after == before | {"messages": before["messages"] + 1, cause: 1}
        assert bench_d3.feed_counts(-1) == {}
    else:
        assert after == before
        assert bench_d3.feed_counts(-1) == {cause: 1}
    assert bench_d3.placed() == placed
    check_alive(bench_d3, plan_d3, messages[3:], shot, 0)


@pytest.mark.parametrize("crc", [False, True], ids=["plain", "crc"])
def test_a_message_cut_anywhere_is_refused(bench_d3: Bench, plan_d3: Plan, crc: bool) -> None:
    """A message truncated at any length is of a bad size, and the whole one is taken afterwards."""
    shot = Piece.of(plan_d3).sample(1, seed=4)[0]
    speaker = Speaker(plan_d3, crc=crc)
    messages = speaker.shot(Piece.of(plan_d3).blocks(shot))
    bench_d3.ingest(*(messages[0][:length] for length in range(len(messages[0]))))
    assert bench_d3.feed_counts(-1) == {"bad_size": len(messages[0])}
    assert bench_d3.feed_counts() == {}
    check_alive(bench_d3, plan_d3, messages, shot, 0)


def test_garbage_is_refused(bench_d3: Bench, plan_d3: Plan) -> None:
    """Random bytes, of any length and behind a good first word, are each counted once and place nothing."""
    rng = np.random.default_rng(17)
    shot = Piece.of(plan_d3).sample(1, seed=5)[0]
    speaker = Speaker(plan_d3)
    messages = speaker.shot(Piece.of(plan_d3).blocks(shot))
    garbage = [rng.bytes(int(length)) for length in rng.integers(0, 400, 300)]
    garbage += [messages[0][: 8 * words] + rng.bytes(88 - 8 * words) for words in range(1, 9) for _ in range(40)]
    bench_d3.ingest(*garbage)
    lane, patch = bench_d3.feed_counts(-1), bench_d3.feed_counts()
    assert sum(lane.values()) + patch.get("messages", 0) == len(garbage)
    assert sum(value for cause, value in patch.items() if cause != "messages") == patch.get("messages", 0)
    assert bench_d3.placed() == 0
    check_alive(bench_d3, plan_d3, messages, shot, 0)


def test_every_single_bit_flip_is_caught_by_the_checksum(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """With a checksum required, a message with any one bit flipped is refused."""
    bench = make_bench(plan_d3, require_crc=True)
    shot = Piece.of(plan_d3).sample(1, seed=6)[0]
    speaker = Speaker(plan_d3, crc=True)
    messages = speaker.shot(Piece.of(plan_d3).blocks(shot))
    good = np.frombuffer(messages[0], np.uint8)
    for bit in range(8 * len(good)):
        spoilt = good.copy()
        spoilt[bit // 8] ^= 1 << bit % 8
        bench.ingest(spoilt.tobytes())
    lane, patch = bench.feed_counts(-1), bench.feed_counts()
    assert sum(lane.values()) + patch["messages"] == 8 * len(good)
    assert bench.placed() == 0
    assert "rounds" not in patch
    check_alive(bench, plan_d3, messages, shot, 0)


def test_a_missing_checksum_is_refused_where_one_is_required(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """`require_crc` refuses a message that has none, and takes the same one with it."""
    bench = make_bench(plan_d3, require_crc=True)
    shot = Piece.of(plan_d3).sample(1, seed=6)[0]
    speaker = Speaker(plan_d3)
    messages = speaker.shot(Piece.of(plan_d3).blocks(shot))
    bench.ingest(messages[0])
    assert bench.feed_counts() == {"messages": 1, "bad_crc": 1}
    check_alive(bench, plan_d3, [with_crc(m) for m in messages], shot, 0)


def test_padding_cannot_say_anything(bench_d3: Bench, plan_d3: Plan) -> None:
    """Ones in the pad bits and pad bytes of a round do not change what it folds to."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shot = piece.sample(1, seed=8)[0]
    messages = speaker.shot(piece.blocks(shot))
    readout = bytearray(messages[-1])
    readout[HEADER_BYTES + 1] |= 0xFE  # 9 bits, so that 7 of its second byte are padding
    readout[HEADER_BYTES + 2 :] = b"\xff" * (len(readout) - HEADER_BYTES - 2)
    check_alive(bench_d3, plan_d3, [*messages[:-1], bytes(readout)], shot, 0)


def test_messages_through_a_socket_oversize_and_in_parts(bench_d3: Bench, plan_d3: Plan) -> None:
    """Oversize messages and the parts of a multipart one are each one message; a good shot after them is decoded."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shot = piece.sample(1, seed=9)[0]
    messages = speaker.shot(piece.blocks(shot))
    bench_d3.controller.send(messages[0] + bytes(2 * MESSAGE_BYTES_MAX))
    bench_d3.controller.send_multipart([b"", b"junk", messages[0][:24]])
    bench_d3.controller.send(b"")
    assert bench_d3.ingest_waiting() == 5
    assert bench_d3.feed_counts(-1) == {"bad_size": 5}
    for message in messages:
        bench_d3.controller.send(message)
    assert bench_d3.ingest_waiting() == len(messages)
    check_alive(bench_d3, plan_d3, [], shot, 0)


def test_a_leap_of_the_sequence_does_not_silence_the_patch(bench_d3: Bench, plan_d3: Plan) -> None:
    """After one message with a far too large sequence number, later shots are decoded."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(2, seed=10)
    messages = speaker.shot(piece.blocks(shots[0]))
    bench_d3.ingest(*messages[:3], with_header(messages[3], sequence=messages[3][32] + (1 << 40)), *messages[4:])
    bench_d3.carry()
    check_alive(bench_d3, plan_d3, speaker.shot(piece.blocks(shots[1]), 1), shots[1], 1)


def test_a_duplicate_and_a_late_message_are_dropped(bench_d3: Bench, plan_d3: Plan) -> None:
    """A message that came before is a duplicate, one whose place was given up is late; neither changes anything."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(2, seed=13)
    messages = speaker.shot(piece.blocks(shots[0]))
    bench_d3.ingest(*messages[:2], *messages[3:5], messages[4], messages[1], messages[2])
    counts = bench_d3.feed_counts()
    assert (counts["duplicate"], counts["late"], counts["messages_missing"]) == (2, 1, 1)
    assert bench_d3.placed() == 5
    bench_d3.ingest(*messages[5:])
    bench_d3.carry()
    check_alive(bench_d3, plan_d3, speaker.shot(piece.blocks(shots[1]), 1), shots[1], 1)


def test_patches_do_not_hear_each_other(make_bench: BenchMaker, plan_d3: Plan, plan_d5: Plan) -> None:
    """Garbage for one patch leaves the counters and corrections of its neighbour alone."""
    bench = make_bench(plan_d3, plan_d5)
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shot = piece.sample(1, seed=14)[0]
    messages = speaker.shot(piece.blocks(shot))
    for message in messages:
        bench.ingest(with_header(message, patch_id=1))
    assert bench.feed_counts(1) == {"messages": len(messages), "bad_plan_tag": len(messages)}
    assert bench.feed_counts(0) == {}
    check_alive(bench, plan_d3, messages, shot, 0)
