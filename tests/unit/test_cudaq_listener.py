"""The listener for CUDA-Q programs: who is answered, when it is decoded, and what is counted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import stim

from rtqec.cudaq import frames
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.frames import Status, read_response
from rtqec.cudaq.sessions import Sessions
from rtqec.errors import ConfigError
from rtqec.kernels.records import DRAIN, OPEN_SHOTS
from rtqec.plan import Plan, compile_plan
from rtqec.wire import CorrectionFlag, Reason, Rung
from tests.cudaq import LocalListener, OpenListener, closed_decoder, compiled, flips_of, identity_decoder, opened
from tests.harness import Piece, make_config, make_plan, write_circuit
from tests.unit.test_cudaq_frames import REQUEST, RESPONSE


@pytest.fixture
def open_listener(tmp_path: Path) -> Iterator[OpenListener]:
    """Open doors that are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda decoders, **options: stack.enter_context(opened(LocalListener(tmp_path, decoders, **options)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Distance 3, 13 rounds, windows of 3 + 3."""
    return make_plan(ladder__fallbacks=())


def enqueue_shot(local: LocalListener, bits: np.ndarray, decoder: int = 0, piece: int = 8) -> None:
    """All measurements of a shot; every answer is OK."""
    for start in range(0, len(bits), piece):
        request = frames.enqueue_syndromes(decoder, bits[start : start + piece], local.next_id())
        assert local.ask(request, decoder).status == Status.OK


def corrections(
    local: LocalListener, decoder: int = 0, num_observables: int = 1, reset: bool = True
) -> frames.Response:
    return local.ask(frames.get_corrections(decoder, num_observables, local.next_id(), reset), decoder)


@pytest.mark.parametrize("slot_bytes", [0, 256])
def test_the_worked_example(open_listener: OpenListener, slot_bytes: int) -> None:
    """The request of CUDA-Q's documents, padded or not, is answered byte for byte, in a slot filled up with zeros."""
    local = open_listener({1: compiled(identity_decoder())})
    assert local.ask(frames.enqueue_syndromes(1, [1, 0, 1], 6), 1).status == Status.OK
    local.send(frames.padded(REQUEST, slot_bytes), 1)
    assert local.receive(1) == frames.padded(RESPONSE)


def test_windows_are_decoded_before_the_shot_is_complete(open_listener: OpenListener, plan: Plan) -> None:
    """A window is decoded when its last measurement has come, not when that of the shot has."""
    local = open_listener({0: plan})
    shot = Piece.of(plan).sample(1, seed=1)[0]
    committed = []
    for start in range(0, 12 * 8, 8):
        local.ask(frames.enqueue_syndromes(0, shot[start : start + 8], local.next_id()))
        committed.append(local.count("rounds_committed", 0))
    assert committed == [0] * 5 + [3] * 3 + [6] * 3 + [9]
    assert corrections(local).status == Status.NOT_READY
    local.ask(frames.enqueue_syndromes(0, shot[96:], local.next_id()))
    assert local.count("rounds_committed", 0) == 13
    assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, shot)
    assert local.count("windows", 0) == local.count("corrections_sent", 0) == 4
    assert local.count("journal_drops", 0) == 0


@pytest.mark.parametrize("piece", [1, 5, 8, 64, 105])
def test_measurements_come_in_pieces_of_any_size(open_listener: OpenListener, plan: Plan, piece: int) -> None:
    """However a shot is cut into requests, its corrections are those of the slow windows."""
    local = open_listener({0: plan})
    for shot in Piece.of(plan).sample(12, seed=piece):
        enqueue_shot(local, shot, piece=piece)
        assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, shot)


