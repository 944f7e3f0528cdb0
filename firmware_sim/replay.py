"""What the daemon must have seen and answered, worked out again, slowly, from what was sent.

Lost rounds are filled by the rule of the daemon, from the fold programs of the plan, one round after the other; windows
are decoded as their corrections say that they were. Nothing of the daemon's compiled path is used.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.shots import Shots
from rtqec.layout import bytes_for_bits
from rtqec.plan import Plan
from rtqec.plan.folding import FoldProgram
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CorrectionFlag, Reason, Rung

_ENDS = int(CorrectionFlag.LAST_OF_SHOT)
_PREDECODED = (Rung.PREDECODED_MATCH, Rung.PREDECODED_CORRELATED_MATCH, Rung.SOFT_MATCH)
_QUIET = int(CorrectionFlag.LAST_OF_SHOT | CorrectionFlag.LATE)
_GONE = (Reason.GAP, Reason.SHOT_TRUNCATED)


@dataclass
class Invariants:
    """How often each was violated. All are 0 for a daemon that does what it says.

    Attributes:
        rounds_not_answered_once: Rounds of shots that reached the daemon, answered never or more than once.
        wrong_flips: Corrections whose flips are not those of the replay.
        unmarked_shots_disturbed: Shots without a marked correction whose frame differs from the undisturbed one.
        lossy_without_loss: Corrections marked lossy that looked at no lost round.
        loss_not_marked: Corrections that looked at a lost round and do not say so.
    """

    rounds_not_answered_once: int = 0
    wrong_flips: int = 0
    unmarked_shots_disturbed: int = 0
    lossy_without_loss: int = 0
    loss_not_marked: int = 0

    def add(self, other: Invariants) -> None:
        """Sum up."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))

    @property
    def hold(self) -> bool:
        """Whether none was violated."""
        return not any(getattr(self, entry.name) for entry in fields(self))


