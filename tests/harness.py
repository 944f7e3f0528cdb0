"""What tests share: configurations, wire messages, shots to send, and a lane without threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import stim
import zmq
from numpy.typing import NDArray

from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import Config, FeedTable, HandOver, LadderTable
from rtqec.feed import Intake
from rtqec.kernels.ingest import ingest_message, receive
from rtqec.kernels.native import timespec
from rtqec.kernels.records import SLOT_JUMP, SLOT_TRUNCATED, STOP, FeedCounter, PathCounter
from rtqec.kernels.sequence import look_at_clocks
from rtqec.layout import words_for_bits
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan, compile_plan
from rtqec.plan.experiment import ExperimentSource
from rtqec.plan.rounds import RoundMap, round_map
from rtqec.predecode import Predecode
from rtqec.publish import Publish
from rtqec.resume import resume
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.window import Window
from rtqec.windowed import WindowedDecoder
from rtqec.wire import (
    CORRECTION,
    REQUEST_MAGIC,
    ROUNDS_FUNCTION,
    ROUNDS_HEADER,
    RPC_HEADER_BYTES,
    VERSION,
    CorrectionFlag,
    FrameStatus,
    Reason,
    RoundFlag,
    Rung,
    padded,
    parse_correction,
)

ENDPOINT = "inproc://tests"
UNBOUNDED = 1 << 40
"""A backlog that is never too long: tests ingest first, and carry then."""


def config_tables(**overrides: Any) -> dict[str, Any]:
    """The tables of a small configuration; `table__key=value` sets one key, `table=...` a whole table."""
    tables: dict[str, Any] = {
        "plan": {"generated": "surface_code:rotated_memory_z", "distance": 3, "rounds": 12, "noise": 0.01},
        "window": {"commit_rounds": 3, "buffer_rounds": 3},
        "feed": {"endpoint": ENDPOINT, "round_period_us": 1.0},
        "publish": {"endpoint": ENDPOINT},
    }
    for name, value in overrides.items():
        table, _, key = name.partition("__")
        if key:
            tables.setdefault(table, {})[key] = value
        else:
            tables[table] = value
    return tables


def make_config(**overrides: Any) -> Config:
    """A configuration for a generated circuit; see `config_tables`."""
    return Config.model_validate(config_tables(**overrides))


def make_plan(**overrides: Any) -> Plan:
    """The plan of the first patch of `make_config`; equal ones are compiled once per session. Lists as tuples."""
    return _compiled(tuple(sorted(overrides.items())))


@cache
def _compiled(overrides: tuple[tuple[str, Any], ...]) -> Plan:
    config = make_config(**{key: list(value) if isinstance(value, tuple) else value for key, value in overrides})
    return compile_plan(config, config.patch[0])


def closed_plan(folder: Path) -> Plan:
    """A plan from a DEM alone, whose graph has no boundary: two rounds of two detectors in a square."""
    path = folder / "closed.dem"
    path.write_text("""
        detector(0, 0) D0
        detector(1, 0) D1
        detector(0, 1) D2
        detector(1, 1) D3
        error(0.1) D0 D1 L0
        error(0.1) D0 D2
        error(0.1) D1 D3
        error(0.1) D2 D3
    """)
    config = make_config(plan={"dem": str(path), "distance": 2}, feed__payload="detection_events")
    return compile_plan(config, config.patch[0])


def write_circuit(folder: Path, text: str | stim.Circuit, name: str = "circuit.stim") -> str:
    """Write a circuit for `[plan] circuit`; its path."""
    path = folder / name
    path.write_text(str(text))
    return str(path)


def crc32c_slow(octets: bytes) -> int:
    """CRC-32C, one bit at a time: RFC 3720, polynomial 0x1EDC6F41 reflected."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_crc(message: bytes) -> bytes:
    """The message with a valid checksum, its flag set."""
    header = np.frombuffer(message[: ROUNDS_HEADER.itemsize], ROUNDS_HEADER).copy()
    header["flags"] |= np.uint16(RoundFlag.CRC)
    header["crc32c"] = 0
    header["crc32c"] = crc32c_slow(header.tobytes() + message[ROUNDS_HEADER.itemsize :])
    return header.tobytes() + message[ROUNDS_HEADER.itemsize :]


def with_header(message: bytes, **fields: int) -> bytes:
    """The message with some header fields replaced, and nothing else mended."""
    header = np.frombuffer(message[: ROUNDS_HEADER.itemsize], ROUNDS_HEADER).copy()
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + message[ROUNDS_HEADER.itemsize :]


