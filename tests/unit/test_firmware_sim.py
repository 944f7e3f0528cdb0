"""The simulated controller sends what Stim sampled, and sees every correction that is not as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from firmware_sim.account import PatchAccount
from firmware_sim.backlog import summarise
from firmware_sim.comparison import deviations
from firmware_sim.journal import Journal
from firmware_sim.sender import Sender
from firmware_sim.shots import (
    message_table,
    pack_detection_events,
    pack_measurements,
    pack_sweeps,
    words_from_bits,
)
from firmware_sim.sources import finite_shots
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CORRECTION, CorrectionFlag, FrameStatus, Reason, Rung
from tests.harness import Piece, make_config, word

TAG = 0xABCD


@pytest.mark.parametrize("faults", [[], [{"kind": "drop", "probability": 0.0}]], ids=["plain", "with faults"])
@pytest.mark.parametrize(("bound_ns", "late"), [(-1, 26), (1 << 60, 0)])
def test_rounds_that_left_late_are_counted(plan_d3: Plan, faults: list[Any], bound_ns: int, late: int) -> None:
    """Each round that leaves later than the bound counts once: all of them, or none."""
    sender = Sender(make_config(source__shots=2, pace__period_us=1.0, fault=faults), [plan_d3])
    assert sender.late_bound_ns == 1_000_000
    sender.late_bound_ns = bound_ns
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    pull.bind("inproc://late")
    push.connect("inproc://late")
    sender.start(push, time.monotonic_ns())
    for _ in range(26):
        pull.recv()
    sender.stop()
    for socket in (push, pull):
        socket.close(linger=0)
    context.term()
    assert sender.rounds_late == late


def test_bits_become_words() -> None:
    """Observable k of a shot is bit k of its word, up to 64."""
    bits = np.random.default_rng(1).random((20, 64)) < 0.5
    assert words_from_bits(bits).tolist() == [word(row) for row in bits]
    assert words_from_bits(np.zeros((2, 0))).tolist() == [0, 0]


@pytest.mark.parametrize("events", [False, True], ids=["measurements", "events"])
def test_rounds_are_packed_one_after_the_other(plan_d3: Plan, events: bool) -> None:
    """Each round of a packed shot is its own whole bytes, where the message table says."""
    piece = Piece.of(plan_d3)
    measurements = piece.sample(3, seed=1)
    sent = piece.events(measurements) if events else measurements
    packed = (pack_detection_events if events else pack_measurements)(plan_d3, sent)
    table = message_table(plan_d3, events, 1)
    assert table[:, 0].tolist() == list(range(13))
    assert (table[:, 2] + table[:, 3])[-1] == packed.shape[1]
    for row, shot in zip(packed, sent, strict=True):
        for (_, _, offset, size, bits), block in zip(table.tolist(), piece.blocks(shot, events), strict=True):
            found = np.unpackbits(row[offset : offset + size], bitorder="little")
            assert np.array_equal(found[:bits], block)
            assert not found[bits:].any()


@pytest.mark.parametrize("together", [1, 2, 5, 100])
def test_messages_carry_neighbours_of_equal_width(plan_d3: Plan, together: int) -> None:
    """A shot is cut into messages of at most so many rounds, each of one width, covering each round once."""
    table = message_table(plan_d3, True, together)
    assert [t for first, count, *_ in table.tolist() for t in range(first, first + count)] == list(range(13))
    assert table[:, 1].max() == min(together, 11)
    widths = [plan_d3.layer(t, t == 12).num_detectors for t in range(13)]
    for first, count, _, _, bits in table.tolist():
        assert set(widths[first : first + count]) == {bits}


@pytest.mark.parametrize(("num_bits", "num_bytes"), [(0, 0), (1, 8), (64, 8), (65, 16)])
def test_sweep_bits_are_padded_to_words(num_bits: int, num_bytes: int) -> None:
    """The sweep block is whole words, LSB first, zero-padded."""
    bits = np.random.default_rng(2).random((3, num_bits)) < 0.5
    packed = pack_sweeps(bits)
    assert packed.shape == (3, num_bytes)
    found = np.unpackbits(packed, axis=1, bitorder="little")
    assert np.array_equal(found[:, :num_bits], bits)
    assert not found[:, num_bits:].any()


def test_simulated_shots_know_their_truth(plan_d3: Plan) -> None:
    """The same seed gives the same shots, with Stim's own events and observable flips beside them."""
    config = make_config(source__shots=50)
    shots, again, other = (finite_shots(config, plan_d3, seed) for seed in (5, 5, 6))
    piece = Piece.of(plan_d3)
    measurements = piece.sample(50, seed=5)
    assert np.array_equal(shots.rounds_b8, pack_measurements(plan_d3, measurements))
    assert np.array_equal(shots.detection_events_b8, np.packbits(piece.events(measurements), axis=1, bitorder="little"))
    _, flips = piece.circuit.compile_m2d_converter().convert(measurements=measurements, separate_observables=True)
    assert shots.observable_flips is not None
    assert shots.observable_flips.tolist() == flips[:, 0].astype(int).tolist()
    assert np.array_equal(shots.rounds_b8, again.rounds_b8)
    assert not np.array_equal(shots.rounds_b8, other.rounds_b8)
    assert (shots.num_shots, shots.num_rounds) == (50, 13)


