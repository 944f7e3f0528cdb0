"""Tables of the same shots decoded in several ways: accuracy, late or wrong shots, other decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.estimates import ERRORS_MIN
from bench.rows import Row
from bench.runs import grouped, identity, number, of_verb, typical, value_at
from bench.tables.cells import (
    BLANK_PERCENTILE,
    Cell,
    Kind,
    Table,
    case_text,
    cell_of,
    interval_text,
    median_of,
    spread_cell,
    values_of,
)


def accuracy_table(rows: Sequence[Row]) -> Table:
    """Logical error rates with exact intervals; windows paired with whole shots."""
    columns = (
        "case", "decoder", "shots", "errors", "per shot", "95 %", "per round", "95 %", "whole shots: errors",
        "worse, better", "McNemar p",
    )  # fmt: skip
    table = Table("accuracy-table", columns, text_columns=2)
    few = False
    for row in of_verb(rows, "accuracy"):
        result = row["result"]
        if not result.get("per_round_interval"):
            continue
        few = few or result["upper_bound_only"]
        rates = [*_rate_cells(result, "per_shot"), *_rate_cells(result, "per_round")]
        whole = result.get("whole_shot")
        table.add(
            case_text(row), result["decoder"], f"{result['shots']:,}", f"{result['errors']:,}", *rates,
            f"{whole['errors']:,}" if whole else "", f"{result['worse']:,}, {result['better']:,}" if whole else "",
            cell_of(value_at(result, "mcnemar_p")),
        )  # fmt: skip
    table.notes.append(
        "Intervals: Clopper and Pearson. Worse, better: shots that only the windows, or only whole shots, get wrong."
    )
    if few:
        table.notes.append(f"Blank rates: fewer than {ERRORS_MIN} errors carry an upper bound only.")
    return table


def _rate_cells(result: dict[str, Any], name: str) -> list[Cell]:
    """A rate and its interval; of few errors the upper end only."""
    interval = result[f"{name}_interval"]
    if result["upper_bound_only"]:
        return [Cell(), Cell(f"below {number(interval[1])}")]
    return [cell_of(result[name]), Cell(interval_text(interval))]


def ladder_table(rows: Sequence[Row]) -> Table:
    """LER(t): late or wrong shots for each budget, of the repeat with the median."""
    columns = ("case", "budget, us", "shots", "late windows", "wrong shots", "late or wrong", "95 %", "least to most")
    table = Table("ler-table", columns)
    for repeats in grouped(of_verb(rows, "accuracy")):
        row = typical(repeats, "late_or_wrong")
        if row is not None:
            result = row["result"]
            table.add(
                f"{case_text(row)}, {result['period_us']:g} us rounds", f"{result['budget_us']:g}",
                f"{result['shots']:,}", cell_of(value_at(result, "late_windows")), f"{result['wrong_shots']:,}",
                cell_of(result["late_or_wrong"]), interval_text(result["late_or_wrong_interval"]),
                spread_cell(values_of(repeats, "late_or_wrong")),
            )  # fmt: skip
    return table


def compare_table(rows: Sequence[Row]) -> Table:
    """Other decoders on the same shots, fastest first; where we lose, it is marked."""
    columns = (
        "decoder", "one call takes", "us per round, CPU", "least to most", "us per round, wall", "rounds per second",
        "reaction p50, us", "p99", "failures of shots", "agreement", "time over rtqec's",
    )  # fmt: skip
    table = Table("compare-table", columns, text_columns=2)
    cases: dict[Any, list[list[Row]]] = {}
    for repeats in grouped(of_verb(rows, "compare")):
        cases.setdefault(identity(repeats[0], ("decoder",)), []).append(repeats)
    for of_case in cases.values():
        table.add_heading(case_text(of_case[0][0]))
        timed = [repeats for repeats in of_case if values_of(repeats, "us_per_round")]
        for repeats in sorted(timed, key=lambda repeats: median_of(repeats, "us_per_round") or float("inf")):
            _add_compared(table, repeats)
        missing: dict[str, list[str]] = {}
        for repeats in of_case:
            if repeats not in timed:
                why = repeats[0]["result"].get("why") or "not installed"
                missing.setdefault(why, []).append(repeats[0]["result"]["decoder"])
        for why, names in missing.items():
            table.add_remark(f"Not measured: {', '.join(names)} ({why}).")
    table.notes.append(
        "Marked: faster than rtqec. Who takes a batch, or whole shots, sees all rounds before it begins. Agreement: "
        "shots with the same flips as whole-shot PyMatching. The null decoder decodes nothing."
    )
    table.notes.append(BLANK_PERCENTILE)
    return table


def _how(result: dict[str, Any]) -> str:
    """What a decoder was made to do, and of a stream that is too long for it, in which pieces."""
    pieces = f"in pieces of {result['piece_rounds']:,} rounds" if result.get("piece_rounds") else ""
    return ", ".join(text for text in (result.get("method") or "", pieces) if text)


def _add_compared(table: Table, repeats: list[Row]) -> None:
    result = repeats[0]["result"]
    name = Cell(result["decoder"], f"{result.get('package') or ''} {result.get('version') or ''}".strip())
    times = values_of(repeats, "us_per_round")
    ratio = median_of(repeats, "relative_to_rtqec")
    kind: Kind = "quiet" if result["decoder"] in ("rtqec", "null") else "bad" if ratio and ratio < 1 else ""
    failures, shots = values_of(repeats, "failures"), values_of(repeats, "shots")
    table.add(
        name, Cell(result.get("takes") or "", _how(result)),
        cell_of(median_of(repeats, "us_per_round")), spread_cell(times),
        cell_of(median_of(repeats, "wall_us_per_round")), cell_of(median_of(repeats, "rounds_per_s")),
        cell_of(median_of(repeats, "reaction_us/p50")), cell_of(median_of(repeats, "reaction_us/p99")),
        f"{sum(failures):,.0f} of {sum(shots):,.0f}" if failures and shots else "",
        cell_of(median_of(repeats, "agreement"), 6), Cell("" if ratio is None else number(ratio), kind=kind),
    )  # fmt: skip
