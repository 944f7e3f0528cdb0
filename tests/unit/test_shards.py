"""Patches are shared out so that lanes cost about the same, and always in the same way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtqec.service.shards import balance, shard_patches
from tests.harness import make_config

ENDPOINTS = {"feed__endpoint": "ipc:///tmp/f{lane}", "publish__endpoint": "ipc:///tmp/p{lane}"}


@given(
    costs=st.lists(st.floats(0.1, 100), min_size=4, max_size=40),
    num_lanes=st.integers(1, 4),
    fixed=st.dictionaries(st.integers(0, 3), st.integers(0, 0), max_size=3),
)
def test_no_lane_has_more_than_its_share_and_one_patch(
    costs: list[float], num_lanes: int, fixed: dict[int, int]
) -> None:
    """What is free goes where it is cheapest: no free patch would be better off in a lane that has less."""
    costs_us = dict(enumerate(costs))
    homes = balance(costs_us, fixed, num_lanes)
    assert homes == balance(costs_us, fixed, num_lanes)
    assert set(homes) == set(costs_us)
    assert all(homes[patch] == lane for patch, lane in fixed.items())
    loads = [sum(costs_us[p] for p in homes if homes[p] == lane) for lane in range(num_lanes)]
    assert len(fixed) > 0 or all(lane in homes.values() for lane in range(num_lanes))
    for patch, lane in homes.items():
        if patch not in fixed:
            # It was put there when that lane had least; dearer ones came before it.
            assert loads[lane] - costs_us[patch] <= min(loads) + max(costs) + 1e-9


def test_equal_patches_are_dealt_out() -> None:
    """Nothing is measured where nothing differs."""
    config = make_config(lane__count=2, patch=[{"id": k} for k in (5, 3, 9, 1)], **ENDPOINTS)
    assert shard_patches(config) == [[5, 9], [3, 1]]


def test_lanes_that_are_named_are_kept() -> None:
    """A patch with a lane of its own stays there; the others make up for it."""
    patches = [{"id": 0, "lane": 1}, {"id": 1, "lane": 1}, {"id": 2}, {"id": 3}]
    config = make_config(lane__count=2, patch=patches, **ENDPOINTS)
    assert shard_patches(config) == [[2, 3], [0, 1]]


def test_dear_patches_are_measured() -> None:
    """Of three patches, one with a far larger code: it gets a lane of its own."""
    patches = [{"id": 0}, {"id": 1, "plan": {"distance": 7, "noise": 0.02}, "window": {"buffer_rounds": 7}}, {"id": 2}]
    config = make_config(lane__count=2, patch=patches, **ENDPOINTS)
    assert sorted(shard_patches(config)) == [[0, 2], [1]]