def b8_config(folder: Path, **source: Any) -> Any:
    return make_config(
        feed__payload="detection_events", source={"kind": "b8", **{k: str(v) for k, v in source.items()}}
    )


def test_shots_are_read_from_a_b8_file(tmp_path: Path, plan_d3: Plan) -> None:
    """Detection events and observables of plain files come back as they were written."""
    piece = Piece.of(plan_d3)
    events = piece.events(piece.sample(9, seed=8))
    packed = np.packbits(events, axis=1, bitorder="little")
    packed.tofile(tmp_path / "events.b8")
    (tmp_path / "flips.01").write_text("0\n1\n" * 4 + "1\n")
    config = b8_config(tmp_path, detection_events=tmp_path / "events.b8", observables=tmp_path / "flips.01")
    shots = finite_shots(config, plan_d3, 0)
    assert np.array_equal(shots.detection_events_b8, packed)
    assert np.array_equal(shots.rounds_b8, pack_detection_events(plan_d3, events))
    assert shots.observable_flips is not None
    assert shots.observable_flips.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 1]


def test_a_file_of_another_circuit_is_refused(tmp_path: Path, plan_d3: Plan) -> None:
    """A b8 file whose size is no whole number of shots is refused with both numbers."""
    (tmp_path / "events.b8").write_bytes(bytes(25))
    with pytest.raises(ConfigError, match="25 bytes are no multiple of the 12"):
        finite_shots(b8_config(tmp_path, detection_events=tmp_path / "events.b8"), plan_d3, 0)
    with pytest.raises(ConfigError, match="does not exist"):
        finite_shots(b8_config(tmp_path, detection_events=tmp_path / "nothing.b8"), plan_d3, 0)


def corrections(num_shots: int = 4, windows: int = 3, first_index: int = 0) -> NDArray[Any]:
    """Shots of `windows` corrections of 5 rounds; observable 0 flips in each window of odd shots."""
    found = np.zeros(num_shots * windows, CORRECTION)
    found["plan_tag"] = TAG
    found["rung"] = Rung.MATCH
    found["shot_id"] = np.repeat(np.arange(num_shots), windows)
    found["window_index"] = first_index + np.arange(len(found))
    window = np.tile(np.arange(windows), num_shots)
    found["first_round"], found["num_rounds"] = 5 * window, 5
    found["flips"] = found["shot_id"] % 2
    found["frame"] = found["flips"] * (1 + window) % 2
    found["flags"][windows - 1 :: windows] = CorrectionFlag.LAST_OF_SHOT
    return found


def renumbered(found: NDArray[Any]) -> NDArray[Any]:
    """As if just these had been published."""
    found["window_index"] = np.arange(len(found))
    return found


def account_of(found: NDArray[Any], pieces: int = 1, keep: bool = False) -> PatchAccount:
    account = PatchAccount(0, TAG, 4, keep)
    for piece in np.array_split(found, pieces):
        account.check(piece)
    return account


