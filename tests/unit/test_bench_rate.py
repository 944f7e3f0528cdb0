"""A row of `rtqec-bench rate` says what was found, how it was decided, and what it cost; what is unknown is blank."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.modes import Mode
from bench.rate import rate
from bench.rows import read_rows
from bench.trial import Trial
from rtqec.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "configs" / "d5_memory_z.toml"
SMALL = ["plan.distance=3", "plan.rounds=12", "window.commit_rounds=3", "window.buffer_rounds=3"]


def result_of(out: Path) -> dict[str, Any]:
    (row,) = read_rows(out, "rate")
    found: dict[str, Any] = row["result"]
    return found


def fake_trials(monkeypatch: pytest.MonkeyPatch, limit: float) -> None:
    """No daemon: a trial holds up to the limit."""
    monkeypatch.setattr("bench.rate.feeding", lambda *_: nullcontext())
    monkeypatch.setattr("bench.rate.make_trial", lambda _feeder, rate, *_: Trial(rate, rate <= limit, "scripted"))


def test_a_wire_row_holds_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit, interval, and each trial with its verdict; energy and cost are blank where nothing could be read."""
    fake_trials(monkeypatch, 54_321)
    rate(CONFIG, set_=SMALL, mode=Mode.WIRE, out=tmp_path)
    result = result_of(tmp_path)
    low, high = result["interval"]
    assert low <= 54_321 <= high
    assert low <= result["rounds_per_s"] <= high
    assert result["known"]
    assert result["edge"] is None
    assert all(trial["held"] == (trial["rounds_per_s"] <= 54_321) for trial in result["trials"])
    assert f"of {len(result['trials'])} trials held" in result["how"]
    assert result["windows_per_s_per_core"] is result["windows_per_s_per_gpu"] is None
    assert result["joules_per_million_windows"] is None


def test_a_limit_beyond_the_edge_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything holds, the row names the edge, and does not pass it for a limit."""
    fake_trials(monkeypatch, 1e9)
    rate(CONFIG, set_=SMALL, mode=Mode.WIRE, out=tmp_path)
    result = result_of(tmp_path)
    assert result["edge"] == "high"
    assert result["rounds_per_s"] == 2e6
    assert "above 2e+06, the highest rate to try" in result["how"]


def test_a_service_row_has_both_ways(tmp_path: Path) -> None:
    """Rate and cost are two words for one number; saturated windows are larger; nothing is held."""
    rate(CONFIG, set_=SMALL, mode=Mode.SERVICE, seconds=0.05, out=tmp_path)
    result = result_of(tmp_path)
    single, saturated = result["ways"]["one_by_one"], result["ways"]["saturated"]
    assert result["rounds_per_s"] == single["rounds_per_s"] == pytest.approx(1e6 / result["cpu_us_per_round"])
    assert result["interval"][0] <= result["rounds_per_s"] <= result["interval"][1]
    assert single["rounds_per_window"] == pytest.approx(13 / 4, rel=1e-3)
    assert single["windows_per_s_per_core"] == pytest.approx(result["rounds_per_s"] / single["rounds_per_window"])
    assert saturated["rounds_per_window"] > single["rounds_per_window"]
    assert saturated["rungs"]["hold"] == 0.0
    assert sum(saturated["rungs"].values()) == pytest.approx(1)


def test_nothing_lies_between_equal_bounds(tmp_path: Path) -> None:
    """Bounds the wrong way round are refused before anything is measured."""
    with pytest.raises(ConfigError) as refused:
        rate(CONFIG, low=5000.0, high=5000.0, out=tmp_path)
    assert "--low 5000 is not below --high 5000" in str(refused.value)
