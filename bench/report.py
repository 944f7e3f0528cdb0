"""Rows to a report: figures, one HTML file that needs nothing beside it, and the README's own table.

Nothing is measured here, and nothing is written by hand: the same rows give the same report.
"""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.figures import Drawing, draw_all
from bench.goals import GOALS, Verdict, evaluate, load_goals
from bench.rows import Row
from bench.runs import Source, Wording, load_rows, newest, number
from bench.tables import provenance, shots, speed
from bench.tables.cells import Table
from bench.tables.verdicts import bound_text, verdict_table
from rtqec.errors import ConfigError

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_WHY_COLUMNS = 120
README_FIGURES = ("rate", "reaction", "stages", "accuracy", "comparison")


@dataclass(frozen=True)
class Section:
    """A part of the report, left out where it would be empty.

    Attributes:
        name, title: For links, for people.
        figures: With the bytes of each as base64 of an SVG.
        tables: Those with rows.
    """

    name: str
    title: str
    figures: list[tuple[Drawing, str]]
    tables: list[Table]


def report(
    results: Annotated[Path, typer.Argument(help="A folder of rows, as the other verbs write them with --out.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of report.html and figures.")] = Path("bench-report"),
    goals: Annotated[Path, typer.Option("--goals", help="What to compare with.", show_default="our own")] = GOALS,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Headlines as Markdown; - for stdout.")] = None,
    readme: Annotated[Path | None, typer.Option("--readme", help="Renew what stands between its markers.")] = None,
) -> None:  # fmt: skip
    """Figures, tables and verdicts from rows, as one HTML file. Measures nothing."""
    rows, known = load_rows(results), load_goals(goals)
    page = readme.read_text() if readme is not None and readme.exists() else ""
    if readme is not None:
        replace_between_markers(page, "", readme.name)
    verdicts, counted = evaluate(known, rows), newest(rows)
    drawings = draw_all(counted, known)
    out.mkdir(parents=True, exist_ok=True)
    paths = [drawing.save(out / "figures")[1] for drawing in drawings]
    (out / "report.html").write_text(html_of(counted, verdicts, drawings, paths))
    text = headlines(verdicts)
    if markdown is not None and str(markdown) != "-":
        markdown.write_text(text)
    elif markdown is not None:
        typer.echo(text, nl=False)
    if readme is not None:
        readme.write_text(replace_between_markers(page, text + image_links(drawings, paths, readme), readme.name))
    typer.echo(f"{summary(verdicts)} See {out / 'report.html'}.", err=True)


def html_of(rows: list[Row], verdicts: list[Verdict], drawings: list[Drawing], paths: list[Path]) -> str:
    """The whole report.

    Args:
        rows: Those that count.
        verdicts: Of all goals.
        drawings: All figures.
        paths: Where each lies as SVG.
    """
    images = {
        drawing.name: (drawing, base64.b64encode(path.read_bytes()).decode())
        for drawing, path in zip(drawings, paths, strict=True)
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        source=Source.of(rows), num_rows=len(rows), sections=_sections(rows, verdicts, images)
    )


def _sections(rows: list[Row], verdicts: list[Verdict], images: dict[str, tuple[Drawing, str]]) -> list[Section]:
    parts: list[tuple[str, str, tuple[str, ...], tuple[Table, ...]]] = [
        ("goals", "Goals", (), (verdict_table(verdicts),)),
        ("rate", "Rate", ("rate",), (speed.rate_table(rows),)),
        ("latency", "Latency", ("reaction",), (speed.latency_table(rows),)),
        ("stages", "Stages", ("stages",), (speed.stages_table(rows),)),
        ("accuracy", "Accuracy", ("accuracy", "ler_t"), (shots.accuracy_table(rows), shots.ladder_table(rows))),
        ("comparison", "Comparison", ("comparison",), (shots.compare_table(rows),)),
        ("cost", "Cost", (), (speed.cost_table(rows),)),
        ("provenance", "Provenance", (), (provenance.provenance_table(rows), provenance.case_table(rows))),
    ]
    sections = [
        Section(
            name, title, [images[one] for one in figures if one in images], [table for table in tables if table.rows]
        )
        for name, title, figures, tables in parts
    ]
    return [section for section in sections if section.figures or section.tables]


def headlines(verdicts: Sequence[Verdict]) -> str:
    """The README's table: Markdown, one line per headline, then where it was measured."""
    shown = [verdict for verdict in verdicts if verdict.goal.headline]
    lines = ["| headline | measured, median (least to most) | goal | verdict |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(map(_escaped, _headline(verdict, shown))) + " |" for verdict in shown]
    measured = [row for verdict in verdicts if verdict.values for row in verdict.rows]
    if measured:
        source = Source.of(measured)
        where = f"{'; '.join(source.machines)}; {source.when}; commit {', '.join(source.commits)}; {source.loads}."
        dirty = " **DIRTY TREE: what was measured is not, or may not be, that commit.**" if source.dirty else ""
        lines += ["", f"{_escaped(where)}{dirty} Made by `rtqec-bench report`."]
    return "\n".join(lines) + "\n"


def _headline(verdict: Verdict, verdicts: Sequence[Verdict]) -> tuple[str, str, str, str]:
    goal, values = verdict.goal, verdict.values
    same = [one.rows[0] for one in verdicts if one.goal is goal and one.rows]
    case = f": {Wording(same).of(verdict.rows[0])}" if len(same) > 1 else ""
    origin = "" if goal.origin.kind == "own" else f" ({goal.origin.machine}, {goal.origin.date})"
    if not values:
        why = f" ({textwrap.shorten(verdict.why, _WHY_COLUMNS, placeholder=' ..')})" if verdict.rows else ""
        return goal.title + case, "", bound_text(verdict) + origin, verdict.outcome + why
    several = f"{number(min(values))} to {number(max(values))}, {len(values)} repeats"
    said = f"{goal.with_unit(number(verdict.median))} ({several if len(values) > 1 else 'one measurement'})"
    agreeing = "" if verdict.unanimous else f" ({verdict.agreeing} of {len(values)} repeats)"
    return goal.title + case, said, bound_text(verdict) + origin, verdict.outcome + agreeing


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: rows can hold any name."""
    for character in "\\|<>*_`[]":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def image_links(drawings: Sequence[Drawing], paths: Sequence[Path], readme: Path) -> str:
    """Markdown that shows the figures, relative to the page that shows them."""
    links = []
    for drawing, path in zip(drawings, paths, strict=True):
        if drawing.name in README_FIGURES:
            place = Path(os.path.relpath(path.resolve(), readme.resolve().parent)).as_posix()
            links.append(f"\n![{_escaped(drawing.title)}]({place})\n")
    return "".join(links)


def replace_between_markers(page: str, part: str, name: str) -> str:
    """A page with another part between its two markers; doing it twice is doing it once.

    Raises:
        ConfigError: The page has not exactly one of each marker, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ConfigError(
            f"--readme {name}", f"has not exactly one line {BEGIN} and after it one line {END}.",
            "What stands between them is replaced, and nothing else may be.",
            "Add both lines, once each, where the table and the figures belong.",
        )  # fmt: skip
    return f"{before}{BEGIN}\n{part}{END}{after}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: how many goals are met."""
    outcomes = [verdict.outcome for verdict in verdicts]
    counts = [f"{outcomes.count(name)} {name}" for name in ("met", "not met", "reported", "not measured")]
    shaky = sum(not verdict.unanimous for verdict in verdicts)
    return f"Goals: {', '.join(counts)}; repeats disagree on {shaky}."