@pytest.mark.parametrize("first_index", [0, 1234])
@pytest.mark.parametrize("pieces", [1, 2, 5, 12])
def test_good_corrections_are_found_good(pieces: int, first_index: int) -> None:
    """A clean run counts nothing, however it is cut into pieces, and wherever the daemon's own count has got to."""
    account = account_of(corrections(first_index=first_index), pieces, keep=True)
    assert (account.received, account.out_of_order, account.wrong_digest, account.wrong_frame) == (12, 0, 0, 0)
    assert (account.index_gaps, account.bad_amendments, account.stale, account.rounds_answered) == (0, 0, 0, 60)
    assert account.finished.all()
    assert not account.marked.any()
    assert account.frames.tolist() == [0, 1, 0, 1]
    assert account.flags == dict.fromkeys(account.flags, 0) | {"last_of_shot": 4}
    assert account.rungs["match"] == 12
    assert np.array_equal(account.corrections, corrections(first_index=first_index))


def swapped(found: NDArray[Any], i: int, j: int) -> NDArray[Any]:
    order = np.arange(len(found))
    order[[i, j]] = order[[j, i]]
    return found[order]


def overlapping(found: NDArray[Any]) -> NDArray[Any]:
    found["num_rounds"][3] = 4
    return found


DISORDER = {
    "missing": (lambda c: np.delete(c, 4), 0, 1),
    "missing last of a shot": (lambda c: np.delete(c, 2), 0, 1),
    "missing first of a shot": (lambda c: np.delete(c, 3), 0, 1),
    "missing shot": (lambda c: np.delete(c, [3, 4, 5]), 0, 3),
    "two lost, apart": (lambda c: np.delete(c, [1, 7]), 0, 2),
    "duplicate": (lambda c: np.insert(c, 4, c[4]), 1, 0),
    "duplicate shot": (lambda c: np.concatenate([c[:3], c]), 1, 0),
    "swapped": (lambda c: swapped(c, 4, 5), 1, 2),
    "never published": (lambda c: renumbered(np.delete(c, 4)), 1, 0),
    "last of a shot never published": (lambda c: renumbered(np.delete(c, 2)), 1, 0),
    "first of a shot never published": (lambda c: renumbered(np.delete(c, 3)), 1, 0),
    "shot never published": (lambda c: renumbered(np.delete(c, [3, 4, 5])), 0, 0),
    "published twice": (lambda c: renumbered(np.insert(c, 4, c[4])), 1, 0),
    "overlap": (overlapping, 1, 0),
}
"""What is done, places that are out of order, corrections that never came."""


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("name", DISORDER)
def test_disorder_is_counted(name: str, pieces: int) -> None:
    """Each place where a correction does not follow the one before is counted, also where pieces meet.

    What the index says never came is counted as that. A shot of which nothing came may be missing.
    """
    spoil, breaks, gaps = DISORDER[name]
    account = account_of(spoil(corrections()), pieces)
    assert (account.out_of_order, account.index_gaps) == (breaks, gaps)


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_what_an_earlier_source_left_is_not_checked(pieces: int) -> None:
    """The end of an earlier source's shot may come before round 0 of shot 0; without that nothing is believed."""
    found = corrections(first_index=7)
    ended = found[:2].copy()
    ended["shot_id"], ended["first_round"], ended["window_index"] = 3, [20, 25], [5, 6]
    account = account_of(np.concatenate([ended, found]), pieces)
    assert (account.stale, account.received, account.out_of_order, account.wrong_frame) == (2, 12, 0, 0)
    headless = account_of(found[1:], pieces)
    assert (headless.stale, headless.received) == (11, 0)
    assert not headless.finished.any()


def test_a_foreign_plan_is_counted() -> None:
    """Corrections of another plan are counted one by one."""
    found = corrections()
    found["plan_tag"][[2, 9]] = 1
    assert account_of(found).wrong_digest == 2


@pytest.mark.parametrize("pieces", [1, 3, 12])
def test_a_frame_that_is_not_its_flips_is_counted(pieces: int) -> None:
    """Each frame that is not the XOR of its shot's flips so far is counted; after a gap of indices nobody can tell."""
    found = corrections()
    found["frame"][5] ^= 1
    found["flips"][7] ^= 1
    assert account_of(found, pieces).wrong_frame == 3
    assert account_of(np.delete(corrections(), 4), pieces).wrong_frame == 0
    assert account_of(np.delete(found, 4), pieces).wrong_frame == 2


