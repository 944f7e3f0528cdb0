"""Which lane carries which patch: as configured, else so that the lanes cost about the same."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rtqec.config import Config
from rtqec.log import get_logger


def shard_patches(config: Config) -> list[list[int]]:
    """The patch ids of each lane, in the order of the configuration.

    Patches of equal plans cost the same, and are dealt out without measuring. Otherwise each distinct plan is measured
    (`check.path_cost_us`) in a process of its own: the supervisor neither compiles nor decodes.
    """
    homes = {patch.id: patch.lane for patch in config.patch if patch.lane is not None}
    if config.lane.count == 1:
        homes = {patch.id: 0 for patch in config.patch}
    elif len(homes) < len(config.patch):
        costs_us = _costs_us(config)
        homes = balance(costs_us, homes, config.lane.count)
        get_logger().info("patches_sharded", lanes=homes, cost_us={k: round(v, 3) for k, v in costs_us.items()})
    return [[patch.id for patch in config.patch if homes[patch.id] == lane] for lane in range(config.lane.count)]


def balance(costs_us: dict[int, float], fixed: dict[int, int], num_lanes: int) -> dict[int, int]:
    """Longest processing time first: each patch that is not fixed goes to the lane with the least, dearest first.

    No lane stays empty, as there are at least as many patches as lanes (unless all are fixed otherwise).

    Args:
        costs_us: Cost per round of each patch.
        fixed: Lanes of those that have one already.
        num_lanes: Lanes to fill.

    Returns:
        The lane of each patch. Deterministic: ties go to the lower lane, and to the patch that comes first.
    """
    homes = dict(fixed)
    loads = [0.0] * num_lanes
    counts = [0] * num_lanes
    for patch_id, lane in fixed.items():
        loads[lane] += costs_us[patch_id]
        counts[lane] += 1
    free = sorted((patch_id for patch_id in costs_us if patch_id not in fixed), key=lambda p: -costs_us[p])
    for patch_id in free:
        lane = min(range(num_lanes), key=lambda k: (loads[k], counts[k], k))
        homes[patch_id] = lane
        loads[lane] += costs_us[patch_id]
        counts[lane] += 1
    return homes


def _costs_us(config: Config) -> dict[int, float]:
    """Cost per round of every patch; all ones where they are equal."""
    tables = [repr(config.tables_of(patch)) for patch in config.patch]
    if len(set(tables)) == 1:
        return {patch.id: 1.0 for patch in config.patch}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, config.model_dump(), config.folder).result()


def _measure(tables: dict[str, Any], folder: str) -> dict[int, float]:
    """Runs in the process that measures."""
    from rtqec.check import path_cost_us
    from rtqec.plan import compile_plans

    config = Config.model_validate(tables | {"folder": folder})
    plans = compile_plans(config)
    costs = {plan.digest: path_cost_us(plan) for plan in {plan.digest: plan for plan in plans}.values()}
    return {patch.id: costs[plan.digest] for patch, plan in zip(config.patch, plans, strict=True)}