def test_blocks_that_are_wider_than_a_datagram(open_listener: OpenListener) -> None:
    """A shot of one block of 5000 measurements, in pieces that end within bytes."""
    random = np.random.default_rng(3)
    tables = tuple(tuple(sorted(random.choice(5000, 7, replace=False).tolist())) for _ in range(8))
    dem = stim.DetectorErrorModel("\n".join(f"error(0.1) D{k} L{k}" for k in range(8)))
    decoder = CudaqDecoder(dem, tables, 8)
    local = open_listener({0: compiled(decoder)})
    for _ in range(5):
        shot = random.random(decoder.num_measurements) < 0.5
        enqueue_shot(local, shot, piece=int(random.integers(100, 1600)))
        expected = [bool(sum(shot[list(measurements)]) % 2) for measurements in tables]
        assert corrections(local, num_observables=8).bits(8).tolist() == expected


@pytest.mark.parametrize("num_decoders", [1, 2])
def test_a_lane_may_look_without_sleeping(open_listener: OpenListener, plan: Plan, num_decoders: int) -> None:
    """With `spin_us`, and one socket or several, requests are served as without."""
    local = open_listener(dict.fromkeys(range(num_decoders), plan), spin_us=20.0)
    for shot in Piece.of(plan).sample(5, seed=6):
        enqueue_shot(local, shot)
        assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, shot)