def test_flags_rungs_and_taint_are_counted() -> None:
    """What corrections say of themselves is summed by name, and marks their shots; to be late does not."""
    found = corrections()
    found["flags"][1] |= CorrectionFlag.LATE
    found["flags"][2] |= CorrectionFlag.LATE | CorrectionFlag.LOSSY
    found["rung"][3] = Rung.HOLD
    found["frame_status"][[6, 7]] = FrameStatus.TAINTED
    found["flags"][9] |= CorrectionFlag.LATE | CorrectionFlag.CAUGHT_UP
    found["deadline_ns"], found["published_ns"] = 1000, 900
    found["published_ns"][[1, 2, 9]] = [1500, 3000, 1200]
    account = account_of(found)
    assert (account.flags["late"], account.flags["lossy"], account.flags["degraded"]) == (3, 1, 0)
    assert (account.rungs["hold"], account.rungs["match"]) == (1, 11)
    assert account.tainted == 2
    assert account.marked.tolist() == [True, True, True, False]
    assert account.caught_up.tolist() == [False, False, False, True]
    assert (account.lateness_counts.sum(), account.lateness_ns_max) == (3, 2000)


def amended() -> NDArray[Any]:
    """Two windows of shot 1 are held, and amended after shot 2, cut in another way.

    Rows: 0 to 2 shot 0; 3 (held), 4 (held) and 5 shot 1; 6 to 8 shot 2; 9 and 10 amend shot 1; then shot 3.
    """
    found = corrections(5)[[0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 9, 10, 11]]
    found["rung"][3:5], found["reason"][3:5] = Rung.HOLD, Reason.BACKLOG
    found["flips"][3:5], found["frame"][3:6] = 0, [0, 0, 1]
    found["flags"][9:11] |= np.uint16(CorrectionFlag.AMENDMENT)
    found["first_round"][9:11], found["num_rounds"][9:11] = [0, 7], [7, 3]
    found["flips"][9:11], found["frame"][9:11] = [1, 0], [0, 0]
    return renumbered(found)


@pytest.mark.parametrize("pieces", [1, 3, 14])
def test_held_rounds_may_be_amended_once(pieces: int) -> None:
    """Amendments of held rounds are fine, cut as they like; they count apart, and change the frame of their shot."""
    account = account_of(amended(), pieces)
    assert (account.out_of_order, account.index_gaps, account.bad_amendments, account.wrong_frame) == (0, 0, 0, 0)
    assert (account.rounds_answered, account.rounds_held, account.rounds_amended) == (60, 10, 10)
    assert account.finished.all()
    assert account.frames.tolist() == [0, 0, 0, 1]
    assert account.marked.tolist() == [False, True, False, False]
    assert not account.awaits_amendments
    assert account_of(amended()[:10], min(pieces, 10)).awaits_amendments
    found = amended()
    found["reason"][3:5] = Reason.GAP
    assert not account_of(found[:9]).awaits_amendments


BAD_AMENDMENTS = {
    "never held": (lambda c: put(c, "first_round", 10, 10), 1, 0),
    "of another shot": (lambda c: put(c, "shot_id", 10, 2), 1, 0),
    "beyond what was held": (lambda c: put(c, "num_rounds", 10, 4), 1, 0),
    "twice": (lambda c: put(c, "first_round", 10, 3), 1, 0),
    "out of order": (lambda c: renumbered(swapped(c, 9, 10)), 1, 1),
    "before they were held": (lambda c: renumbered(swapped(c, 4, 9)), 1, 0),
    "a wrong frame": (lambda c: put(c, "frame", 10, 1), 0, 1),
}


def put(found: NDArray[Any], name: str, row: int | slice, value: int) -> NDArray[Any]:
    found[name][row] = value
    return found