def rounds_message(
    plan: Plan, rounds: NDArray[np.bool_], *, sequence: int, shot_id: int = 0, first_round: int = 0, last: bool = False,
    sweep: NDArray[np.bool_] | None = None, events: bool = False, patch_id: int = 0, epoch: int = 1, sent_ns: int = 0,
    crc: bool = False,
) -> bytes:  # fmt: skip
    """A valid rounds message, built from `wire.ROUNDS_HEADER` alone.

    Args:
        rounds: bool, shape (num_rounds, bits_per_round).
        sweep: bool, shape (num_sweep_bits,): goes with the first round.
    """
    rounds = np.atleast_2d(rounds)
    flags = RoundFlag(0)
    flags |= RoundFlag.DETECTION_EVENTS if events else 0
    flags |= RoundFlag.FIRST if first_round == 0 else 0
    flags |= RoundFlag.LAST if last else 0
    payload = b""
    if sweep is not None and first_round == 0:
        flags |= RoundFlag.SWEEP
        payload += _padded(np.packbits(sweep, bitorder="little").tobytes())
    payload += _padded(np.packbits(rounds, axis=1, bitorder="little").tobytes())
    header = np.zeros(1, ROUNDS_HEADER)
    values = {
        "magic": REQUEST_MAGIC, "function_id": ROUNDS_FUNCTION, "request_id": sequence & 0xFFFFFFFF,
        "arg_len": ROUNDS_HEADER.itemsize + len(payload) - RPC_HEADER_BYTES, "version": VERSION, "flags": flags,
        "patch_id": patch_id, "sequence": sequence, "shot_id": shot_id, "first_round": first_round, "sent_ns": sent_ns,
        "num_rounds": len(rounds), "source_epoch": epoch, "bits_per_round": rounds.shape[1], "plan_tag": plan.tag,
    }  # fmt: skip
    for name, value in values.items():
        header[name] = value
    message = header.tobytes() + payload
    return with_crc(message) if crc else message


def _padded(octets: bytes) -> bytes:
    return octets + bytes(padded(len(octets)) - len(octets))


