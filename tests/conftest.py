"""Fixtures that all tests share. The tools behind them are in `tests.harness`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from rtqec.plan import Plan
from tests.harness import Bench, BenchMaker, make_plan

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("deterministic")

D5 = {"plan__distance": 5, "plan__rounds": 20, "window__commit_rounds": 5, "window__buffer_rounds": 5}


@pytest.fixture(scope="session")
def plan_d3() -> Plan:
    """Finite, distance 3, 13 rounds with the readout, windows of 3 + 3."""
    return make_plan()


@pytest.fixture(scope="session")
def plan_d5() -> Plan:
    """Finite, distance 5, 21 rounds with the readout, windows of 5 + 5."""
    return make_plan(**D5)


@pytest.fixture(scope="session")
def plan_endless() -> Plan:
    """Endless, distance 3, windows of 3 + 3."""
    return make_plan(plan__rounds="endless")


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[BenchMaker]:
    """Make benches that are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda *plans, **options: stack.enter_context(Bench(tmp_path, list(plans), **options))


@pytest.fixture
def bench_d3(make_bench: BenchMaker, plan_d3: Plan) -> Any:
    """One patch of `plan_d3`, raw measurements."""
    return make_bench(plan_d3)
