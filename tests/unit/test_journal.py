"""The journal has the last corrections, sent or not, and whoever reads it believes only what was not being written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.kernels.publish import keep
from rtqec.plan import Plan
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import CORRECTION
from tests.harness import BenchMaker, Piece, Speaker

LENGTH = 16


class Writer:
    """Writes corrections into a journal as the path does: number k has k in every field that can hold it."""

    def __init__(self, block: TelemetryBlock) -> None:
        self.block = block

    def write(self, num_corrections: int, sent: int = 1) -> None:
        """Write some more."""
        block = self.block
        for _ in range(num_corrections):
            number = int(block.written[0])
            record = np.zeros(1, CORRECTION)
            for name in CORRECTION.names:
                record[name] = number % 100
            record["window_index"] = number
            keep(0, record[0], sent, block.journal, block.journal_sent, block.written, block.path_counters[0])

    def begin(self) -> None:
        """Be in the middle of writing the next one."""
        self.block.journal[0, int(self.block.written[0]) % LENGTH]["flips"] = 0xDEAD


class Interrupted:
    """An array that something happens to, before and after it is read."""

    def __init__(self, array: Any, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.array, self.before, self.after = array, before, after

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def __getitem__(self, key: Any) -> Any:
        self.before()
        found = self.array[key].copy()
        self.after()
        return found


def numbers(found: np.ndarray) -> list[int]:
    """Which corrections these are; none of them is torn."""
    for record in found:
        assert {int(record[name]) for name in CORRECTION.names if name != "window_index"} == {
            int(record["window_index"]) % 100
        }
    return [int(number) for number in found["window_index"]]


@given(
    before=st.integers(0, 60), meanwhile=st.integers(0, 40), after=st.integers(0, 40), first=st.integers(0, 70),
    length=st.integers(0, 30), unfinished=st.booleans(),
)  # fmt: skip
@settings(max_examples=200)
def test_a_reader_never_sees_what_is_being_written(
    tmp_path_factory: pytest.TempPathFactory, before: int, meanwhile: int, after: int, first: int, length: int,
    unfinished: bool,
) -> None:  # fmt: skip
    """However far the writer gets between a reader's steps, and whatever it is in the middle of: what the reader is
    given was asked for, is whole, and in order without a hole; nothing is missing that was still safe."""
    path = tmp_path_factory.mktemp("journal") / "block"
    writer, reader = Writer(TelemetryBlock.create(path, [0], LENGTH)), TelemetryBlock.attach(path)
    writer.write(before)

    def read_began() -> None:
        writer.write(meanwhile)
        if unfinished:
            writer.begin()

    # Between looking how many there are, copying, and looking again.
    reader.journal = Interrupted(reader.journal, read_began, lambda: writer.write(after))  # type: ignore[assignment]
    found = numbers(reader.corrections_of(0, first, first + length))
    overwritten = before + meanwhile + after - LENGTH
    assert found == [n for n in range(first, first + length) if overwritten < n < before]


def test_the_journal_has_the_last_corrections(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """What is read by number is what was sent, of any range, as far back as the journal goes."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    bench = make_bench(plan_d3, journal=LENGTH)
    sent = []
    for shot_id, shot in enumerate(piece.sample(7, seed=71)):
        bench.ingest(*speaker.shot(piece.blocks(shot), shot_id))
        sent += bench.carry().tolist()
        block, newest = bench.telemetry, len(sent)
        assert block.written[0] == newest
        # The one that is next to be overwritten cannot be trusted any more.
        oldest = max(newest - LENGTH + 1, 0)
        assert _rows(block.corrections_of(0, 0, newest)) == _without_nan(sent[oldest:])
        assert _rows(block.corrections_of(0, newest - 3, newest - 1)) == _without_nan(sent[newest - 3 : newest - 1])
        assert not len(block.corrections_of(0, newest, newest + 5))
        assert not len(block.corrections_of(0, 5, 5))
    assert block.journal_sent.all()
    assert "journal_drops" not in bench.path_counts()


def _without_nan(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Corrections, but for their confidence, which equals nothing."""
    at = CORRECTION.names.index("confidence")
    return [row[:at] + row[at + 1 :] for row in rows]


def _rows(found: np.ndarray) -> list[tuple[Any, ...]]:
    return _without_nan(found.tolist())


def test_what_nobody_took_is_kept_and_then_counted(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Corrections that the transport did not take lie in the journal, marked; each that is overwritten counts once."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    bench = make_bench(plan_d3, journal=LENGTH)
    shots = piece.sample(8, seed=72)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0))
    bench.carry()
    with bench._context.socket(zmq.PUSH) as deaf:
        heard, bench.pipeline._publish._pointer = bench.pipeline._publish._pointer, deaf.underlying
        for shot_id in range(1, 7):
            bench.ingest(*speaker.shot(piece.blocks(shots[shot_id]), shot_id))
            while bench.pipeline.step():
                pass
    counts = bench.path_counts()
    # 4 were sent, then 24 were not: the journal has the last 16, and 8 are gone.
    assert (counts["corrections_sent"], counts["corrections_unsent"], counts["journal_drops"]) == (4, 24, 8)
    assert not bench.telemetry.journal_sent.any()
    assert bench.telemetry.corrections_of(0, 0, 100)["window_index"].tolist() == list(range(13, 28))
    bench.pipeline._publish._pointer = heard
    bench.ingest(*speaker.shot(piece.blocks(shots[7]), 7))
    bench.carry()
    assert bench.path_counts()["journal_drops"] == 12
    assert sorted(bench.telemetry.journal_sent[0].tolist()) == [0] * 12 + [1] * 4


def test_journals_of_patches_do_not_touch(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Each patch has a journal of its own, counted by itself."""
    bench = make_bench(plan_d3, plan_d3, journal=LENGTH)
    piece = Piece.of(plan_d3)
    speakers = [Speaker(plan_d3, patch_id=p) for p in range(2)]
    for shot_id, shot in enumerate(piece.sample(6, seed=73)):
        bench.ingest(*speakers[shot_id % 3 > 0].shot(piece.blocks(shot), shot_id))
        bench.carry()
    assert bench.telemetry.written.tolist() == [8, 16]
    for p, shots in enumerate(([0, 3], [1, 2, 4, 5])):
        found = bench.telemetry.corrections_of(p, 0, 100)
        assert set(found["patch_id"]) == {p}
        assert found["window_index"].tolist() == list(range(max(0, len(shots) * 4 - LENGTH + 1), 4 * len(shots)))
        assert set(found["shot_id"]) == {*shots}
