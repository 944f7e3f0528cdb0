"""What a network is worth: failures with it against failures without it, on the same shots, at named points.

The threshold of each point and matching is the one with fewest failures on validation shots; numbers are measured on
fresh ones. Both kinds of matching are set behind the network, and both, alone, before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtqec.neural.card import HandOverRecord, Matching, PointRecord, SoftRecord, SourceRecord
from rtqec.soft_matcher import FLOOR
from rtqec.training.handover import MATCHINGS, Answers, HardHandOver, Shots
from rtqec.training.paired import Paired
from rtqec.training.soft import SoftHandOver

Way = Literal["plain", "correlated", "soft"]
"""The hard hand-over before either matching, or the soft one."""
WAYS: tuple[Way, ...] = (*MATCHINGS, "soft")
CELLS_AT_ONCE = 4_000_000
"""Of the shots that are sampled, answered and matched together: some ten megabytes of events and logits."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        thresholds: Candidates, growing.
        validation_shots: To choose the threshold by.
        shots: Most fresh shots of a point.
        failures: A point ends early when plain matching has failed so often.
        seed: Of all of it.
    """

    thresholds: tuple[float, ...]
    validation_shots: int
    shots: int
    failures: int
    seed: int


@dataclass(frozen=True)
class Choice:
    """What validation shots say.

    Attributes:
        threshold: The best one of each matching.
        failures: Of each matching and threshold, int64, shape (len(thresholds),).
        alone: Failures of each matching without the network.
        pair: Of each matching at its best threshold, against plain matching alone.
        soft: The soft hand-over against plain matching alone; None where it cannot be judged.
        events_left: Share of the own kind's events that are left to the matching, by threshold.
    """

    threshold: dict[Matching, float]
    failures: dict[Matching, NDArray[np.int64]]
    alone: dict[Matching, int]
    pair: dict[Matching, Paired]
    soft: Paired | None
    events_left: NDArray[np.float64]


class Point:
    """One operating point: its experiment, and its validation shots, which are sampled and matched once.

    Args:
        source: What it is, for the card.
        hand_over: Its experiment.
        effort: How much is measured.
        index: Of the point, so that no two have the same shots.
        soft: The same for the soft hand-over, or None where that is not judged.
    """

    def __init__(
        self, source: SourceRecord, hand_over: HardHandOver, effort: Effort, index: int,
        soft: SoftHandOver | None = None,
    ) -> None:  # fmt: skip
        self.source, self.hand_over, self.effort, self.soft = source, hand_over, effort, soft
        self._index = index
        self._validation: list[Shots] | None = None

    @property
    def validation(self) -> list[Shots]:
        """The shots that thresholds are chosen on, always the same."""
        if self._validation is None:
            self._validation = list(self._draw(self.effort.validation_shots, stream=0))
        return self._validation

    def _draw(self, num_shots: int, stream: int) -> Iterator[Shots]:
        """Shots in pieces of a fit size."""
        seeds = np.random.SeedSequence([self.effort.seed, self._index, stream])
        draw = self.hand_over.sampler(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        at_once = max(1, CELLS_AT_ONCE // int(np.prod(self.hand_over.volume_shape[1:])))
        for start in range(0, num_shots, at_once):
            yield draw(min(at_once, num_shots - start))

    def choose(self, answers: Answers) -> Choice:
        """Try all thresholds on the validation shots."""
        thresholds = self.effort.thresholds
        size = len(thresholds)
        failures: dict[Matching, NDArray[np.int64]] = {m: np.zeros(size, np.int64) for m in MATCHINGS}
        both: dict[Matching, NDArray[np.int64]] = {m: np.zeros(size, np.int64) for m in MATCHINGS}
        left, events = np.zeros(size, np.int64), 0
        alone: dict[Matching, int] = dict.fromkeys(MATCHINGS, 0)
        soft_failures = soft_both = 0
        for piece in self.validation:
            logits = answers(piece.events)
            events += self.hand_over.num_events(piece.events)
            for matching in MATCHINGS:
                wrong, residual = self.hand_over.failures(piece, logits, thresholds, matching)
                failures[matching] += wrong.sum(axis=1)
                both[matching] += (wrong & piece.wrong["plain"]).sum(axis=1)
                alone[matching] += int(piece.wrong[matching].sum())
            left += residual
            if self.soft is not None:
                missed, _ = self.soft(piece, logits)
                soft_failures += int(missed.sum())
                soft_both += int((missed & piece.wrong["plain"]).sum())
        # Of equals the highest: it changes least.
        best = {m: size - 1 - int(np.argmin(failures[m][::-1])) for m in MATCHINGS}
        pair = {m: Paired(int(failures[m][best[m]]), alone["plain"], int(both[m][best[m]])) for m in MATCHINGS}
        threshold = {m: thresholds[best[m]] for m in MATCHINGS}
        soft = Paired(soft_failures, alone["plain"], soft_both) if self.soft is not None else None
        return Choice(threshold, failures, alone, pair, soft, left / max(events, 1))

    def measure(self, answers: Answers, progress: Callable[[float], None] = lambda _: None) -> PointRecord:
        """Choose thresholds, then count on fresh shots.

        Args:
            answers: The network.
            progress: Told the fraction done.
        """
        choice = self.choose(answers)
        count = _Count()
        for shots in self._draw(self.effort.shots, stream=1):
            logits = answers(shots.events)
            wrong: dict[Way, NDArray[np.bool_]] = {}
            left = {}
            for matching in MATCHINGS:
                found, residual = self.hand_over.failures(shots, logits, [choice.threshold[matching]], matching)
                wrong[matching], left[matching] = found[0], int(residual[0])
            if self.soft is not None:
                wrong["soft"], weighed = self.soft(shots, logits)
                count.weighed += weighed
            count.add(shots, wrong, left, self.hand_over.num_events(shots.events))
            done = count.alone["plain"]
            progress(min(1.0, max(count.shots / self.effort.shots, done / self.effort.failures)))
            if done >= self.effort.failures:
                break
        return self._record(choice, count)

    def _record(self, choice: Choice, count: _Count) -> PointRecord:
        hard = [
            HandOverRecord(
                matching=matching,
                threshold=choice.threshold[matching],
                validation=dict(
                    zip(map(str, self.effort.thresholds), choice.failures[matching].tolist(), strict=True)
                ),
                failures=count.with_network[matching],
                against_plain=count.pair(matching, "plain").ratio(),
                against_correlated=count.pair(matching, "correlated").ratio(),
                events_left=count.left[matching] / max(count.events, 1),
            )
            for matching in MATCHINGS
        ]  # fmt: skip
        alone = Paired(count.alone["correlated"], count.alone["plain"], count.alone_both)
        return PointRecord(
            **{key: getattr(self.source, key) for key in SourceRecord.model_fields},
            shots=count.shots,
            validation_shots=self.effort.validation_shots,
            plain_failures=count.alone["plain"],
            correlated_failures=count.alone["correlated"],
            correlated_against_plain=alone.ratio(),
            hard=tuple(hard),
            soft=self._soft_record(count) if self.soft is not None else None,
        )

    @staticmethod
    def _soft_record(count: _Count) -> SoftRecord:
        return SoftRecord(
            floor=FLOOR,
            failures=count.with_network["soft"],
            against_plain=count.pair("soft", "plain").ratio(),
            against_correlated=count.pair("soft", "correlated").ratio(),
            edges_weighed=count.weighed / count.shots,
        )


class _Count:
    """Failures on fresh shots, with and without the network, and together."""

    def __init__(self) -> None:
        self.shots, self.events, self.alone_both, self.weighed = 0, 0, 0, 0
        self.alone: dict[Matching, int] = dict.fromkeys(MATCHINGS, 0)
        self.with_network: dict[Way, int] = dict.fromkeys(WAYS, 0)
        self.left: dict[Matching, int] = dict.fromkeys(MATCHINGS, 0)
        self._both = dict.fromkeys([(way, matching) for way in WAYS for matching in MATCHINGS], 0)

    def add(self, shots: Shots, wrong: dict[Way, NDArray[np.bool_]], left: dict[Matching, int], events: int) -> None:
        """Count some shots, in which there were so many events of the own kind."""
        self.shots += len(shots.events)
        self.events += events
        self.alone_both += int((shots.wrong["plain"] & shots.wrong["correlated"]).sum())
        for matching in MATCHINGS:
            self.alone[matching] += int(shots.wrong[matching].sum())
            self.left[matching] += left[matching]
        for way, missed in wrong.items():
            self.with_network[way] += int(missed.sum())
            for other in MATCHINGS:
                self._both[way, other] += int((missed & shots.wrong[other]).sum())

    def pair(self, way: Way, baseline: Matching) -> Paired:
        """The network with a matching, or the soft hand-over, against a matching alone."""
        return Paired(self.with_network[way], self.alone[baseline], self._both[way, baseline])


def evaluate(
    network: Callable[[HardHandOver], Answers],
    points: list[Point],
    progress: Callable[[Point, float], None] = lambda _point, _done: None,
) -> tuple[PointRecord, ...]:
    """Measure a network at all points.

    Args:
        network: Makes its answers for an experiment.
        points: Where.
        progress: Told the point and the fraction of it that is done.
    """
    return tuple(point.measure(network(point.hand_over), partial(progress, point)) for point in points)
