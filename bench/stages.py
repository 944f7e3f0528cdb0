"""The verb `stages`: where a window's time goes, and the floor under it. How it is measured: `bench.staged`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import typer
from rich.table import Table

from bench.cases import Case
from bench.inline import InlineLane
from bench.options import (
    DEFAULT_OUT,
    DEFAULT_SEED,
    ConfigArgument,
    OutOption,
    RepeatsOption,
    SeedOption,
    SetOption,
    SweepOption,
    session_of,
)
from bench.rows import Row
from bench.session import Session
from bench.staged import STAGES, StageBench, StageTimes
from rtqec.errors import ConfigError
from rtqec.plan import Plan

_BLOCK_ROUNDS = 4000
"""Rounds of a block: they fit into the ring and into the socket's queue, so that nobody waits inside a clock."""
_RING_ROUNDS = 8192


def _finite(case: Case) -> Plan:
    plan = case.plan()
    if plan.endless:
        raise ConfigError(
            "[plan] rounds", 'is "endless", but stages are measured on shots that end.',
            "The floor decodes the same windows in one batch.", "Add --set plan.rounds=200, or any other length.",
        )  # fmt: skip
    return plan


def _lane(case: Case) -> InlineLane:
    plan = case.plan()
    return InlineLane(plan, case.config.ladder, ring_rounds=max(_RING_ROUNDS, 4 * plan.rounds.num_rounds))


def measure_case(session: Session, case: Case, repeat: int, blocks: int, lane: InlineLane) -> dict[str, Any]:
    """One measurement: `blocks` blocks, the first of which warms and does not count."""
    num_shots = max(1, _BLOCK_ROUNDS // lane.plan.rounds.num_rounds)
    bench = StageBench(case, lane.plan, num_shots, lane, session.seed + repeat)
    times = StageTimes()
    try:
        bench.measure(StageTimes())
        for _ in range(blocks):
            bench.measure(times)
    finally:
        bench.close()
    return times.result()


def stages(
    config: ConfigArgument, set_: SetOption = None, sweep: SweepOption = None, repeats: RepeatsOption = 1,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of about 4000 rounds that count.")] = 20,
    seed: SeedOption = DEFAULT_SEED, out: OutOption = DEFAULT_OUT,
) -> None:  # fmt: skip
    """Where a window's time goes, and PyMatching alone on the same windows: the ratio is the headline."""
    session = session_of("stages", config, set_, sweep, repeats, seed, out)
    for case in session.cases:
        _finite(case)
    rows: list[Row] = []
    with session.progress(len(session.cases) * repeats, "stages"), ExitStack() as stack:
        # Matchers take longer to make than to measure: each case has one lane for all of its repeats.
        lanes: dict[Case, InlineLane] = {}
        for repeat, case in session.measurements():
            if case not in lanes:
                lanes[case] = stack.enter_context(_lane(case))
            result = measure_case(session, case, repeat, blocks, lanes[case])
            rows.append(session.add(case, repeat, result, case.plan().digest))
            session.advance()
    session.console.print(_table(rows))


def _table(rows: list[Row]) -> Table:
    columns = ("transport", "ingest", *STAGES, "other", "path")
    table = Table(title="CPU time, us per round", title_justify="left", box=None, pad_edge=False)
    for name in ("d", "p", "rounds", *columns, "PyMatching", "send", "path / PyMatching", "all / floor"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        case, result = row["case"], row["result"]
        cells = [f"{result['cpu_us_per_round'][name]:.3f}" for name in columns]
        rounds = f"{case['commit_rounds']}+{case['buffer_rounds']}"
        table.add_row(
            str(case["distance"]), f"{case['noise'] or 0:g}", rounds, *cells,
            f"{result['floor_us_per_round']['match']:.3f}", f"{result['floor_us_per_round']['send']:.3f}",
            f"{result['path_over_floor']:.2f}", f"{result['total_over_floor']:.2f}",
        )  # fmt: skip
    return table