class Replay:
    """One patch.

    Args:
        plan: A finite plan.
        shots: What was sent.
        events: Whether the feed carried detection events.
    """

    def __init__(self, plan: Plan, shots: Shots, events: bool) -> None:
        assert plan.num_rounds is not None
        self._plan, self._shots, self._events = plan, shots, events
        self._decoder = WindowedDecoder(plan)
        self._num_rounds = plan.num_rounds
        self._lanes_died = False
        num_detectors = plan.experiment.own_dem.num_detectors
        dense = np.unpackbits(shots.detection_events_b8, axis=1, bitorder="little", count=num_detectors)
        self._clean_b8 = plan.rounds.layers_b8(dense.astype(np.bool_))
        self._undisturbed = self._decoder(self._clean_b8)

    def check(self, corrections: NDArray[Any], lost: NDArray[np.int64], lanes_died: bool = False) -> Invariants:
        """Check all corrections of a run.

        Args:
            corrections: `wire.CORRECTION`, in the order in which they came.
            lost: int64, shape (n, 2): shot and round of every round that never reached the daemon.
            lanes_died: Whether rounds may be gone that had reached it.
        """
        self._lanes_died = lanes_died
        found = Invariants()
        order = np.argsort(corrections["shot_id"], kind="stable")
        corrections = corrections[order]
        starts = np.flatnonzero(np.diff(corrections["shot_id"].astype(np.int64), prepend=-1))
        lost_of: dict[int, list[int]] = {}
        for shot, round_index in lost.tolist():
            lost_of.setdefault(shot, []).append(round_index)
        for start, stop in zip(starts, np.append(starts[1:], len(corrections)), strict=True):
            mine = corrections[start:stop]
            shot = int(mine["shot_id"][0])
            if shot < self._shots.num_shots:
                self._check_shot(shot, mine, lost_of.get(shot, []), found)
        return found

    def _check_shot(self, shot: int, mine: NDArray[Any], lost: list[int], found: Invariants) -> None:
        layers_b8 = self.layers_b8(shot, lost) if lost else self._clean_b8[shot]
        if not np.isin(mine["rung"], _PREDECODED).any():  # What the network said is not known here.
            found.wrong_flips += len(self._decoder.replay(layers_b8, mine, () if self._events else lost))
        answers = np.zeros(self._num_rounds, np.int64)
        for correction in mine[(mine["flags"] & CorrectionFlag.AMENDMENT) == 0]:
            first = int(correction["first_round"])
            answers[first : first + int(correction["num_rounds"])] += 1
        found.rounds_not_answered_once += int((answers != 1).sum())
        own_rung = Rung.CORRELATED_MATCH if self._plan.correlated else Rung.MATCH
        if not (mine["flags"] & ~np.uint16(_QUIET)).any() and (mine["rung"] == own_rung).all():
            frame = int(np.bitwise_xor.reduce(mine["flips"]))
            expected = sum(int(bit) << i for i, bit in enumerate(self._undisturbed[shot].tolist()))
            found.unmarked_shots_disturbed += frame != expected
        touched = self._touched(lost)
        for correction in mine:
            self._check_loss(correction, touched, found)

    def _check_loss(self, correction: np.void, touched: NDArray[np.bool_], found: Invariants) -> None:
        says = bool(correction["flags"] & CorrectionFlag.LOSSY)
        if correction["rung"] == Rung.HOLD:
            # What is held for want of time looks at nothing; what is held because it is gone is lost.
            gone = correction["reason"] in _GONE
            found.lossy_without_loss += says and not touched.any() and not (gone and self._lanes_died)
            found.loss_not_marked += not says and gone
            return
        start = int(correction["first_round"])
        stop = start + int(correction["num_rounds"])
        if not correction["flags"] & _ENDS:
            stop += self._plan.window.buffer_rounds
        looked = bool(touched[start:stop].any())
        found.lossy_without_loss += says and not looked
        found.loss_not_marked += looked and not says

    def _touched(self, lost: list[int]) -> NDArray[np.bool_]:
        """Rounds that were lost, and those received after them whose detectors carry their news."""
        touched = np.zeros(self._num_rounds, np.bool_)
        echo = 0
        gone = set(lost)
        for t in range(self._num_rounds):
            if t in gone:
                touched[t] = True
                # A shot whose first rounds are lost begins behind them.
                echo = self._plan.look_back if not gone.issuperset(range(t + 1)) else 0
            elif echo:
                touched[t] = True
                echo -= 1
        return touched

    def layers_b8(self, shot: int, lost: list[int]) -> NDArray[np.uint8]:
        """The detection events of a shot without some of its rounds, uint8, shape (num_rounds * layer_bytes,)."""
        layout = self._plan.layout
        layers = np.zeros((self._num_rounds, layout.layer_bits), np.bool_)
        if self._events:
            layers[:] = np.unpackbits(self._clean_b8[shot], bitorder="little").reshape(layers.shape)
            layers[lost] = False
        else:
            gone = set(lost)
            blocks: list[NDArray[np.bool_]] = []
            for t in range(self._num_rounds):
                program = self._plan.layer(t, t == self._num_rounds - 1).program
                assert program is not None
                if t in gone:
                    blocks.append(self._filled(program, blocks, self._sweep(shot)))
                else:
                    blocks.append(self._block(shot, t))
                events = _fold(program, blocks, self._sweep(shot))
                layers[t, : len(events)] = events & (t not in gone)
        return np.packbits(layers.reshape(-1), bitorder="little")

    def _filled(
        self, program: FoldProgram, blocks: list[NDArray[np.bool_]], sweep: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Measurements of a round that never came: those before, flipped so that its own detectors read 0."""
        block = np.zeros(program.num_measurements, np.bool_)
        if blocks:
            shared = min(len(block), len(blocks[-1]))
            block[:shared] = blocks[-1][:shared]
        events = _fold(program, [*blocks, block], sweep)
        for slot, measurement in program.fixes.tolist():
            block[measurement] ^= events[slot]
        return block

    def _block(self, shot: int, t: int) -> NDArray[np.bool_]:
        """The measurements of one round as they were sent."""
        widths = [self._plan.layer(i, i == self._num_rounds - 1).num_measurements for i in range(t + 1)]
        at = sum(bytes_for_bits(width) for width in widths[:-1])
        packed = self._shots.rounds_b8[shot, at : at + bytes_for_bits(widths[-1])]
        return np.unpackbits(packed, bitorder="little", count=widths[-1]).astype(np.bool_)

    def _sweep(self, shot: int) -> NDArray[np.bool_]:
        count = self._plan.num_sweep_bits
        return np.unpackbits(self._shots.sweep_b8[shot], bitorder="little", count=count).astype(np.bool_)


def _fold(program: FoldProgram, blocks: list[NDArray[np.bool_]], sweep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The detection events of the last of `blocks`. Rounds before the first one read 0."""
    events = program.constants.astype(np.bool_)
    for slot, back, measurement in program.sources.tolist():
        if back < len(blocks):
            events[slot] ^= blocks[-1 - back][measurement]
    for slot, bit in program.sweeps.tolist():
        events[slot] ^= sweep[bit]
    return events
