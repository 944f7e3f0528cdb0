"""The goals' table."""

from __future__ import annotations

from collections.abc import Sequence

from bench.goals import Verdict
from bench.runs import Source, Wording, number
from bench.tables.cells import Cell, Kind, Table, cell_of, spread_cell


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Every goal, what was measured, and how far apart they are."""
    table = Table(
        "verdicts",
        ("goal", "verdict", "who says so", "measured", "least to most of the repeats", "bound", "measured / bound"),
        text_columns=3,
    )
    for verdict in verdicts:
        goal, origin = verdict.goal, verdict.goal.origin
        same = [one.rows[0] for one in verdicts if one.goal is goal and one.rows]
        case = Wording(same).of(verdict.rows[0]) if len(same) > 1 else ""
        where = Source.of(verdict.rows) if verdict.values else None
        table.add(
            Cell(goal.title, ". ".join(text for text in (case, goal.note) if text)),
            outcome_cell(verdict),
            Cell(origin.source, f"{origin.machine}, {origin.date}", url=origin.url),
            Cell(goal.with_unit(number(verdict.median)), f"{where.when}, {where.commit}") if where else Cell(),
            spread_cell(verdict.values),
            bound_text(verdict),
            cell_of(verdict.ratio),
        )
    table.notes.append(
        "The verdict is that of the median over the repeats of the newest run. Where not all repeats say the same, "
        'another run may say otherwise. Measured over bound: at most 1 meets "at most", at least 1 meets "at least".'
    )
    return table


def outcome_cell(verdict: Verdict) -> Cell:
    """The verdict, with how many repeats agree."""
    kinds: dict[str, Kind] = {"met": "good", "not met": "bad"}
    if not verdict.values:
        return Cell("not measured", verdict.why, "quiet")
    count = len(verdict.values)
    agreeing = "" if verdict.goal.bound is None else f"{verdict.agreeing} of {count} repeats"
    return Cell(verdict.outcome, "; ".join(filter(None, (agreeing, verdict.why))), kinds.get(verdict.outcome, "quiet"))


def bound_text(verdict: Verdict) -> str:
    """The bound in words."""
    goal = verdict.goal
    if goal.bound is None:
        return "none"
    return goal.with_unit(f"at {'most' if goal.at_most is not None else 'least'} {number(goal.bound, 4)}")
