"""Stages are measured on the real path: what passes is decoded as it always is, and the parts make the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.cases import Case, cases_of
from bench.inline import InlineLane
from bench.rows import read_rows
from bench.staged import STAGES, StageBench, StageTimes, window_closings
from bench.stages import stages
from bench.tape import Tape, drain
from firmware_sim.sources import finite_shots
from rtqec.errors import ConfigError
from rtqec.windowed import WindowedDecoder

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["plan.distance=3", "plan.rounds=11", "plan.noise=0.01", "source.shots=40"]


@pytest.fixture(scope="module")
def case() -> Case:
    return cases_of(CONFIGS / "d5_memory_z.toml", SMALL, [])[0]


def test_windows_close_when_their_last_round_has_come(case: Case) -> None:
    """Windows of 3 + 3 of a shot of 12 rounds close after 6, 9 and 12 rounds, those of the next shot 12 later."""
    assert window_closings(case.plan(), 2).tolist() == [6, 9, 12, 18, 21, 24]


def test_a_tape_is_decoded_as_the_same_shots_are_without_a_lane(case: Case) -> None:
    """Messages of a tape are accepted whole, pass after pass, and their corrections are those of the slow twin."""
    plan = case.plan()
    shots = finite_shots(case.config, plan, seed=7)
    events = np.unpackbits(shots.detection_events_b8, axis=1, bitorder="little", count=plan.rounds.detector_bit.size)
    expected = WindowedDecoder(plan)(plan.rounds.layers_b8(events.astype(np.bool_)))[:, 0]
    tape = Tape(plan, shots)
    with InlineLane(plan, case.config.ladder) as lane:
        for shot in (0, 40):
            tape.renumber()
            tape.ingest(lane, 0, len(tape))
            while lane.pipeline.step():
                pass
            journal = lane.telemetry.corrections_of(0, 3 * shot, 3 * shot + 120)
            flips = np.zeros(40, np.uint64)
            np.bitwise_xor.at(flips, journal["shot_id"].astype(np.int64) - shot, journal["flips"])
            assert np.array_equal(flips.astype(np.bool_), expected)
        totals = lane.telemetry.totals()
    assert (totals["rounds"], totals["windows"], totals["shots"]) == (2 * len(tape), 240, 80)
    assert not [name for name in totals if name.startswith("bad_") and totals[name]]


def test_a_tape_sent_over_a_socket_arrives_whole(case: Case) -> None:
    """What `send` hands over, `drain` receives, byte for byte the messages of the tape."""
    plan = case.plan()
    tape = Tape(plan, finite_shots(case.config, plan, seed=7))
    tape.renumber()
    with InlineLane(plan, case.config.ladder) as lane:
        bench = StageBench(case, plan, 1, lane, seed=1)
        try:
            push, pull = bench._push, bench._pull
            assert tape.send(push, 0, 2) == 2
            assert [pull.recv() for _ in range(2)] == [
                tape.memory[i, : tape.sizes[i]].tobytes() for i in range(2)
            ]  # fmt: skip
            assert tape.send(push, 2, 5) == 3
            assert drain(pull.underlying, 3, lane.intake.message) == 3
        finally:
            bench.close()


def test_stages_make_the_path_and_every_window_is_answered(case: Case) -> None:
    """The stages and what is left over add up to the path, path, ingest and transport to the total; nothing is lost."""
    plan = case.plan()
    times = StageTimes()
    with InlineLane(plan, case.config.ladder) as lane:
        bench = StageBench(case, plan, 20, lane, seed=3)
        try:
            bench.measure(times)
        finally:
            bench.close()
        assert lane.telemetry.totals()["windows"] == 2 * 60  # Once without clocks, once with.
    result = times.result()
    us = result["cpu_us_per_round"]
    assert (result["rounds"], result["windows"]) == (240, 60)
    assert result["events_per_window"] > 0
    assert sum(us[name] for name in (*STAGES, "other")) == pytest.approx(us["path"])
    assert us["transport"] + us["ingest"] + us["path"] == pytest.approx(us["total"])
    assert result["path_over_floor"] == pytest.approx(us["path"] / result["floor_us_per_round"]["match"])


def test_the_verb_writes_a_row_per_case_and_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows lie in the folder, in the order of repeats, which share a lane, and a table is printed."""
    stages(CONFIGS / "d5_memory_z.toml", SMALL, ["plan.noise=0.001,0.01"], 2, 1, 5, tmp_path)
    rows = list(read_rows(tmp_path, "stages"))
    assert [(row["repeat"], row["case"]["noise"]) for row in rows] == [(0, 0.001), (0, 0.01), (1, 0.001), (1, 0.01)]
    assert "PyMatching" in capsys.readouterr().out


def test_an_endless_plan_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Stages are measured on shots that end; the message says how to give them an end."""
    with pytest.raises(ConfigError, match=r"--set plan\.rounds"):
        stages(CONFIGS / "d5_1us.toml", ["plan.distance=3", "window.commit_rounds=3", "window.buffer_rounds=3"], None,
               1, 1, 5, tmp_path)  # fmt: skip
