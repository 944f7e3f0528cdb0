"""Reaction times: how often a correction takes longer than that."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.estimates import PERCENTILES
from bench.figures.page import BLACK, BLUE, GREEN, GREY, STYLE, VERMILLION, Drawing, logarithmic
from bench.goals import Goal
from bench.rows import Row
from bench.runs import Wording, grouped, matches, number, of_verb, refusal, typical, value_at

_PANELS_MAX = 8
_TITLE_COLUMNS = 58
_PANEL_FIELDS = ("distance", "noise", "matching", "commit_rounds", "buffer_rounds", "patches")


@dataclass(frozen=True)
class _Curve:
    """What of a row is drawn, and how it is called."""

    mode: str
    name: str
    label: str
    colour: str
    style: Any


_CURVES = (
    _Curve("wire", "reaction", "over the wire: reaction", BLUE, "-"),
    _Curve("wire", "service", "over the wire: service", GREEN, "-"),
    _Curve("wire", "floor", "over the wire: floor, nothing decoded", GREY, "--"),
    _Curve("service", "reaction", "exact queue: reaction", VERMILLION, "-"),
)


def draw(rows: list[Row], goals: list[Goal]) -> Drawing | None:
    """One panel per case, at most eight: both ways of measuring, the floor, and what others published for such."""
    shown = [row for row in of_verb(rows, "latency") if refusal(row) is None and row["result"].get("ccdf")]
    panels: dict[tuple[str, ...], list[list[Row]]] = {}
    for repeats in grouped(shown):
        panels.setdefault(_panel(repeats[0]), []).append(repeats)
    if not panels:
        return None
    chosen = list(panels.values())[:_PANELS_MAX]
    kept = [row for panel in chosen for repeats in panel for row in repeats]
    wording = Wording([panel[0][0] for panel in chosen], ("rounds", "overrides", "config", "period_us"))
    more = len(panels) - len(chosen)
    left_out = f" {more} further cases stand in the table only." if more else ""
    drawing = Drawing(
        "reaction", "Reaction time: how many corrections take longer", wording.shared(), kept,
        "Reaction: from the moment at which the last round that a correction needs was due, to the moment at which the "
        "correction was handed over. Service: from that round's arrival. Exact queue: every window by its CPU time, in "
        "a single-server queue. Dots: p50, p90, p99, .. where enough samples lie above. Strong lines: the repeat with "
        f"the median p50; thin: the others.{left_out}", 3.0 * math.ceil(len(chosen) / 2),
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        columns = min(2, len(chosen))
        grid = drawing.figure.subplots(math.ceil(len(chosen) / columns), columns, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, chosen, strict=False):
            _draw_panel(axes, panel, goals, wording)
        for axes in list(grid.flat)[len(chosen) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("fraction that takes longer")
        curves = [curve for curve in _CURVES if any(_points(row, curve) for row in kept)]
        handles = [Line2D([], [], color=c.colour, linestyle=c.style, label=c.label) for c in curves]
    return drawing.finish(handles, 4)


def _panel(row: Row) -> tuple[str, ...]:
    return (*(str(row["case"].get(name)) for name in _PANEL_FIELDS), f"{row['result']['period_us']:g}")


def _draw_panel(axes: Axes, panel: list[list[Row]], goals: list[Goal], wording: Wording) -> None:
    first = panel[0][0]
    said = [wording.of(first), f"{first['result']['period_us']:g} us rounds"]
    axes.set_title(textwrap.fill(", ".join(text for text in said if text), _TITLE_COLUMNS))
    notes: list[tuple[str, str]] = []
    for repeats in panel:
        best = typical(repeats, "reaction_us/p50") or repeats[0]
        for curve in _CURVES:
            if _points(best, curve):
                for row in repeats:
                    _line(axes, row, curve, strong=row is best)
                notes += _percentile_marks(axes, best, curve)
    notes += _references(axes, [row for repeats in panel for row in repeats], goals)
    logarithmic(axes, "x", "y")
    axes.set_xlabel("us")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.25)
    axes.set_ylim(None, 1.6)
    for i, (text, colour) in enumerate([("p50 / p99, us", "#444444"), *notes]):
        at = 0.985, 0.975 - 0.075 * i
        axes.text(*at, text, transform=axes.transAxes, ha="right", va="top", size=7.5, color=colour)


def _line(axes: Axes, row: Row, curve: _Curve, *, strong: bool) -> None:
    points = _points(row, curve)
    if points:
        axes.plot(
            *zip(*points, strict=True), color=curve.colour, linestyle=curve.style,
            linewidth=1.8 if strong else 0.6, alpha=1 if strong else 0.55,
        )  # fmt: skip


def _points(row: Row, curve: _Curve) -> list[tuple[float, float]]:
    """What of a row can stand on logarithmic axes."""
    found = row["result"]["ccdf"].get(curve.name) if row["result"]["mode"] == curve.mode else None
    return [(value, above) for value, above in found or [] if value > 0 and above > 0]


def _percentile_marks(axes: Axes, row: Row, curve: _Curve) -> list[tuple[str, str]]:
    """Dots on the curve; the text for the corner."""
    summary = row["result"].get(f"{curve.name}_us") or {}
    for name, fraction in PERCENTILES.items():
        value = value_at(summary, name)
        if value:
            axes.plot([value], [1 - fraction], "o", color=curve.colour, markersize=3.5)
    middle, tail = value_at(summary, "p50"), value_at(summary, "p99")
    if middle is None:
        return []
    said = f"{number(middle)} / {number(tail) if tail is not None else 'blank'}"
    kind = {"reaction": "queue" if curve.mode == "service" else "wire"}.get(curve.name, curve.name)
    return [(f"{kind} {said}", curve.colour)]


def _references(axes: Axes, rows: list[Row], goals: list[Goal]) -> list[tuple[str, str]]:
    """What others published, where the case is the same."""
    notes: dict[str, list[str]] = {}
    for goal in goals:
        fits = any(matches(row["case"], goal.case) and matches(row["result"], goal.result) for row in rows)
        name = goal.value.rpartition("/")[2]
        if goal.verb != "latency" or goal.origin.kind == "own" or goal.bound is None or not fits:
            continue
        who = goal.title.partition("'")[0]
        if name in PERCENTILES:
            axes.plot([goal.bound], [1 - PERCENTILES[name]], "x", color=BLACK, markersize=7, markeredgewidth=1.6)
        else:
            axes.axvline(goal.bound, color=BLACK, linewidth=1, linestyle=":")
        notes.setdefault(who, []).append(number(goal.bound) + ("" if name in PERCENTILES else f" ({name})"))
    return [(f"{who} {' / '.join(values)}", BLACK) for who, values in notes.items()]
