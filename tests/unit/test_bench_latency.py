"""Latency rows say what samples carry and no more; a load that was not offered is rejected; logs are read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from bench.cases import cases_of
from bench.floor import Floor
from bench.hdr import FIGURES, HIGHEST_NS, write_hdr_log
from bench.latency import (
    LEFT_LATE_MAX,
    Times,
    default_rounds,
    judge_answers,
    judge_sender,
    late_bound_us,
    latency,
    measure_service,
    rejected_altogether,
    row_result,
    wire_times,
)
from bench.modes import Mode
from bench.rows import read_rows
from rtqec.wire import CORRECTION, CorrectionFlag

CONFIGS = Path(__file__).parents[2] / "configs"


def times_of(count: int, floor: bool = False) -> Times:
    samples = np.arange(1, count + 1) * 1000
    return Times(samples + 500, samples, 0.25, samples[::2] if floor else None)


def test_a_percentile_is_blank_where_the_samples_do_not_carry_it() -> None:
    """Ten samples must lie above it: of 1000, p99 is the last that is said; maximum and count always are."""
    result = row_result(20.0, times_of(1000))
    said = {"p50": 500.0, "p90": 900.0, "p99": 990.0, "p99.9": None, "p99.99": None, "max": 1000.0, "count": 1000}
    assert {name: result["service_us"][name] for name in said} == said
    assert row_result(20.0, times_of(99))["reaction_us"]["p90"] is None
    assert row_result(20.0, times_of(100))["reaction_us"]["p90"] == 90.5
    assert row_result(20.0, times_of(100_000))["service_us"]["p99.99"] == 99_990.0


def test_no_floor_is_blank() -> None:
    """What was not measured is None, and not 0."""
    result = row_result(20.0, times_of(100))
    assert result["floor_us"] is None
    assert result["ccdf"]["floor"] is None


def test_a_ccdf_begins_at_the_smallest_and_ends_at_the_largest() -> None:
    """Values rise, fractions fall to 0, and each is the fraction of samples that are larger."""
    curve = row_result(20.0, times_of(5000, floor=True))["ccdf"]["floor"]
    values, fractions = zip(*curve, strict=True)
    assert values[0] == 1.0
    assert fractions[0] == pytest.approx(1, abs=1e-3)
    assert curve[-1] == (4999.0, 0.0)
    samples = np.arange(1, 5001, 2)
    assert all(fraction == (samples > value).mean() for value, fraction in curve)
    assert list(values) == sorted(values)


@pytest.mark.parametrize(
    ("late_us_max", "left_late", "accepted"),
    [(900, 0.0, True), (3000, 0.0001, True), (3000, LEFT_LATE_MAX, True), (3000, 0.02, False)],
    ids=["in time", "one hiccup", "just so", "late"],
)
def test_a_sender_that_was_late_is_rejected(late_us_max: float, left_late: float, accepted: bool) -> None:
    """Only where rounds can have left late in number; then the reason names what was found, and both bounds."""
    verdict, why = judge_sender(late_us_max, left_late, 1000.0)
    assert verdict is accepted
    if accepted:
        assert why is None
    else:
        assert why is not None
        assert "2 % of the rounds (bound 1 %) left more than 1000 us after they were due, one of them 3000 us" in why


def test_the_bound_grows_with_the_period() -> None:
    """Ten periods, but never less than a slice of a shared core."""
    assert late_bound_us(1.0) == 1000.0
    assert late_bound_us(1000.0) == 10_000.0


def test_default_rounds_last_ten_seconds() -> None:
    """At most two million."""
    assert default_rounds(20.0) == 500_000
    assert default_rounds(1.0) == 2_000_000


def test_amendments_are_no_answers() -> None:
    """Reaction counts from when the last round was due, service from when it came; amendments count in neither."""
    corrections = np.zeros(4, CORRECTION)
    corrections["sent_ns"] = [1000, 2000, 3000, 1000]
    corrections["received_ns"] = [1200, 2100, 3900, 1200]
    corrections["published_ns"] = [1300, 2600, 4000, 90_000]
    corrections["flags"] = [0, CorrectionFlag.LATE, 0, CorrectionFlag.AMENDMENT | CorrectionFlag.LATE]
    times = wire_times(corrections, Floor(np.array([70, 80]), 2, 0))
    assert times.reaction.tolist() == [300, 600, 1000]
    assert times.service.tolist() == [100, 500, 100]
    assert times.late == pytest.approx(1 / 3)
    assert times.named()["floor"].tolist() == [70, 80]


def test_a_rejected_run_is_written_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row stands in the results with its reason, the terminal shows it, and the command ends with 1."""
    found = {"mode": "wire", "accepted": False, "why": "the sender was up to 9 ms late"}
    monkeypatch.setattr("bench.latency.measure_wire", lambda *_: (found, times_of(100, floor=True)))
    small = ["plan.distance=3", "plan.rounds=12", "window.commit_rounds=3", "window.buffer_rounds=3"]
    with pytest.raises(typer.Exit) as exit_:
        latency(CONFIGS / "d5_memory_z.toml", set_=small, mode=Mode.WIRE, out=tmp_path)
    assert exit_.value.exit_code == 1
    (written,) = read_rows(tmp_path, "latency")
    assert written["result"]["accepted"] is False
    assert written["result"]["why"] == found["why"]
    assert (tmp_path / written["result"]["hdr_log"]).exists()


