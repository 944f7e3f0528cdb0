"""The main job through real processes and sockets: rounds in, every correction checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import SMALL_WINDOWS, RunLoop

STEADY = ("ladder.fallbacks=[]", "feed.ring_rounds=1048576", "sink.settle_s=60")
"""However busy the machine that runs the tests: nothing steps down, catches up or is held."""
CALM = (*STEADY, "source.shots=300", "pace.period_us=30")


def assert_clean(report: dict[str, Any]) -> None:
    """Nothing lost, nothing twice, nothing out of order, nothing unexplained."""
    assert report["rounds_lost"] == 0
    assert report["corrections_received"] == report["corrections_expected"] > 0
    assert report["corrections_out_of_order"] == 0
    assert report["corrections_wrong_digest"] == 0
    assert report["corrections_wrong_frame"] == 0
    assert report["unexplained"] == 0
    assert report["flags"]["lossy"] == report["flags"]["degraded"] == 0


def test_raw_measurements_over_ipc(run_loop: RunLoop) -> None:
    """One raw round per message: each correction once and in order, and as good as whole-shot matching."""
    report = run_loop("d5_memory_z.toml", *CALM)
    assert_clean(report)
    assert report["rounds_sent"] == report["messages_sent"] == 300 * 51
    assert report["shots"] == 300
    assert report["disagreements"] <= 1


def test_detection_events_over_tcp_many_rounds_a_message(run_loop: RunLoop, free_port: Any) -> None:
    """Events instead of measurements, tcp instead of ipc, seven rounds a message, with checksums required."""
    report = run_loop(
        "d5_memory_z.toml",
        "plan.distance=3",
        *SMALL_WINDOWS,
        *CALM,
        f"feed.endpoint=tcp://127.0.0.1:{free_port()}",
        f"publish.endpoint=tcp://127.0.0.1:{free_port()}",
        "feed.payload=detection_events",
        "feed.require_crc=true",
        "source.rounds_per_message=7",
    )
    assert_clean(report)
    # 51 rounds: 4 detectors, 49 x 8, 4.
    assert report["messages_sent"] == 300 * (1 + 7 + 1)
    assert report["disagreements"] <= 1


def test_endless_stream_of_measurements(run_loop: RunLoop) -> None:
    """One shot of any length: committed to its last round, and the frame after it is the truth at low noise."""
    # With the configured 60 instead of 20 both processes would compile the plan for ten seconds.
    report = run_loop("d5_1us.toml", "window.commit_rounds=20", "source.rounds=40013", "pace.period_us=20", *STEADY)
    assert_clean(report)
    assert report["rounds_sent"] == 40013
    assert report["shots"] == 1
    # p = 0.001, d = 5: about 3e-5 logical errors per round in simulation; the seed is fixed, so is the outcome.
    assert report["logical_errors"] == 0 or report["logical_errors"] == 1


def test_two_patches_of_different_plans(run_loop: RunLoop) -> None:
    """Two streams over one socket, each with its own plan, ring and frame."""
    report = run_loop("two_patches.toml", *CALM)
    assert_clean(report)
    assert report["shots"] == 600
    assert len(set(report["plan_digest"])) == 2
    assert report["disagreements"] <= 2


def test_both_frames(run_loop: RunLoop) -> None:
    """Each experiment's own frame equals whole-shot matching of that experiment while both frames are tracked."""
    report = run_loop("d5_both_frames.toml", "plan.distance=3", *SMALL_WINDOWS, *CALM)
    assert_clean(report)
    assert report["disagreements"] <= 2


def test_correlated_matching(run_loop: RunLoop) -> None:
    """Correlated matching runs in windows, and says so on every correction."""
    report = run_loop("d5_memory_z.toml", *CALM, "plan.matching=correlated")
    assert_clean(report)
    assert report["rungs"]["correlated_match"] == report["corrections_received"]
    assert report["disagreements"] <= 3


@pytest.mark.recorded
@pytest.mark.parametrize(
    ("experiment", "failures", "rounds"),
    [("surface_code_bX_d3_r05_center_3_5", 7825, 6), ("surface_code_bX_d5_r05_center_5_5", 7412, 6)],
)
def test_recorded_whole_shots_bit_for_bit(
    run_loop: RunLoop, recorded_data: Any, experiment: str, failures: int, rounds: int
) -> None:
    """Sycamore's raw measurements through the daemon: with a window longer than the shot, PyMatching's own answers.

    Whole-shot PyMatching reproduces the published predictions on all 50,000 shots; so no disagreement means equal bits.
    """
    folder = f"{recorded_data}/google_qec3v5/{experiment}"
    report = run_loop(
        "sycamore_d5_r05.toml",
        f"plan.circuit={folder}/circuit_noisy.stim",
        f"plan.dem={folder}/circuit_detector_error_model.dem",
        f"source.folder={folder}",
        "pace.period_us=5",
        *STEADY,
    )
    assert_clean(report)
    assert report["rounds_sent"] == 50_000 * rounds
    assert report["logical_errors"] == report["logical_errors_whole_shot"] == failures
    assert report["disagreements"] == 0


@pytest.mark.recorded
def test_recorded_windows(run_loop: RunLoop, recorded_data: Any) -> None:
    """d=3, 25 rounds, W = 6, C = 3: at most 1.5 % of shots disagree, and not for the worse beyond 3 sigma."""
    report = run_loop("sycamore_d3_r25.toml", "pace.period_us=5", *STEADY)
    assert_clean(report)
    assert report["shots"] == 50_000
    assert report["logical_errors_whole_shot"] == 21703
    assert report["disagreements"] <= 750
    assert report["worse"] - report["better"] <= 3 * report["disagreements"] ** 0.5


@pytest.mark.recorded
def test_recorded_windows_without_a_buffer_fail(run_loop: RunLoop, recorded_data: Any) -> None:
    """The test above can fail: without a buffer, accepted by name, far more than 1.5 % of shots disagree."""
    report = run_loop(
        "sycamore_d3_r25.toml",
        "source.shots=5000",
        "window.buffer_rounds=0",
        "window.accept_short_buffer=true",
        "pace.period_us=5",
        *STEADY,
    )
    assert_clean(report)
    assert report["disagreements"] > 0.1 * report["shots"]


@pytest.mark.parametrize(("hand_over", "rung"), [("hard", "predecoded_match"), ("soft", "soft_match")])
def test_a_network_before_the_matcher(run_loop: RunLoop, tmp_path: Path, hand_over: str, rung: str) -> None:
    """With the shipped network on the CPU all windows go through it. Hard: most events are gone before matching, and
    what it did is right wherever it was checked.
    """
    pytest.importorskip("openvino", reason="needs the extra cpu")
    pytest.importorskip("fusion_blossom", reason="needs the extra soft")
    report = run_loop(
        "d5_predecoder_cpu.toml", "source.shots=60", "pace.period_us=2000", "deadline.budget_us=1000000",
        f"service.cache_dir={tmp_path}", f"predecode.hand_over={hand_over}", *STEADY,
    )  # fmt: skip
    assert_clean(report)
    daemon = report["daemon"]
    assert report["rungs"][rung] == report["corrections_expected"]
    assert daemon["rounds_predecoded"] == report["rounds_sent"]
    if hand_over == "hard":
        assert daemon["events_left"] < 0.25 * daemon["events_found"]
        assert daemon["predecodings_checked"] > 0
        assert daemon["predecodings_wrong"] == 0
