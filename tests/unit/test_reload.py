"""What changes while the daemon runs, what does not, and that both are named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rtqec.service.lanes import LaneKeeper, SwapRefusedError
from rtqec.service.reload import compare, describe_refusal, lanes_to_swap
from tests.harness import make_config

TWO = {"patch": [{"id": 0}, {"id": 1}]}


def lanes_of(config: Any) -> list[LaneKeeper]:
    return [cast(LaneKeeper, SimpleNamespace(config=config.of_lane(k, [k]), name=f"lane{k}")) for k in range(2)]


def test_live_keys_and_fixed_keys_are_told_apart() -> None:
    """Budgets, clients and the log's level change, endpoints and plans do not; the simulator's tables do not count."""
    old = make_config(**TWO)
    new = make_config(
        patch=[{"id": 0, "budget_us": 5.0}, {"id": 1, "plan": {"noise": 0.02}}], log__level="debug",
        deadline__budget_us=50.0, feed__endpoint="ipc:///elsewhere", source__shots=5,
    )  # fmt: skip
    changed, refused = compare(old, new)
    assert set(changed) == {"patch 0.budget_us", "log.level", "deadline.budget_us"}
    assert set(refused) == {"patch 1.plan", "feed.endpoint"}
    assert "swap-plan" in describe_refusal("patch 1.plan")
    assert "restart" in describe_refusal("feed.endpoint")
    assert compare(old, old) == ([], [])


def test_a_swap_concerns_the_lanes_whose_plans_differ() -> None:
    """One patch's plan: its lane only; the table's: all."""
    old = make_config(**TWO)
    one = make_config(patch=[{"id": 0}, {"id": 1, "plan": {"noise": 0.02}}])
    assert [lane.name for lane in lanes_to_swap(old, one, lanes_of(old))] == ["lane1"]
    both = make_config(plan__noise=0.02, **TWO)
    assert [lane.name for lane in lanes_to_swap(old, both, lanes_of(old))] == ["lane0", "lane1"]


def test_a_swap_of_nothing_or_of_more_is_refused() -> None:
    """The message says what differs, and what to do instead."""
    old = make_config(**TWO)
    with pytest.raises(SwapRefusedError, match="no plan differs"):
        lanes_to_swap(old, make_config(**TWO), lanes_of(old))
    with pytest.raises(SwapRefusedError, match=r"deadline\.budget_us"):
        lanes_to_swap(old, make_config(deadline__budget_us=1.0, plan__noise=0.02, **TWO), lanes_of(old))
