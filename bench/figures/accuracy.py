"""Logical error rates: against the physical one, windows beside whole shots; and against the time allowed."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.estimates import ERRORS_MIN, exact_interval, per_round
from bench.figures.page import STYLE, Drawing, colours_of, logarithmic, markers_of, plain_ticks
from bench.rows import Row
from bench.runs import Wording, grouped, of_verb, typical

_SHIFT = 1.035
"""Of whole shots from windows, and of a decoder from the next, as a factor on the error rate."""


@dataclass(frozen=True)
class Point:
    """One error rate per round.

    Attributes:
        decoder, whole, distance, noise: Of what; `whole`: of whole shots.
        shots: How many.
        rate: None where there were too few errors to claim more than a bound.
        low, high: Exact 95 % interval.
    """

    decoder: str
    whole: bool
    distance: int
    noise: float
    shots: int
    rate: float | None
    low: float
    high: float


def points_of(row: Row) -> list[Point]:
    """What a row says: of its decoder, and where that decodes windows, of the same shots as a whole."""
    case, result = row["case"], row["result"]
    paired, shots = result.get("whole_shot"), result["shots"]
    rate = None if result["upper_bound_only"] else result["per_round"]
    place = case["distance"], case["noise"], shots
    points = [Point(result["decoder"], paired is None, *place, rate, *result["per_round_interval"])]
    if paired is not None:
        errors, num_rounds = paired["errors"], result["num_rounds"]
        low, high = (per_round(end, num_rounds) for end in exact_interval(errors, shots))
        rate = per_round(errors / shots, num_rounds) if errors >= ERRORS_MIN else None
        points.append(Point(paired["decoder"], True, *place, rate, low, high))
    return points


def _points(rows: list[Row]) -> list[Point]:
    """Of each decoder one per case: of the same shots as windows where there are such, else of the most."""
    best: dict[tuple[str, int, float], Point] = {}
    paired_first = sorted(rows, key=lambda row: (row["result"]["whole_shot"] is None, -row["result"]["shots"]))
    for point in (point for row in paired_first for point in points_of(row)):
        best.setdefault((point.decoder, point.distance, point.noise), point)
    return list(best.values())


def draw(rows: list[Row]) -> Drawing | None:
    """A colour for each distance, a marker for each decoder, hollow ones for whole shots."""
    rates = [row for row in of_verb(rows, "accuracy") if row["result"].get("per_round_interval")]
    shown = [row for row in rates if row["case"]["noise"] and row["case"]["distance"]]
    if not shown:
        return None
    points = _points(shown)
    distances = sorted({point.distance for point in points})
    whole = {point.decoder: point.whole for point in points}
    partners = {row["result"]["decoder"]: (row["result"]["whole_shot"] or {}).get("decoder", "") for row in shown}
    names = sorted(whole, key=lambda name: (partners.get(name) or name, whole[name], name))  # Pairs side by side.
    colours, markers = colours_of(distances), markers_of(names)
    wording = Wording(shown, ("distance", "noise", "overrides", "config", "period_us", "matching", "rounds", "decoder"))
    drawing = Drawing(
        "accuracy", "Logical error rate against physical error rate", _windows_text(shown, wording), shown,
        "Bars: exact 95 % intervals (Clopper and Pearson) of the error rate per shot, as a rate per round. Arrows: "
        f"fewer than {ERRORS_MIN} errors: only the upper end is claimed. Hollow: the same shots decoded as a whole. "
        "Markers of one error rate stand side by side so that none covers another.", 3.9,
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        axes = drawing.figure.subplots()
        for i, name in enumerate(names):
            for distance in distances:
                of_series = sorted(
                    (point for point in points if (point.decoder, point.distance) == (name, distance)),
                    key=lambda point: point.noise,
                )
                shift = _SHIFT ** (i - (len(names) - 1) / 2)
                _series(axes, of_series, shift, colours[distance], markers[name], hollow=whole[name])
        logarithmic(axes, "x", "y")
        axes.set(xlabel="physical error rate p (circuit noise)", ylabel="logical error rate per round")
        noises = sorted({point.noise for point in points})
        axes.set_xlim(noises[0] / 1.25, noises[-1] * 1.25)
        plain_ticks(axes.xaxis, noises)
        handles = [
            *(Line2D([], [], color=colours[distance], linewidth=4, label=f"d = {distance}") for distance in distances),
            *(
                Line2D([], [], color="#555555", linestyle="", marker=markers[name],
                       markerfacecolor="white" if whole[name] else "#555555",
                       label=f"{name} ({'whole shots' if whole[name] else 'windows'})")
                for name in names
            ),
        ]  # fmt: skip
    return drawing.finish(handles, 4)


def _windows_text(rows: list[Row], wording: Wording) -> str:
    """The windows in distances where they are the same in distances."""
    ratios = {(r["case"]["commit_rounds"] / r["case"]["distance"], r["case"]["buffer_rounds"] / r["case"]["distance"])
              for r in rows}  # fmt: skip
    if len(ratios) != 1:
        return wording.shared()
    commit, buffer = ratios.pop()
    return f"windows commit {commit:g} d rounds and look {buffer:g} d further"


def _series(axes: Axes, points: list[Point], shift: float, colour: str, marker: str, *, hollow: bool) -> None:
    face = "white" if hollow else colour
    known = [point for point in points if point.rate is not None]
    if known:
        xs = [point.noise * shift for point in known]
        rates, lows, highs = np.array([(point.rate, point.low, point.high) for point in known], np.float64).T
        axes.errorbar(
            xs, rates, [rates - lows, highs - rates], color=colour, marker=marker, markerfacecolor=face, capsize=2.5,
            elinewidth=1, linewidth=0.8 if hollow else 1.2, linestyle="--" if hollow else "-",
        )  # fmt: skip
    for point in points:
        if point.rate is None:
            axes.errorbar(
                [point.noise * shift], [point.high], [[point.high * 0.45], [0.0]], uplims=True, color=colour,
                marker=marker, markerfacecolor=face, elinewidth=1, linestyle="",
            )  # fmt: skip


def draw_by_budget(rows: list[Row]) -> Drawing | None:
    """LER(t): shots with a late or a wrong answer, a controller can use neither, against the time allowed."""
    shown = [
        best
        for repeats in grouped(of_verb(rows, "accuracy"))
        if (best := typical(repeats, "late_or_wrong")) is not None
    ]
    if not shown:
        return None
    wording = Wording(shown, ("config", "period_us"))
    series: dict[str, list[Row]] = {}
    for row in shown:
        series.setdefault(f"{wording.of(row)}, {row['result']['period_us']:g} us rounds".removeprefix(", "), []).append(
            row
        )
    colours, markers = colours_of(series), markers_of(series)
    drawing = Drawing(
        "ler_t", "LER(t): shots with a late or a wrong answer, against the time allowed", wording.shared(), shown,
        "An answer is late when it comes later than that after the window's last round, by CPU time of every step "
        "through an exact single-server queue. Bars: exact 95 % intervals. Thin: wrong answers alone, whenever they "
        "came. Of each point the repeat with the median.", 3.6,
    )  # fmt: skip
    with mpl.rc_context(STYLE):
        axes = drawing.figure.subplots()
        for label, of_series in series.items():
            _by_budget(axes, of_series, colours[label], markers[label])
        logarithmic(axes, "x", "y")
        axes.set(xlabel="time allowed, us", ylabel="fraction of shots")
        budgets = sorted({row["result"]["budget_us"] for row in shown})
        plain_ticks(axes.xaxis, budgets[:: -(-len(budgets) // 12)])
        handles = [Line2D([], [], color=colours[name], marker=markers[name], label=name) for name in series]
    return drawing.finish(handles, 2)


def _by_budget(axes: Axes, rows: list[Row], colour: str, marker: str) -> None:
    found = sorted(
        (row["result"] for row in rows if row["result"]["late_or_wrong"]), key=lambda r: float(r["budget_us"])
    )
    if not found:
        return
    budgets = [result["budget_us"] for result in found]
    rates, lows, highs = np.array([(r["late_or_wrong"], *r["late_or_wrong_interval"]) for r in found], np.float64).T
    axes.errorbar(budgets, rates, [rates - lows, highs - rates], color=colour, marker=marker, capsize=2.5, elinewidth=1)
    wrong = [
        (result["budget_us"], result["wrong_shots"] / result["shots"]) for result in found if result["wrong_shots"]
    ]
    if wrong:
        axes.plot(*zip(*wrong, strict=True), color=colour, linewidth=0.7)