@dataclass(frozen=True)
class Piece:
    """A piece of a plan's experiment of some number of rounds: of an endless plan, a stream that ends."""

    plan: Plan
    circuit: stim.Circuit
    rounds: RoundMap

    @classmethod
    def of(cls, plan: Plan, num_rounds: int | None = None) -> Piece:
        """The plan's own experiment, or an endless plan's with `num_rounds` rounds."""
        if num_rounds is None:
            assert plan.experiment.circuit is not None
            return cls(plan, plan.experiment.circuit, plan.rounds)
        key = (plan.digest, num_rounds)
        if key not in _PIECES:
            _PIECES[key] = _piece(plan, num_rounds)
        return _PIECES[key]

    def sample(self, num_shots: int, seed: int) -> NDArray[np.bool_]:
        """Measurements, bool, shape (num_shots, num_measurements)."""
        return np.asarray(self.circuit.compile_sampler(seed=seed).sample(num_shots), np.bool_)

    def events(self, measurements: NDArray[np.bool_], sweep: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Detection events by Stim's own converter, bool, shape (num_shots, num_detectors)."""
        convert = self.circuit.compile_m2d_converter()
        if sweep is None:
            sweep = np.zeros((len(measurements), self.circuit.num_sweep_bits), np.bool_)
        found = convert.convert(measurements=measurements, sweep_bits=sweep, append_observables=False)
        return np.asarray(found, np.bool_)

    def layers_b8(self, measurements: NDArray[np.bool_], sweep: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Detection events as layers, uint8, shape (num_shots, num_rounds * layer_bytes)."""
        return self.rounds.layers_b8(self.events(measurements, sweep))

    def blocks(self, shot: NDArray[np.bool_], events: bool = False) -> list[NDArray[np.bool_]]:
        """One shot's measurements (or, with `events`, detection events) cut into rounds."""
        if events:
            return [shot[self.rounds.detector_round == t] for t in range(self.rounds.num_rounds)]
        starts = self.rounds.block_starts.tolist()
        return [shot[a:b] for a, b in pairwise(starts)]


_PIECES: dict[tuple[str, int], Piece] = {}


def _piece(plan: Plan, num_rounds: int) -> Piece:
    own = plan.table.model_copy(update={"frames": "own"})
    experiment = ExperimentSource(make_config(), own).of_rounds(num_rounds)
    assert experiment.circuit is not None
    widths = [plan.layer(t, t == num_rounds - 1).num_measurements for t in range(num_rounds)]
    table = plan.table.model_copy(update={"measurements_per_round": widths})
    rounds = round_map(table, experiment.circuit, experiment.dem)
    return Piece(plan, experiment.circuit, replace(rounds, layout=plan.layout))


class Speaker:
    """The controller's side of one patch: cuts shots into messages and counts them."""

    def __init__(self, plan: Plan, *, patch_id: int = 0, events: bool = False, crc: bool = False) -> None:
        self.plan, self.patch_id, self.events, self.crc = plan, patch_id, events, crc
        self.sequence = 0
        self.epoch = 1

    def message(self, rounds: NDArray[np.bool_], **fields: Any) -> bytes:
        """The next message of the patch."""
        fields.setdefault("sequence", self.sequence)
        self.sequence = fields["sequence"] + 1
        return rounds_message(
            self.plan, rounds, patch_id=self.patch_id, events=self.events, crc=self.crc, epoch=self.epoch, **fields
        )

    def shot(
        self, blocks: list[NDArray[np.bool_]], shot_id: int = 0, sweep: NDArray[np.bool_] | None = None,
        rounds_per_message: int = 1,
    ) -> list[bytes]:  # fmt: skip
        """All messages of one shot; neighbours of equal width travel together."""
        messages = []
        t = 0
        while t < len(blocks):
            stop = t + 1
            while stop < min(len(blocks), t + rounds_per_message) and len(blocks[stop]) == len(blocks[t]):
                stop += 1
            messages.append(
                self.message(
                    np.array(blocks[t:stop]), shot_id=shot_id, first_round=t, last=stop == len(blocks), sweep=sweep
                )
            )
            t = stop
        return messages


Predecoder = Callable[[Streams, Ring, TelemetryBlock], Predecode]
"""Makes the stage of a bench."""


class Bench:
    """A lane without threads: bytes in, one batch after the other, corrections out.

    Every stage is the real one. The path is told to stop, so that it never waits: it carries what has closed.
    """

    def __init__(
        self, folder: Path, plans: list[Plan], *, patch_ids: list[int] | None = None, ring_rounds: int = 64,
        events: bool = False, batch_windows: int = 8, budget_us: float = 1e15, backlog_rounds: int = UNBOUNDED,
        fallbacks: tuple[str, ...] = (), catch_up: tuple[int, ...] = (2, 4), journal: int = 1024,
        telemetry: TelemetryBlock | None = None, predecoder: Predecoder | None = None,
        hand_over: HandOver = "hard", **feed: Any,
    ) -> None:  # fmt: skip
        """`telemetry`: the block of a lane that died, whose place this one takes."""
        ids = patch_ids or list(range(len(plans)))
        self.plans = plans
        self.telemetry = telemetry or TelemetryBlock.create(folder / "bench.telemetry", ids, journal)
        self.ring = Ring(plans, ring_rounds)
        ladder = LadderTable(fallbacks=list(fallbacks), catch_up=list(catch_up))
        if fallbacks or backlog_rounds != UNBOUNDED:
            # As in a lane, where both come from one [ladder]: compiled code counts by the one and reads the other.
            assert all(plan.multiples == ladder.multiples for plan in plans)
        self.streams = Streams(
            plans, ids, [budget_us] * len(plans), ladder, self.ring, self.telemetry, events,
            hand_over=hand_over if predecoder is not None else None,
        )  # fmt: skip
        self.streams.patches["backlog_rounds"] = backlog_rounds
        payload = "detection_events" if events else "measurements"
        table = FeedTable(endpoint=ENDPOINT, round_period_us=1.0, payload=payload, **feed)
        self.intake = Intake(plans, ids, self.ring, self.telemetry, table)
        self.feed_states = self.intake.states
        self._waiting = np.zeros(2, np.int64)
        self._context = zmq.Context(io_threads=1)
        out, self._corrections = self._pair("corrections")
        self.controller, self._rounds = self._pair("rounds")
        self._rounds.setsockopt(zmq.RCVTIMEO, 0)
        self.ring.warm()
        self.ring.control[STOP] = 1
        predecode = predecoder(self.streams, self.ring, self.telemetry) if predecoder is not None else None
        self.pipeline = Pipeline(
            self.streams,
            self.ring,
            Window(self.streams, self.ring, self._waiting),
            Match(self.streams.models, batch_windows, predecode.grids if predecode is not None else None),
            Commit(self.streams, self.telemetry),
            Publish(out, self.streams, self.telemetry),
            batch_windows,
            predecode,
        )
        self.streams.cost_ns.fill(1000.0)
        self._out = out
        if telemetry is not None:
            self.taken_up = resume(telemetry, self.intake, self.streams, 0)

    def _pair(self, name: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """A PUSH and a PULL socket that are connected inside this process, without limits."""
        push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        for socket in (push, pull):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
        push.bind(f"inproc://{name}")
        pull.connect(f"inproc://{name}")
        return push, pull

    def close(self) -> None:
        """End the sockets."""
        for socket in (self._out, self._corrections, self.controller, self._rounds):
            socket.close()
        self._context.term()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ingest(self, *messages: bytes, received_ns: int = 0) -> None:
        """Hand messages to the compiled ingest, as the socket would."""
        for message in messages:
            kept = message[: len(self.intake.message)]
            self.intake.message[: len(kept)] = np.frombuffer(kept, np.uint8)
            self._ingest_buffer(len(message), received_ns)

    def ingest_waiting(self) -> int:
        """Ingest what lies in the rounds socket, through the compiled receive; how many messages that were."""
        count = 0
        socket, message = self._rounds.underlying, self.intake.message
        while (size := receive(socket, message, 0, self._waiting, False, timespec())) >= 0:
            self._ingest_buffer(size, 0)
            count += 1
        return count

    def _ingest_buffer(self, size: int, received_ns: int) -> None:
        intake = self.intake
        intake.times[0] = received_ns
        ingest_message(intake.feed, intake.message, intake.words, size, intake.times, intake.events)

    def look_at_clocks(self, time_ns: int) -> bool:
        """Let ingest give up what it has waited for long enough; whether it still waits."""
        self.intake.times[0] = time_ns
        return bool(look_at_clocks(self.intake.feed, self.intake.times, self.intake.events))

    def carry(self) -> NDArray[Any]:
        """Carry every window that has closed; their corrections, in order."""
        while self.pipeline.step():
            pass
        return self.collect()

    def collect(self) -> NDArray[Any]:
        """The corrections that lie in the socket, `wire.CORRECTION`."""
        found = []
        while True:
            try:
                found.append(parse_correction(self._corrections.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return np.array(found, CORRECTION)

    def feed_counts(self, row: int = 0) -> dict[str, int]:
        """Nonzero feed counters of a patch; of row -1, those of no known patch."""
        return {c.name.lower(): int(self.telemetry.feed_counters[row, c]) for c in FeedCounter
                if self.telemetry.feed_counters[row, c]}  # fmt: skip

    def path_counts(self, row: int = 0) -> dict[str, int]:
        """Nonzero path counters of a patch."""
        return {c.name.lower(): int(self.telemetry.path_counters[row, c]) for c in PathCounter
                if self.telemetry.path_counters[row, c]}  # fmt: skip

    def placed(self, row: int = 0) -> int:
        """Slots that ingest has written for a patch."""
        return int(self.feed_states[row]["head"])

    def layers(self, shot_rounds: int, row: int = 0) -> NDArray[np.uint8]:
        """The newest `shot_rounds` layers of a patch that hold rounds, uint8, shape (shot_rounds * layer_bytes,)."""
        place = self.ring.places[row]
        mask, stride = int(place["mask"]), int(place["layer_bytes"])
        found = []
        for ordinal in range(self.placed(row) - shot_rounds, self.placed(row)):
            slot = self.ring.slots[int(place["slot_offset"]) + (ordinal & mask)]
            assert not slot["flags"] & (SLOT_TRUNCATED | SLOT_JUMP)
            start = int(place["byte_offset"]) + (ordinal & mask) * stride
            found.append(self.ring.events_b8[start : start + stride])
        return np.concatenate(found)


BenchMaker = Callable[..., Bench]

NUM_ROUNDS_MAX = (1 << 32) - 1
DROP_CAUSES = (
    "bad_size", "bad_magic", "bad_version", "bad_flags", "unknown_patch", "bad_plan_tag", "bad_width", "bad_round",
    "bad_crc", "late", "duplicate", "second_source", "ring_full",
)  # fmt: skip
"""Counters of messages of which nothing is placed; one each."""


def messages_dropped(counts: dict[str, int]) -> int:
    """Messages of a patch of which nothing was placed."""
    return sum(counts.get(cause, 0) for cause in DROP_CAUSES)


def flips_of_shot(corrections: NDArray[Any], shot_id: int) -> int:
    """XOR of the flips of a shot's corrections."""
    mine = corrections[corrections["shot_id"] == shot_id]
    return int(np.bitwise_xor.reduce(mine["flips"])) if len(mine) else 0


def word(bits: Iterable[bool]) -> int:
    """Bits as one number, LSB first."""
    return sum(1 << i for i, bit in enumerate(bits) if bit)


_DECODERS: dict[int, WindowedDecoder] = {}


def slow_decoder(plan: Plan) -> WindowedDecoder:
    """The slow windows of a plan; their matchers are made once per session."""
    return _DECODERS.setdefault(id(plan), WindowedDecoder(plan))


def expected_flips(plan: Plan, shots: NDArray[np.bool_], num_rounds: int | None = None) -> list[int]:
    """What the slow windows say of each shot; of an endless plan, of shots of `num_rounds` rounds."""
    return [word(bits) for bits in slow_decoder(plan)(Piece.of(plan, num_rounds).layers_b8(shots))]


def check_decoded(corrections: NDArray[Any], shot_id: int, flips: int) -> None:
    """One shot's corrections are whole, neither lossy nor guessed nor late nor tainted, and XOR to `flips`."""
    mine = corrections[corrections["shot_id"] == shot_id]
    assert mine["flags"].tolist() == [0] * (len(mine) - 1) + [CorrectionFlag.LAST_OF_SHOT]
    assert flips_of_shot(corrections, shot_id) == flips == int(mine[-1]["frame"])
    assert set(mine["frame_status"]) == {FrameStatus.CLEAN}


@dataclass
class ShotAnswers:
    """What corrections have said of one shot.

    Attributes:
        through: Rounds before this one are answered; not known while `beyond_count`.
        num_held: Rounds that were answered by holding although they had come.
        held: Those [start, stop) of them that may still be amended, in order.
        num_amended: Rounds amended so far.
    """

    shot_id: int
    through: int = 0
    ended: bool = False
    frame: int = 0
    beyond_count: bool = False
    num_held: int = 0
    held: list[tuple[int, int]] = field(default_factory=list)
    num_amended: int = 0

    def hold(self, start: int, stop: int) -> None:
        """Rounds were answered by holding."""
        self.num_held += stop - start
        if self.held and self.held[-1][1] == start:
            start = self.held.pop()[0]
        self.held.append((start, stop))

    def amend(self, start: int, stop: int) -> bool:
        """Take an amendment: rounds that were held, each at most once, in order. False where it is none of these."""
        for i, (held_start, held_stop) in enumerate(self.held):
            if held_start <= start < stop <= held_stop:
                rest = [(stop, held_stop)] if stop < held_stop else []
                self.held[: i + 1] = rest
                self.num_amended += stop - start
                return True
        return False


def check_cover(corrections: NDArray[Any]) -> list[ShotAnswers]:
    """What corrections, all of one patch since a shot began, must be whatever happened.

    Every round of a shot is answered once, contiguously and in order; amendments are for held rounds only, at most
    once, and in order; `window_index` counts; the frame is the XOR of all flips of the shot so far; what is held has no
    flips and is degraded; what is degraded taints the frame.

    Returns:
        The shots, as they came.
    """
    shots: list[ShotAnswers] = []
    behind = 0
    assert (np.diff(corrections["window_index"].astype(np.int64)) == 1).all()
    for correction in corrections:
        shot_id, start = int(correction["shot_id"]), int(correction["first_round"])
        stop = start + int(correction["num_rounds"])
        flags = CorrectionFlag(int(correction["flags"]))
        last = CorrectionFlag.LAST_OF_SHOT in flags
        if CorrectionFlag.AMENDMENT in flags:
            while not (shots[behind].shot_id == shot_id and shots[behind].amend(start, stop)):
                behind += 1
            shot = shots[behind]
            assert CorrectionFlag.LATE not in flags
            assert last == (shot.ended and stop == shot.through)
        else:
            if not shots or shots[-1].ended:
                shots.append(ShotAnswers(shot_id))
            shot = shots[-1]
            # A gap may have more rounds than a correction can say; then the next one says where it ends.
            through = start if shot.beyond_count else shot.through
            assert (shot.shot_id, through) == (shot_id, start)
            shot.through, shot.ended = stop, last
            shot.beyond_count = int(correction["num_rounds"]) == NUM_ROUNDS_MAX
            if correction["reason"] in (Reason.BACKLOG, Reason.DEADLINE) and correction["rung"] == Rung.HOLD:
                shot.hold(start, stop)
        if correction["rung"] == Rung.HOLD:
            assert correction["flips"] == 0
            assert CorrectionFlag.DEGRADED in flags
        if CorrectionFlag.DEGRADED in flags:
            assert correction["frame_status"] == FrameStatus.TAINTED
        shot.frame ^= int(correction["flips"])
        assert int(correction["frame"]) == shot.frame
    return shots


def words_of(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits in whole 64-bit words, LSB first."""
    packed = np.zeros(8 * max(1, words_for_bits(len(bits))), np.uint8)
    found = np.packbits(bits, bitorder="little")
    packed[: len(found)] = found
    return packed.view(np.uint64)
