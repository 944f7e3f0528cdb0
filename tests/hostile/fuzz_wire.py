"""Throw damaged messages at the compiled ingest: `python -m tests.hostile.fuzz_wire --inputs 1000000 --seed 1`.

Lanes of three patches (finite, endless, with sweep bits) with a waiting room, timeouts, a small ring and a path that
stalls now and then. Each input must be judged as `refusal` judges it, which shares nothing with the daemon but the
wire's numbers; and every 250 inputs a whole good shot of every patch must be decoded as if nothing had been.
`NUMBA_BOUNDSCHECK=1` with a `NUMBA_CACHE_DIR` of its own lets compiled code check its indices, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rtqec.kernels.records import FeedCounter
from rtqec.plan import Plan, compile_plan
from rtqec.wire import MESSAGE_BYTES_MAX, ROUNDS_FUNCTION, ROUNDS_HEADER, RoundFlag
from tests.harness import (
    Bench,
    Piece,
    Speaker,
    check_cover,
    check_decoded,
    crc32c_slow,
    make_config,
    make_plan,
    slow_decoder,
    with_crc,
    with_header,
    word,
    write_circuit,
)
from tests.unit.test_folding import SWEPT

INPUTS_PER_CHECK = 250
MS = 1_000_000
BAD = [cause for cause in FeedCounter if cause.name.startswith("BAD_") or cause is FeedCounter.UNKNOWN_PATCH]
HEADER_BYTES = 80
EVENTS, FIRST, LAST = RoundFlag.DETECTION_EVENTS, RoundFlag.FIRST, RoundFlag.LAST
SWEEP, CRC = RoundFlag.SWEEP, RoundFlag.CRC
INTERESTING = [0, 1, 2, 3, 7, 8, 9, 12, 13, 14, 31, 63, 64, 1023, 1024, 1025, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1,
               1 << 32, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]  # fmt: skip


def number(message: bytes, start: int, stop: int) -> int:
    """The field of a message in bytes [start, stop)."""
    return int.from_bytes(message[start:stop], "little")


def refusal(message: bytes, plans: list[Plan], events: bool, require_crc: bool) -> FeedCounter | None:
    """Why a message cannot be one of these patches', or None: the rules of the wire, one after the other."""
    if not HEADER_BYTES <= len(message) <= MESSAGE_BYTES_MAX or len(message) % 8:
        return FeedCounter.BAD_SIZE
    if message[:4] != b"RQUC" or number(message, 4, 8) != ROUNDS_FUNCTION:
        return FeedCounter.BAD_MAGIC
    if number(message, 24, 26) != 1:
        return FeedCounter.BAD_VERSION
    if number(message, 8, 12) != len(message) - 24 or message[12:16] != message[32:36]:
        return FeedCounter.BAD_SIZE
    patch_id, flags = number(message, 28, 32), number(message, 26, 28)
    if patch_id >= len(plans):
        return FeedCounter.UNKNOWN_PATCH
    if flags & ~int(EVENTS | FIRST | LAST | SWEEP | CRC) or bool(flags & EVENTS) != events:
        return FeedCounter.BAD_FLAGS
    if number(message, 76, 80) != plans[patch_id].tag:
        return FeedCounter.BAD_PLAN_TAG
    if flags & CRC:
        if crc32c_slow(message[:72] + bytes(4) + message[76:]) != number(message, 72, 76):
            return FeedCounter.BAD_CRC
    elif require_crc:
        return FeedCounter.BAD_CRC
    return refusal_of_rounds(message, plans[patch_id], events, flags)


