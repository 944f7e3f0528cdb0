"""What windowing costs, on paired simulated shots with fixed seeds. Figures: 2026-11-20, Stim 1.16."""

from __future__ import annotations

import pytest

from rtqec.config import VerifyTable
from rtqec.verify import Pairing, verify_plan
from tests.harness import make_plan

pytestmark = pytest.mark.statistics
SHOTS = 20_000


def paired(distance: int, **overrides: object) -> Pairing:
    """20,000 shots of 10 d rounds at p = 0.003, windows of commit d and buffer d unless said."""
    tables = {
        "plan__distance": distance,
        "plan__rounds": 10 * distance,
        "plan__noise": 0.003,
        "window__commit_rounds": distance,
        "window__buffer_rounds": distance,
    }
    plan = make_plan(**(tables | overrides))
    return verify_plan(plan, VerifyTable(shots=SHOTS, seed=1)).pairing


@pytest.mark.parametrize("distance", [5, 7])
def test_plain_windows_disagree_on_at_most_ten_shots(distance: int) -> None:
    """3 and 0 measured with this seed; a buffer too short by two rounds gives tens."""
    pairing = paired(distance)
    assert pairing.disagreements <= 10
    assert pairing.unexplained == 0
    assert pairing.failures_whole_shot > 20


@pytest.mark.parametrize("basis", ["z", "x"])
def test_both_frames_disagree_on_at_most_ten_shots(basis: str) -> None:
    """The frame of either experiment, while both are tracked, against whole-shot matching of that experiment alone."""
    pairing = paired(5, plan__frames="both", plan__generated=f"surface_code:rotated_memory_{basis}")
    assert pairing.disagreements <= 10
    assert pairing.unexplained == 0


@pytest.mark.parametrize("distance", [5, 7])
def test_correlated_windows_lose_at_most_five_percent(distance: int) -> None:
    """Exact 95 % upper bound of worse minus better, commit 3 d: at most 5 % of whole-shot failures."""
    pairing = paired(distance, plan__matching="correlated", window__commit_rounds=3 * distance)
    _, upper = pairing.difference_bounds(0.95)
    assert upper <= 0.05 * pairing.failures_whole_shot
    assert pairing.unexplained == 0


def test_correlated_matching_needs_all_components() -> None:
    """Correlated matching in windows fails much less often than plain: half as often is expected at d = 5."""
    plain, correlated = paired(5), paired(5, plan__matching="correlated")
    assert correlated.failures < 0.75 * plain.failures


def test_a_missing_buffer_is_seen() -> None:
    """The test itself can fail: without a buffer hundreds of shots disagree."""
    pairing = paired(5, window__buffer_rounds=0, window__accept_short_buffer=True)
    assert pairing.disagreements > 200
    assert pairing.unexplained == 0