@pytest.mark.parametrize("pieces", [1, 14])
@pytest.mark.parametrize("name", BAD_AMENDMENTS)
def test_amendments_that_are_none_are_counted(name: str, pieces: int) -> None:
    """Amendments of rounds that were not held, or not any more, are counted, and so are their wrong frames."""
    spoil, bad, wrong = BAD_AMENDMENTS[name]
    account = account_of(spoil(amended()), pieces)
    assert account.bad_amendments == bad
    if wrong or not bad:
        assert account.wrong_frame == wrong


def looked_up(found: NDArray[Any], kept: slice = slice(None)) -> Journal:
    """A journal that has these corrections, or some of them."""

    def look_up(patch_id: int, first: int, stop: int) -> NDArray[Any]:
        assert patch_id == 0
        mine = found[kept]
        return mine[(mine["window_index"] >= first) & (mine["window_index"] < stop)]

    return look_up


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("lost", [[4], [1, 2], [2, 3], [3, 4, 5], [1, 4, 5, 9], [7, 8, 9, 10]])
def test_corrections_that_did_not_come_are_looked_up(lost: list[int], pieces: int) -> None:
    """What the journal has is accounted for in its place, as if it had come, and counted; each once."""
    whole = corrections()
    account = PatchAccount(0, TAG, 4, True, looked_up(whole))
    for piece in np.array_split(np.delete(whole, lost), pieces):
        account.check(piece)
    assert (account.resent, account.index_gaps, account.out_of_order, account.wrong_frame) == (len(lost), 0, 0, 0)
    assert account.finished.all()
    assert account.frames.tolist() == [0, 1, 0, 1]
    assert account.rounds_answered == 60
    assert np.array_equal(account.corrections, whole)


def test_corrections_that_are_nowhere_stay_missing() -> None:
    """What the journal has overwritten is counted as never having come; so is what came twice, journal or not."""
    account = PatchAccount(0, TAG, 4, False, looked_up(corrections(), slice(5, None)))
    account.check(np.delete(corrections(), [3, 4, 5, 6]))
    assert (account.resent, account.index_gaps, account.out_of_order) == (2, 2, 0)
    twice = PatchAccount(0, TAG, 4, False, looked_up(corrections()))
    twice.check(np.insert(corrections(), 4, corrections()[4]))
    assert (twice.resent, twice.out_of_order) == (0, 1)


def test_the_rest_is_looked_up_at_the_end() -> None:
    """Corrections that a lane took with it and that no later one shows to be missing are looked up when all is over."""
    account = PatchAccount(0, TAG, 4, False, looked_up(corrections()))
    account.check(corrections()[:10])
    assert not account.finished.all()
    account.look_up_rest()
    assert (account.resent, account.index_gaps) == (2, 0)
    assert account.finished.all()
    account.look_up_rest()
    assert account.resent == 2


def taken_up() -> NDArray[Any]:
    """A lane dies in shot 1: its first five rounds are gone, and the frame is tainted until the shot ends."""
    found = corrections()
    found["rung"][3], found["reason"][3] = Rung.HOLD, Reason.GAP
    found["flags"][3] = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED
    found["flags"][4] |= CorrectionFlag.OPEN_PAST
    found["flips"][3], found["frame"][3:6] = 0, [0, 1, 0]
    found["frame_status"][3:6] = FrameStatus.TAINTED
    return found


HIDDEN: dict[str, tuple[Any, int, int]] = {
    "nothing": (lambda c: c, 0, 0),
    "the loss": (lambda c: put(c, "flags", 3, int(CorrectionFlag.DEGRADED)), 1, 0),
    "the guess": (lambda c: put(c, "flags", 3, int(CorrectionFlag.LOSSY)), 1, 0),
    "the taint of the guess": (lambda c: put(c, "frame_status", 3, FrameStatus.CLEAN), 0, 1),
    "the taint behind it": (lambda c: put(c, "frame_status", 5, FrameStatus.CLEAN), 0, 1),
    "all taint": (lambda c: put(c, "frame_status", slice(3, 6), FrameStatus.CLEAN), 0, 3),
}
"""What is hidden; corrections of gone rounds that do not say so; frames that hold a guess and do not say so."""