def test_ipv6_is_served(open_listener: OpenListener) -> None:
    """The loopback has two addresses."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    local = open_listener({1: compiled(identity_decoder())}, address="::1")
    enqueue_shot(local, np.array([0, 0, 1]), 1)
    assert corrections(local, 1, 3).bits(3).tolist() == [False, False, True]


def test_who_asks_is_answered(open_listener: OpenListener) -> None:
    """Two programs at one port: each hears the answers to its own requests, in order."""
    local = open_listener({1: compiled(identity_decoder())})
    one, other = local.client(1), local.client(1)
    with one, other:
        for k in range(1, 4):
            one.send(frames.reset_decoder(1, k))
            other.send(frames.padded(frames.get_corrections(1, 3, 100 + k)))
        answers = [[read_response(client.recv(512)) for _ in range(3)] for client in (one, other)]
    assert [(a.request_id, a.status) for a in answers[0]] == [(k, Status.OK) for k in (1, 2, 3)]
    assert [(a.request_id, a.status) for a in answers[1]] == [(k, Status.NOT_READY) for k in (101, 102, 103)]


def test_decoders_do_not_mix(open_listener: OpenListener, plan: Plan) -> None:
    """Shots of two decoders, their requests interleaved: each has its own corrections, and its own counters."""
    decoders = {4: plan, 2: compiled(identity_decoder())}
    local = open_listener(decoders)
    shot = Piece.of(plan).sample(1, seed=9)[0]
    for start in range(0, len(shot), 8):
        local.ask(frames.enqueue_syndromes(4, shot[start : start + 8], local.next_id()), 4)
        local.ask(frames.enqueue_syndromes(2, [start % 3 == 0], local.next_id()), 2)
    assert int.from_bytes(corrections(local, 4).result, "little") == flips_of(plan, shot)
    assert (local.count("shots", 4), local.count("messages", 4)) == (1, 15)
    assert (local.count("shots", 2), local.count("messages", 2)) == (4, 14)
    assert local.count("answered_ok", 4) == 15


def test_gaps_in_request_ids_are_counted(open_listener: OpenListener) -> None:
    """Requests that never came: by their ids, per source; one that begins anew, or leaps, has lost nothing."""
    local = open_listener({1: compiled(identity_decoder())})
    for request_id in (5, 6, 9, 10, 3, 4, 1 << 30, (1 << 30) + 2):
        local.ask(frames.reset_decoder(1, request_id), 1)
    assert local.count("messages_missing", 1) == 2 + 1
    with local.client(1) as other:
        other.send(frames.reset_decoder(1, 77))
        assert read_response(other.recv(512)).request_id == 77
    assert local.count("messages_missing", 1) == 3
    assert corrections(local, 1, 3).status == Status.NOT_READY


def test_gaps_are_drops_where_that_is_accepted(open_listener: OpenListener) -> None:
    """With `gaps_are_drops` a missing request makes the shot unreadable, until the decoder is reset."""
    local = open_listener({1: compiled(identity_decoder())}, gaps_are_drops=True)
    for request_id, status in ((1, Status.OK), (3, Status.OK)):
        assert local.ask(frames.enqueue_syndromes(1, [1], request_id), 1).status == status
    assert local.ask(frames.get_corrections(1, 3, 4), 1).status == Status.SYNDROMES_DROPPED
    assert local.ask(frames.reset_decoder(1, 5), 1).status == Status.OK
    assert local.ask(frames.enqueue_syndromes(1, [1, 1, 0], 6), 1).status == Status.OK
    assert local.ask(frames.get_corrections(1, 3, 7), 1).bits(3).tolist() == [True, True, False]


def test_a_late_decoding_is_answered_with_the_fallback(open_listener: OpenListener) -> None:
    """Past its deadline a shot is decoded by the last step of the ladder, answered OK, and counted."""
    plan = make_plan(ladder__fallbacks=("union_find",))
    local = open_listener({0: plan}, budget_us=1e-3, fallbacks=("union_find",))
    shot = Piece.of(plan).sample(1, seed=4)[0]
    enqueue_shot(local, shot)
    newest = local.telemetry.corrections_of(0, 0, 100)
    assert set(newest["rung"].tolist()) == {Rung.UNION_FIND}
    assert set(newest["reason"].tolist()) == {Reason.DEADLINE}
    assert (newest["flags"] & CorrectionFlag.LATE).all()
    answer = corrections(local)
    assert (answer.status, int.from_bytes(answer.result, "little")) == (Status.OK, int(newest["frame"][-1]))
    assert local.count("corrections_late", 0) == local.count("stepped_down", 0) == len(newest) == 4


def test_what_is_held_is_answered_as_amended(open_listener: OpenListener) -> None:
    """With `hold` as the last step rounds are held and amended before the request is answered: nothing is guessed."""
    plan = make_plan(ladder__fallbacks=("hold",))
    local = open_listener({0: plan}, budget_us=1e-3, fallbacks=("hold",))
    for shot in Piece.of(plan).sample(6, seed=11):
        enqueue_shot(local, shot)
        assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, shot)
    assert local.count("rounds_held", 0) == local.count("rounds_amended", 0) == 6 * 13


def test_late_is_busy_where_that_is_accepted(open_listener: OpenListener) -> None:
    """With `late_is_busy` a late shot is BUSY once; whoever asks again has its corrections."""
    local = open_listener({1: compiled(identity_decoder())}, budget_us=1e-3, late_is_busy=True)
    local.ask(frames.enqueue_syndromes(1, [0, 1, 0], local.next_id()), 1)
    assert corrections(local, 1, 3).status == Status.BUSY
    assert corrections(local, 1, 3).bits(3).tolist() == [False, True, False]


def test_events_that_cannot_be_paired_are_an_error(open_listener: OpenListener) -> None:
    """One event in a graph without a boundary: enqueue is OK, the question is an error, until a reset."""
    local = open_listener({0: compiled(closed_decoder())})
    enqueue_shot(local, np.array([1, 0, 0, 0]))
    assert corrections(local).status == Status.INTERNAL_ERROR
    assert (local.count("sessions_failed", 0), local.count("unexplained", 0)) == (1, 1)
    enqueue_shot(local, np.array([1, 1, 0, 0]))
    assert corrections(local).status == Status.INTERNAL_ERROR
    local.ask(frames.reset_decoder(0, local.next_id()))
    enqueue_shot(local, np.array([1, 1, 0, 0]))
    assert corrections(local).bits(1).tolist() == [True]
    assert local.count("sessions_failed", 0) == 1


def test_a_reset_in_the_middle_of_a_shot(open_listener: OpenListener, plan: Plan) -> None:
    """What had come of the shot is closed and counted, and the next one is decoded from its first measurement."""
    local = open_listener({0: plan})
    first, second = Piece.of(plan).sample(2, seed=8)
    enqueue_shot(local, first[:50])
    local.ask(frames.reset_decoder(0, local.next_id()))
    assert local.count("shots_truncated", 0) == 1
    enqueue_shot(local, second)
    assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, second)


def test_draining_ends_what_is_open(open_listener: OpenListener, plan: Plan) -> None:
    """A shot that is open may end and be read; one that would begin is refused as an error, and counted."""
    local = open_listener({0: plan, 1: compiled(identity_decoder())})
    shot = Piece.of(plan).sample(1, seed=2)[0]
    enqueue_shot(local, shot[:20])
    local.ring.control[DRAIN] = 1
    assert local.ask(frames.enqueue_syndromes(1, [1, 1, 1], local.next_id()), 1).status == Status.OK
    assert corrections(local, 1, 3).status == Status.INTERNAL_ERROR
    assert local.count("drained", 1) == 1
    enqueue_shot(local, shot[20:])
    local.answer_to(b"")  # Behind its answer, what was said of the one before is true.
    assert local.ring.control[OPEN_SHOTS] == 2
    assert int.from_bytes(corrections(local).result, "little") == flips_of(plan, shot)
    local.answer_to(b"")
    assert local.ring.control[OPEN_SHOTS] == 1


def test_stopping_closes_open_shots(tmp_path: Path, plan: Plan) -> None:
    """What was open when the lane stops is held, and the journal says so."""
    with opened(LocalListener(tmp_path, {0: plan})) as local:
        enqueue_shot(local, Piece.of(plan).sample(1, seed=2)[0][:20])
    while local._pipeline.step():
        pass
    newest = local.telemetry.corrections_of(0, 0, 10)[-1]
    assert (newest["rung"], newest["reason"]) == (Rung.HOLD, Reason.SHOT_TRUNCATED)
    assert local.count("shots_truncated", 0) == 1


def test_a_lane_that_takes_over_knows_what_is_gone() -> None:
    """Between shots nothing is lost with a lane; after an open one, or after another process, only a reset helps."""
    plan = compiled(identity_decoder())
    written = np.array([5])
    sessions = Sessions([plan], [0])
    assert sessions.take_up(False, np.array([0]), [0]) == []
    sessions.records["corrections"] = 3
    assert sessions.take_up(True, written, [4]) == []
    assert (sessions.records["corrections"], sessions.records["shot_id"], sessions.records["collected"]) == (3, 4, 5)
    sessions.records["accepted"] = 2
    assert sessions.take_up(True, written, [4]) == [0]
    assert Sessions([plan], [0]).take_up(True, written, [4]) == [0]


def test_endless_plans_are_refused() -> None:
    """CUDA-Q's shots end: the message names the key, the reason and the remedy."""
    with pytest.raises(
        ConfigError, match=r"\[plan\] of patch 3 has rounds = \"endless\".*\n.*do not say where a shot ends"
    ):
        Sessions([make_plan(plan__rounds="endless")], [3])


def test_sweep_bits_are_refused(tmp_path: Path) -> None:
    """No request carries them."""
    circuit = "CX sweep[0] 0\nX_ERROR(0.1) 0\nM 0\nDETECTOR(0) rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"
    config = make_config(
        plan={"circuit": write_circuit(tmp_path, circuit), "distance": 1, "measurements_per_round": [1]}
    )
    with pytest.raises(ConfigError, match=r"needs 1 sweep bits of every shot; with \[listen.cudaq\] the bound is 0"):
        Sessions([compile_plan(config, config.patch[0])], [0])


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """The message names port, address and decoder, and what to do."""
    with opened(LocalListener(tmp_path, {0: compiled(identity_decoder())})) as local:
        port = local.listener.ports[0]
        with pytest.raises(
            ConfigError, match=rf"\[listen.cudaq\] port {port} of 127.0.0.1 cannot be bound for decoder 0"
        ):
            LocalListener(tmp_path, {0: compiled(identity_decoder())}, port=port)