def refusal_of_rounds(message: bytes, plan: Plan, events: bool, flags: int) -> FeedCounter | None:
    """Why rounds cannot be those of a plan, or None."""
    first, count, bits = number(message, 48, 56), number(message, 64, 66), number(message, 68, 72)
    if not 1 <= count <= 1024 or first >= 1 << 62 or number(message, 32, 40) >= 1 << 62:
        return FeedCounter.BAD_ROUND
    if bool(flags & FIRST) != (first == 0) or (flags & SWEEP and first):
        return FeedCounter.BAD_FLAGS
    for t in range(first, first + count):
        last = bool(flags & LAST) and t == first + count - 1
        if plan.num_rounds is not None and (t >= plan.num_rounds or last != (t == plan.num_rounds - 1)):
            return FeedCounter.BAD_ROUND
        layer = plan.layer(t, last)
        if bits != (layer.num_detectors if events else layer.num_measurements):
            return FeedCounter.BAD_WIDTH
    sweep_bytes = -(-plan.num_sweep_bits // 64) * 8 if flags & SWEEP else 0
    if len(message) != HEADER_BYTES + sweep_bytes + -(-count * -(-bits // 8) // 8) * 8:
        return FeedCounter.BAD_SIZE
    return None


@dataclass
class Source:
    """One patch's controller: an endless run of shots."""

    plan: Plan
    patch_id: int
    events: bool
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.num_rounds = 20 if self.plan.endless else None
        self.piece = Piece.of(self.plan, self.num_rounds)
        self.speaker = Speaker(self.plan, patch_id=self.patch_id, events=self.events)
        self.shots = self.piece.sample(32, seed=3)
        self.next_shot = 0
        self.coming: Iterator[bytes] = iter(())
        self.held: list[bytes] = []
        self.sent = [self.speaker.message(self.piece.blocks(self.shots[0])[0])]

    def shot(self, shot_id: int) -> tuple[list[bytes], int]:
        """The messages of a shot, and what it decodes to."""
        shot = self.shots[shot_id % len(self.shots)][np.newaxis]
        sweep = self.rng.random((1, self.plan.num_sweep_bits)) < 0.5
        blocks = self.piece.blocks((self.piece.events(shot, sweep) if self.events else shot)[0], self.events)
        messages = self.speaker.shot(
            blocks, shot_id, sweep[0] if sweep.size and not self.events else None, int(self.rng.integers(1, 4))
        )
        return messages, word(slow_decoder(self.plan)(self.piece.layers_b8(shot, sweep))[0])

    def message(self) -> bytes:
        """The next message that arrives: mostly the next of the run, now and then an earlier one again, or one that was
        overtaken by a few."""
        chance = self.rng.random()
        if self.held and (chance < 0.1 or len(self.held) > 3):
            return self.held.pop(int(self.rng.integers(0, len(self.held))))
        if chance < 0.13:
            return self.sent[int(self.rng.integers(0, len(self.sent)))]
        for message in self.coming:
            self.sent = [*self.sent[-90:], message]
            if chance < 0.9:
                return message
            if chance < 0.98:
                self.held.append(message)
        self.coming = iter(self.shot(self.next_shot)[0])
        self.next_shot += 1
        return self.sent[-1]


def damaged(message: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A message hurt in some place, or no message at all."""
    kind = int(rng.integers(0, 9))
    if kind == 0:
        return message[: int(rng.integers(0, len(message)))]
    if kind == 1:
        return message + rng.bytes(8 * int(rng.integers(1, 5)))
    if kind == 2:
        return rng.bytes(int(rng.integers(0, 300)))
    if kind == 3:
        cut = 8 * int(rng.integers(0, len(message) // 8))
        return message[:cut] + other[cut:]
    if kind <= 5:
        octets = np.frombuffer(message, np.uint8).copy()
        for _ in range(int(rng.integers(1, 4))):
            bit = int(rng.integers(0, 8 * len(octets)))
            octets[bit // 8] ^= 1 << bit % 8
        return octets.tobytes()
    name = ROUNDS_HEADER.names[int(rng.integers(0, len(ROUNDS_HEADER.names)))]
    value = INTERESTING[int(rng.integers(0, len(INTERESTING)))]
    if rng.random() < 0.5:
        at = np.frombuffer(message[:HEADER_BYTES], ROUNDS_HEADER)[name][0]
        value = int(at) + int(rng.integers(-70, 70))
    changed = with_header(message, **{name: value % (1 << 8 * ROUNDS_HEADER[name].itemsize)})
    if name == "sequence":
        changed = with_header(changed, request_id=value & 0xFFFFFFFF)
    # Half of them with a checksum that is right again: then only the meaning is wrong.
    return with_crc(changed) if rng.random() < 0.5 else changed


class Lane:
    """One lane under fire, and what became of its inputs."""

    def __init__(self, folder: Path, plans: list[Plan], seed: int, events: bool, **feed: Any) -> None:
        self.plans, self.events = plans, events
        self.require_crc = bool(feed.get("require_crc", False))
        self.rng = np.random.default_rng(seed)
        self.bench = Bench(folder, plans, events=events, ring_rounds=64, **feed)
        self.sources = [Source(plan, p, events, self.rng) for p, plan in enumerate(plans)]
        for source in self.sources:
            source.speaker.crc = self.require_crc
        self.time_ns = MS
        self.verdicts: Counter[str] = Counter()
        self.good_shots = 0

    def judge(self, message: bytes) -> None:
        """Ingest one input: refused for the one reason that `refusal` gives, or not at all."""
        counters = self.bench.telemetry.feed_counters
        before = counters[:, BAD].sum(axis=0)
        self.bench.ingest(message, received_ns=self.time_ns)
        found = np.flatnonzero(counters[:, BAD].sum(axis=0) - before)
        wanted = refusal(message, self.plans, self.events, self.require_crc)
        assert [BAD[i] for i in found] == ([] if wanted is None else [wanted]), message.hex()
        self.verdicts["accepted" if wanted is None else wanted.name.lower()] += 1

    def fire(self, num_inputs: int) -> None:
        """Some inputs; the path looks now and then."""
        rng, sources = self.rng, self.sources
        for _ in range(num_inputs):
            source, other = (sources[int(p)] for p in rng.integers(0, len(sources), 2))
            message = source.message() if rng.random() < 0.75 else source.sent[-1]
            self.judge(damaged(message, other.sent[-1], rng) if rng.random() < 0.4 else message)
            chance = rng.random()
            if chance < 0.05:
                self.time_ns += int(rng.integers(0, 3 * MS))
                self.bench.look_at_clocks(self.time_ns)
            if chance > 0.98:
                for _ in range(int(rng.integers(0, 30))):
                    self.bench.pipeline.step()

    def check(self) -> None:
        """After a silence a source of another epoch is heard, and its shot decoded; all corrections fit together."""
        bench, first = self.bench, []
        for p, source in enumerate(self.sources):
            while bench.look_at_clocks(self.time_ns):
                self.time_ns += MS
                first.append(bench.carry())
            self.time_ns += 100 * MS
            bench.look_at_clocks(self.time_ns)
            first.append(bench.carry())
            epoch = int(bench.feed_states[p]["epoch"])
            source.speaker.epoch, source.speaker.sequence = (epoch + 1) % (1 << 16), 0
            shot_id = (1 << 63) + source.next_shot
            messages, flips = source.shot(shot_id)
            source.next_shot += 1
            for message in messages:
                bench.ingest(message, received_ns=self.time_ns)
                bench.look_at_clocks(self.time_ns)
                first.append(bench.carry())
            corrections = np.concatenate(first)
            mine = corrections[corrections["patch_id"] == p]
            begins = np.flatnonzero(mine["first_round"] == 0)
            check_cover(mine[begins[0] :])
            check_decoded(mine[begins[-1] :], shot_id, flips)
            source.coming, source.held, source.sent = iter(()), [], messages
            self.good_shots += 1


def fuzz(num_inputs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Throw so many inputs at three lanes in turn.

    Returns:
        What was thrown, how each was judged, and what the lanes placed.
    """
    started = time.monotonic()
    path = write_circuit(folder, SWEPT)
    config = make_config(plan={"circuit": path, "distance": 3})
    plans = [make_plan(), make_plan(plan__rounds="endless"), compile_plan(config, config.patch[0])]
    clocks = {"round_timeout_ms": 5.0, "takeover_ms": 10.0}
    lanes = []
    kinds: list[tuple[bool, dict[str, Any]]] = [
        (False, {"reorder_depth": 8, "gap_wait_us": 500.0}), (False, {"require_crc": True}),
        (True, {"reorder_depth": 3}),
    ]  # fmt: skip
    for i, (events, options) in enumerate(kinds):
        (folder / str(i)).mkdir()
        lanes.append(Lane(folder / str(i), plans, seed + i, events, **clocks, **options))
    for start in range(0, num_inputs, INPUTS_PER_CHECK):
        lane = lanes[start // INPUTS_PER_CHECK % len(lanes)]
        lane.fire(min(INPUTS_PER_CHECK, num_inputs - start))
        lane.check()
    verdicts: Counter[str] = sum((lane.verdicts for lane in lanes), Counter())
    totals: Counter[str] = sum((Counter(lane.bench.telemetry.totals()) for lane in lanes), Counter())
    for lane in lanes:
        lane.bench.close()
    causes = ("rounds", "late", "duplicate", "reordered", "second_source", "restarts", "resyncs", "jumps", "ring_full",
              "rounds_filled", "shots_headless", "shots_truncated", "shots_timed_out", "windows")  # fmt: skip
    return {
        "inputs": sum(verdicts.values()), "seed": seed, "verdicts": dict(sorted(verdicts.items())),
        "good_shots_decoded": sum(lane.good_shots for lane in lanes), "counts": {name: totals[name] for name in causes},
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        print(json.dumps(fuzz(arguments.inputs, arguments.seed, Path(folder))))  # noqa: T201


if __name__ == "__main__":
    main()
