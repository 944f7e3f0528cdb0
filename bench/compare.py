"""The same shots, on the same machine, in one run, against the decoders that are installed.

Clocks run around the decoder only, without garbage collection; what a library wants in a form of its own is laid out
before. Time per round is CPU time of the thread, or of the process where a library has threads of its own. The order of
the decoders moves on by one from repeat to repeat, and the ratio to rtqec is that of the same repeat.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from bench.cases import Case
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
from bench.peers.contest import Contest, Kind, Result
from bench.peers.registry import OURS, chosen
from bench.session import Session

PeersOption = Annotated[str | None, typer.Option("--peers", help="Decoders, separated by commas; all by default.")]
ShotsOption = Annotated[int, typer.Option("--shots", min=1, help="Shots of each case, where --workload is shots.")]
KindOption = Annotated[
    Kind, typer.Option("--workload", help="Finite shots, or one long stream for what answers while rounds come.")
]
RoundsOption = Annotated[int, typer.Option("--rounds", min=1, help="Rounds of the stream.")]


def compare(
    config: ConfigArgument, set_: SetOption = None, sweep: SweepOption = None, repeats: RepeatsOption = 3,
    seed: SeedOption = DEFAULT_SEED, out: OutOption = DEFAULT_OUT, peers: PeersOption = None,
    shots: ShotsOption = 4000, workload: KindOption = Kind.SHOTS, rounds: RoundsOption = 100_000,
) -> None:  # fmt: skip
    """Decode the same shots with everything that is installed: time per round, reaction, failures, agreement."""
    names = chosen(peers)
    session = session_of("compare", config, set_, sweep, repeats, seed, out)
    contests: dict[tuple[str, ...], Contest] = {}
    rows: dict[tuple[str, ...], list[Result]] = {}
    with ExitStack() as stack, session.progress(session.repeats * len(session.cases) * len(names), "prepare"):
        for repeat, case in session.measurements():
            if case.overrides not in contests:
                contest = Contest.of(case, workload, shots, rounds, session.seed)
                stack.callback(contest.close)
                contests[case.overrides] = contest
            found = rows.setdefault(case.overrides, [])
            _measure(session, case, repeat, contests[case.overrides], names, found)
    for case in session.cases:
        session.console.print(table_of(_title(case, contests[case.overrides]), rows[case.overrides]))
        session.console.print(*pieces_said(rows[case.overrides]), sep="\n")
    session.console.print(
        "Time per round is CPU time. x rtqec is that time over rtqec's in the same repeat: below 1 rtqec loses. "
        "Agreement is with PyMatching on whole shots."
    )


def _measure(
    session: Session, case: Case, repeat: int, contest: Contest, names: list[str], found: list[Result]
) -> None:
    """One repeat: every decoder once. Rows wait for rtqec's, to which they are set in relation."""
    waiting: list[Result] = []
    ours_us: float | None = None
    try:
        for name in rotated(names, repeat):
            session.advance(name)
            if name in contest.refused:
                continue
            result = contest.measure(name)
            waiting.append(result)
            if not result["available"]:
                session.console.print(f"{name}: {result['why']}")
            elif name == OURS:
                ours_us = result["us_per_round"]
            if ours_us is not None or OURS not in names:
                _write(session, case, repeat, contest, waiting, ours_us, found)
    finally:
        _write(session, case, repeat, contest, waiting, ours_us, found)


def _write(
    session: Session, case: Case, repeat: int, contest: Contest, waiting: list[Result], ours_us: float | None,
    found: list[Result],
) -> None:  # fmt: skip
    for result in waiting:
        complete = related(result, ours_us)
        session.add(case, repeat, complete, contest.workload.task.plan.digest)
        found.append(complete)
    waiting.clear()


def rotated(names: list[str], repeat: int) -> list[str]:
    """The decoders in the order of a repeat: each begins once."""
    start = repeat % len(names)
    return names[start:] + names[:start]


def related(result: Result, ours_us: float | None) -> Result:
    """The result with its CPU time per round over rtqec's."""
    theirs = result["us_per_round"]
    return result | {"relative_to_rtqec": theirs / ours_us if theirs is not None and ours_us else None}


def _title(case: Case, contest: Contest) -> str:
    task, shots = contest.workload.task, contest.workload.shots
    which = ", ".join(case.overrides)
    how_many = f"{len(shots):,} shots of " if contest.kind is Kind.SHOTS else "a stream of "
    window = task.plan.window
    return (
        f"{case.name}{f' ({which})' if which else ''}: {how_many}{task.num_rounds:,} rounds, "
        f"windows of {window.commit_rounds} + {window.buffer_rounds}"
    )


COLUMNS = (
    "decoder", "version", "takes", "given", "method", "us per round", "reaction p50", "p99 us", "failures", "agreement",
    "x rtqec",
)  # fmt: skip
_TEXT_COLUMNS = 5


def table_of(title: str, results: list[Result]) -> Table:
    """One line per decoder, those that take rounds first, then the cheapest; of several repeats the median."""
    table = Table(title=title)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i < _TEXT_COLUMNS else "right")
    by_name: dict[str, list[Result]] = {}
    for result in results:
        if result["available"]:
            by_name.setdefault(result["decoder"], []).append(result)
    for takes in ("rounds", "shots", "batch"):
        alike = [repeats for repeats in by_name.values() if repeats[0]["takes"] == takes]
        for repeats in sorted(alike, key=lambda repeats: _median([r["us_per_round"] for r in repeats]) or 0.0):
            table.add_row(*_cells(repeats))
        table.add_section()
    return table


def pieces_said(results: list[Result]) -> list[str]:
    """Which decoders were given a stream in pieces."""
    return list(
        dict.fromkeys(
            f"{result['decoder']}: {result['shots']} pieces of {result['piece_rounds']:,} rounds; more rounds at once "
            "take it too much memory or time to prepare."
            for result in results
            if result["piece_rounds"]
        )
    )


def _cells(repeats: list[Result]) -> list[str]:
    first = repeats[0]
    share = "" if first["agreement"] is None else f"{100 * first['agreement']:.2f} %"
    relative = _median([result["relative_to_rtqec"] for result in repeats])
    lost = relative is not None and relative < 1 and first["decoder"] != "null"
    shown = "" if relative is None else f"{relative:.2f}"
    return [
        f"[bold]{first['decoder']}[/bold]" if first["decoder"] == OURS else first["decoder"],
        first["version"] or "",
        first["takes"],
        first["given"],
        first["method"],
        _number([result["us_per_round"] for result in repeats]),
        _number([result["reaction_us"]["p50"] for result in repeats]),
        _number([result["reaction_us"]["p99"] for result in repeats]),
        f"{first['failures']} of {first['shots']:,}",
        share,
        f"[red]{shown}[/red]" if lost else shown,
    ]


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _number(values: list[float | None]) -> str:
    value = _median(values)
    return "" if value is None else f"{value:.3g}"