@pytest.mark.parametrize("pieces", [1, 2, 4, 12])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_gone_must_be_said(name: str, pieces: int) -> None:
    """Rounds that are gone are marked lossy and degraded, and the frame stays tainted until the shot has ended."""
    hide, unflagged, wrongly_clean = HIDDEN[name]
    account = account_of(hide(taken_up()), pieces)
    assert (account.unflagged, account.wrongly_clean) == (unflagged, wrongly_clean)
    assert (account.out_of_order, account.wrong_frame, account.rounds_gone, account.rounds_held) == (0, 0, 5, 5)
    assert account.marked[1]


def test_amendments_may_clear_a_frame() -> None:
    """Where held rounds were amended the simulator does not know from when on the frame is clean again."""
    found = amended()
    found["flags"][3:5] |= np.uint16(CorrectionFlag.DEGRADED)
    found["frame_status"][3:5] = FrameStatus.TAINTED
    assert account_of(found).wrongly_clean == 0


def test_shots_that_were_left_out_are_counted() -> None:
    """Each leap over shots counts once, with the shots that it left out."""
    found = renumbered(np.delete(corrections(7), np.s_[3:9]))
    account = PatchAccount(0, TAG, 7)
    account.check(renumbered(np.delete(found, np.s_[6:9])))
    assert (account.leaps, account.shots_leapt, account.out_of_order) == (2, 3, 0)
    assert account_of(corrections()).leaps == 0


SAID: dict[str, tuple[Callable[[PatchAccount], object], int]] = {
    "nothing": (lambda account: account.marked.fill(False), 30),
    "marked": (lambda account: account.marked.fill(True), 0),
    "caught up": (lambda account: account.caught_up.fill(True), 0),
    "another rung": (lambda account: account.rungs_of_shot.fill(1 << Rung.UNION_FIND), 0),
    "not finished": (lambda account: account.finished[7:].fill(False), 7),
}
"""What the shots say of themselves; those of thirty whose wrong frames are found."""


@pytest.mark.parametrize("name", SAID)
def test_shots_that_say_nothing_have_the_frames_of_the_windows(plan_d3: Plan, name: str) -> None:
    """A frame that is not what the plan's windows give is found, unless its shot says that it was decoded otherwise."""
    shots = finite_shots(make_config(source__shots=30), plan_d3, 3)
    events = np.unpackbits(
        shots.detection_events_b8, axis=1, bitorder="little", count=plan_d3.experiment.own_dem.num_detectors
    )
    account = PatchAccount(0, plan_d3.tag, 30)
    account.frames[:] = words_from_bits(WindowedDecoder(plan_d3)(plan_d3.rounds.layers_b8(events.astype(np.bool_))))
    account.finished[:], account.rungs_of_shot[:] = True, 1 << Rung.MATCH
    assert deviations(plan_d3, shots, account) == 0
    say, expected = SAID[name]
    account.frames[:] ^= np.uint64(1)
    say(account)
    assert deviations(plan_d3, shots, account) == expected
    assert deviations(plan_d3, None, account) == 0


@pytest.mark.parametrize("slope", [0.0, 250.0, -40.0])
def test_a_backlog_that_grows_is_seen(slope: float) -> None:
    """The slope of the last half is found, and its interval covers it; the median is that of the last tenth."""
    rng = np.random.default_rng(3)
    times = np.arange(0, 10, 0.005)
    rounds = np.round(1000 + slope * times + rng.normal(0, 5, len(times))).astype(int)
    summary = summarise(times.tolist(), rounds.tolist())
    assert summary.slope_per_s == pytest.approx(slope, abs=2)
    assert summary.slope_interval is not None
    assert summary.slope_interval[0] < slope < summary.slope_interval[1]
    assert summary.median_last_tenth == np.median(rounds[-200:])
    assert summary.max == rounds.max()
    assert summary.samples == 2000


def test_few_samples_state_no_slope() -> None:
    """Too few samples for blocks give no slope, none at all give nothing."""
    few = summarise([0.0, 1.0, 2.0], [5, 7, 9])
    assert (few.slope_per_s, few.slope_interval, few.max, few.median_last_tenth) == (None, None, 9, 9.0)
    none = summarise([], [])
    assert (none.median_last_tenth, none.slope_per_s, none.max, none.samples) == (None, None, None, 0)