def test_service_mode_needs_no_daemon(tmp_path: Path) -> None:
    """One row per period of a sweep, each with a response no shorter than its service, and no floor."""
    small = ["plan.distance=3", "plan.rounds=12", "window.commit_rounds=3", "window.buffer_rounds=3"]
    latency(
        CONFIGS / "d5_memory_z.toml", set_=small, sweep=["pace.period_us=50,5"], mode=Mode.SERVICE, service_rounds=2000,
        out=tmp_path,
    )  # fmt: skip
    rows = list(read_rows(tmp_path, "latency"))
    assert [row["result"]["period_us"] for row in rows] == [50.0, 5.0]
    for row in rows:
        result = row["result"]
        assert result["rounds"] == 2002
        assert result["corrections"] == 154 * 4
        assert result["reaction_us"]["p50"] >= result["service_us"]["p50"]
        assert result["floor_us"] is None
        assert result["accepted"]


def row(digest: str, mode: str, accepted: bool) -> dict[str, Any]:
    return {"case": {"config_digest": digest}, "result": {"mode": mode, "accepted": accepted}}


def test_one_accepted_repeat_is_enough() -> None:
    """A verb fails where a case has no accepted run in some mode, not where one of several was rejected."""
    rows = [row("a", "wire", False), row("a", "wire", True), row("b", "service", True)]
    assert not rejected_altogether(rows)
    assert rejected_altogether([*rows, row("b", "wire", False)])


def test_logs_are_read_again_by_the_library(tmp_path: Path) -> None:
    """HdrHistogram's own reader finds every tag, all counts, times, and percentiles within its three figures."""
    rng = np.random.default_rng(3)
    samples = {
        "reaction": rng.lognormal(10, 1, 5000).astype(np.int64),
        "service": np.array([-5, 0, 1, 900], np.int64),
        "floor": np.array([HIGHEST_NS * 3, 7], np.int64),
    }
    path = tmp_path / "latency.hlog"
    write_hdr_log(path, samples, 1_760_000_000.25, 1_760_000_010.5)
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_NS, FIGURES))
    read = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read[histogram.get_tag()] = histogram
    reader.close()
    assert list(read) == list(samples)
    for name, values in samples.items():
        assert read[name].get_total_count() == len(values)
        assert read[name].get_start_time_stamp() == 1_760_000_000_250
        assert read[name].get_end_time_stamp() == pytest.approx(1_760_000_010_500)
    for percent in (50, 90, 99):
        exact = np.percentile(samples["reaction"], percent, method="inverted_cdf")
        assert read["reaction"].get_value_at_percentile(percent) == pytest.approx(exact, rel=2e-3)
    assert read["floor"].get_max_value() == pytest.approx(HIGHEST_NS, rel=2e-3)
    assert read["service"].get_min_value() == 1


def test_a_log_says_its_unit(tmp_path: Path) -> None:
    """A reader who opens the file finds what the values are."""
    path = tmp_path / "latency.hlog"
    write_hdr_log(path, {"reaction": np.array([1000])}, 1.0, 2.0)
    assert "Values are nanoseconds" in path.read_text()


def test_held_answers_do_not_count_as_quick_ones() -> None:
    """A run with more than one held answer in a hundred is rejected, and says how many; one in a hundred is not."""
    assert judge_answers(10, 1000) is None
    assert judge_answers(0, 0) is None
    why = judge_answers(11, 1000)
    assert why is not None
    assert "11 of 1000 answers were held" in why


def test_a_path_that_does_not_keep_up_is_rejected_in_service_mode() -> None:
    """Rounds a thousand times too fast are answered by holding; the row keeps its numbers, and is not accepted."""
    small = ["plan.distance=3", "plan.rounds=30", "window.commit_rounds=3", "window.buffer_rounds=3"]
    (case,) = cases_of(CONFIGS / "d5_memory_z.toml", [*small, "pace.period_us=0.01"], [])
    result, _ = measure_service(case, case.plan(), 20_000, 3)
    assert not result["accepted"]
    assert "held" in result["why"]
    assert result["rungs"]["hold"] > 0
