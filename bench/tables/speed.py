"""Tables of how fast: rate, latency, stages, cost."""

from __future__ import annotations

from collections.abc import Sequence

from bench.estimates import PERCENTILES
from bench.rows import Row
from bench.runs import first_of, grouped, number, of_verb, refusal, typical, value_at
from bench.tables.cells import (
    BLANK_PERCENTILE,
    Cell,
    Table,
    case_text,
    cell_of,
    interval_text,
    median_of,
    spread_cell,
    values_of,
)

_MODES = {"wire": "over the wire", "service": "exact queue"}
_WAYS = {"wire": "over the wire", "service": "path alone, one core"}
_EDGES = {"low": "under ", "high": "over "}
"""Of a search that found its limit beyond the rates that it was allowed to try."""


def rate_table(rows: Sequence[Row]) -> Table:
    """The highest rate that is held."""
    columns = ("case", "how", "rounds per second", "95 % interval", "least to most of the repeats", "trials held")
    table = Table("rate-table", columns, text_columns=2)
    for repeats in grouped(of_verb(rows, "rate")):
        mode = repeats[0]["result"]["mode"]
        _add_rate(table, repeats, _WAYS.get(mode, mode), "")
        if values_of(repeats, "ways/saturated/rounds_per_s"):
            _add_rate(table, repeats, "path alone, behind and catching up", "ways/saturated/")
    table.notes.append(
        "The interval reaches from the lowest to the highest end of those of the repeats. Under, over: the limit lies "
        "beyond the rates that were tried."
    )
    return table


def _add_rate(table: Table, repeats: Sequence[Row], how: str, place: str) -> None:
    """One row; `place` is where in the result the numbers are."""
    inner = [row["result"]["ways"]["saturated"] if place else row["result"] for row in repeats]
    ends = [end for result in inner for end in result.get("interval") or [] if end is not None]
    trials = [trial for result in inner for trial in result.get("trials") or []]
    edges = {_EDGES.get(result.get("edge") or "", "") for result in inner}
    middle = median_of(repeats, f"{place}rounds_per_s")
    table.add(
        case_text(repeats[0]), how,
        "" if middle is None else (edges.pop() if len(edges) == 1 else "") + number(middle, 4),
        interval_text([min(ends), max(ends)], 4) if ends else "",
        spread_cell(values_of(repeats, f"{place}rounds_per_s"), 4),
        Cell(f"{sum(bool(trial['held']) for trial in trials)} of {len(trials)}" if trials else "", kind="quiet"),
    )  # fmt: skip


def latency_table(rows: Sequence[Row]) -> Table:
    """Percentiles of reaction, service and floor; medians over the repeats that count."""
    columns = ("case", "time", *PERCENTILES, "max", "count", "p50, least to most", "late windows")
    table = Table("latency-table", columns, text_columns=2)
    blank = False
    for repeats in grouped(of_verb(rows, "latency")):
        first, whys = repeats[0], dict.fromkeys(why for row in repeats if (why := refusal(row)))
        refused = sum(refusal(row) is not None for row in repeats)
        why = f"{refused} of {len(repeats)} repeats do not count: {first_of(whys)}" if refused else ""
        mode, period = first["result"]["mode"], first["result"]["period_us"]
        lines = [case_text(first), _sender_text(repeats), why]
        case = Cell(f"{_MODES.get(mode, mode)}, {period:g} us rounds", "; ".join(line for line in lines if line))
        for name in ("reaction", "service", "floor"):
            counts = values_of(repeats, f"{name}_us/count")
            if not counts and (name != "reaction" or not refused):
                continue
            cells = [cell_of(median_of(repeats, f"{name}_us/{percentile}")) for percentile in PERCENTILES]
            blank = blank or any(cell.text == "" for cell in cells)
            longest = max(values_of(repeats, f"{name}_us/max"), default=None)
            late = median_of(repeats, "late") if name == "reaction" else None
            table.add(
                case if name == "reaction" else "", Cell(name, kind="bad" if refused and not counts else ""), *cells,
                cell_of(longest), f"{sum(counts):,.0f}" if counts else "",
                spread_cell(values_of(repeats, f"{name}_us/p50")), cell_of(late),
            )  # fmt: skip
    table.notes.append("All times in us. Reaction: from when the last round was due; service: from when it came.")
    if blank:
        table.notes.append(BLANK_PERCENTILE)
    return table


def _sender_text(repeats: Sequence[Row]) -> str:
    """How late the sender was, where there was one."""
    late, bounds = (values_of(repeats, f"sender_late_{name}") for name in ("us_max", "bound_us"))
    return f"sender at most {number(max(late))} us late (bound {number(max(bounds))})" if late and bounds else ""


_STAGES = ("transport", "ingest", "window", "predecode", "match", "commit", "publish", "other", "path", "total")


def stages_table(rows: Sequence[Row]) -> Table:
    """CPU time per round of each stage, of the repeat whose ratio is the median."""
    columns = ("case", *_STAGES, "bare PyMatching", "bare sending", "path / bare", "match / bare", "all / floor")
    table = Table("stages-table", columns)
    for repeats in grouped(of_verb(rows, "stages")):
        row = typical(repeats, "path_over_floor")
        if row is None:
            continue
        result = row["result"]
        table.add(
            case_text(row), *(cell_of(value_at(result, f"cpu_us_per_round/{name}")) for name in _STAGES),
            cell_of(value_at(result, "floor_us_per_round/match")), cell_of(value_at(result, "floor_us_per_round/send")),
            _with_spread(values_of(repeats, "path_over_floor")), cell_of(value_at(result, "match_over_floor")),
            _with_spread(values_of(repeats, "total_over_floor")),
        )  # fmt: skip
    table.notes.append(
        "us of CPU time per round. Path: window to publish, measured as a whole; other: its rest beside the stages "
        "(below zero where the clock between them took less than was taken off). Bare PyMatching: the same matcher "
        "objects and rows, all of a matcher in one batch. Floor: receiving, bare PyMatching, and sending as many "
        "answers as far apart, which wakes the transport's thread each time. Blank: there is no such stage."
    )
    return table


def _with_spread(values: Sequence[float]) -> Cell:
    """The median, and under it the least and the most."""
    spread = spread_cell(values)
    said = ", ".join(text for text in (spread.text, spread.small.partition(",")[0]) if text)
    return Cell(number(sorted(values)[(len(values) - 1) // 2]), said)


def cost_table(rows: Sequence[Row]) -> Table:
    """Windows per second and core, and what they take."""
    columns = (
        "case", "energy read from", "windows per s and core", "least to most", "windows per s and GPU",
        "J per million windows, CPU", "J per million windows, GPU",
    )  # fmt: skip
    table = Table("cost-table", columns, text_columns=2)
    for repeats in grouped(of_verb(rows, "rate")):
        if values_of(repeats, "windows_per_s_per_core"):
            first = repeats[0]["result"]
            table.add(
                Cell(case_text(repeats[0]), _WAYS.get(first["mode"], first["mode"])),
                first.get("energy_source") or Cell("", first.get("energy_why") or ""),
                cell_of(median_of(repeats, "windows_per_s_per_core"), 4),
                spread_cell(values_of(repeats, "windows_per_s_per_core"), 4),
                cell_of(median_of(repeats, "windows_per_s_per_gpu"), 4),
                cell_of(median_of(repeats, "joules_per_million_windows")),
                cell_of(median_of(repeats, "gpu_joules_per_million_windows")),
            )  # fmt: skip
    table.notes.append(
        "Blank energy: this machine does not let it be read (RAPL, NVML). Blank windows per GPU: none is used."
    )
    return table
