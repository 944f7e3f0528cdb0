"""Ten thousand damaged messages; `python -m tests.hostile.fuzz_wire` throws a million."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.fuzz_wire import INPUTS_PER_CHECK, fuzz


def test_whatever_arrives_is_judged_by_the_rules_and_the_next_good_shot_decoded(tmp_path: Path) -> None:
    """Each of 10,000 inputs is refused for the one reason that an independent parser gives, or accepted; corrections
    fit together; and all along whole good shots are decoded. Every cause of refusal, and of loss, is met."""
    report = fuzz(10_000, seed=2, folder=tmp_path)
    assert sum(report["verdicts"].values()) == report["inputs"] == 10_000
    assert report["good_shots_decoded"] == 3 * 10_000 // INPUTS_PER_CHECK
    assert len(report["verdicts"]) == 10
    assert all(count > 0 for name, count in report["counts"].items() if name != "resyncs"), report["counts"]
