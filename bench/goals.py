"""Goals, and how far the measured rows are from each: decisions on rows alone, no clock and no measuring.

A goal says which rows it is about, which number of theirs, and what that number should be at most or at least; or it
asks for the number only. Each distinct case that a goal is about gets a verdict of its own, so that a good one does not
hide a bad one. A verdict is that of the median over the repeats of the newest run; how many repeats say the same by
themselves stands beside it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.rows import Row
from bench.runs import Key, first_of, identity, matches, refusal, value_at
from rtqec.errors import ConfigError

GOALS = Path(__file__).with_name("goals.toml")
Scalar = str | int | float | bool
Fields = dict[str, Scalar | list[Scalar]]
Outcome = Literal["met", "not met", "reported", "not measured"]
Verb = Literal["rate", "latency", "stages", "accuracy", "compare"]


class _Table(BaseModel):
    """A TOML table: unknown keys are refused, values are never guessed into another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Origin(_Table):
    """Who says so.

    Attributes:
        kind: "own": we set it ourselves. "paper", "vendor": somebody published it, for a system that is not ours.
        source: Where it is written.
        url: The same for a browser.
        machine, date: What it was measured on and when; of an own goal, what it is meant for and when it was set.
    """

    kind: Literal["own", "paper", "vendor"]
    source: str
    url: str = Field(default="", pattern=r"^(https://\S+)?$")
    machine: str
    date: str


class Goal(_Table):
    """One `[[goal]]`; `bench/goals.toml` says what the keys mean."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    verb: Verb
    value: str = Field(min_length=1)
    unit: str
    case: Fields = {}
    result: Fields = {}
    over: Fields = {}
    at_most: float | None = Field(default=None, gt=0)
    at_least: float | None = Field(default=None, gt=0)
    headline: bool = True
    note: str = ""
    origin: Origin

    @model_validator(mode="after")
    def _one_bound(self) -> Goal:
        if self.at_most is not None and self.at_least is not None:
            raise ValueError("has both at_most and at_least: a goal has one direction")
        return self

    @property
    def bound(self) -> float | None:
        """What the number should reach, or not exceed."""
        return self.at_least if self.at_most is None else self.at_most

    def with_unit(self, text: str) -> str:
        """A number with its unit; ratios have none."""
        return text if self.unit in ("", "x") else f"{text} {self.unit}"

    def judge(self, value: float) -> Outcome:
        """What one number means."""
        if self.bound is None:
            return "reported"
        return "met" if (value <= self.bound if self.at_most is not None else value >= self.bound) else "not met"


class _Goals(_Table):
    goal: list[Goal] = Field(min_length=1)


@dataclass(frozen=True)
class Verdict:
    """What the rows say of a goal, for one case.

    Attributes:
        goal: Which.
        values: Of each repeat that counts, of the newest run, in order.
        rows: Those that the values come from; of a goal that was not measured, those that were refused.
        why: What kept repeats, or all of them, from counting.
    """

    goal: Goal
    values: tuple[float, ...]
    rows: tuple[Row, ...]
    why: str = ""

    @property
    def outcome(self) -> Outcome:
        """By the median of the repeats."""
        return self.goal.judge(self.median) if self.values else "not measured"

    @property
    def median(self) -> float:
        """Of the repeats; there must be one."""
        return float(np.median(self.values))

    @property
    def ratio(self) -> float | None:
        """The median for the bound: 1 is the goal itself."""
        return self.median / self.goal.bound if self.values and self.goal.bound is not None else None

    @property
    def agreeing(self) -> int:
        """How many repeats, each by itself, give the same outcome."""
        return sum(self.goal.judge(value) == self.outcome for value in self.values)

    @property
    def unanimous(self) -> bool:
        """Whether measuring once more would, as far as one can see, not change the outcome."""
        return self.agreeing == len(self.values)


@dataclass(frozen=True)
class _Point:
    """One number of one repeat, with the rows that it was made from."""

    key: Key
    run: str
    repeat: int
    value: float | None
    rows: tuple[Row, ...]
    why: str


def load_goals(path: Path = GOALS) -> list[Goal]:
    """All goals of a file, in its order.

    Raises:
        ConfigError: The file cannot be read, a key is wrong, or two goals have the same id.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"goals {path.name}", f"cannot be read: {error}.", "Without goals a report has nothing to compare with.",
            "Mend the file, or take that of the release.",
        ) from error  # fmt: skip
    try:
        goals = _Goals.model_validate(tables).goal
    except ValidationError as error:
        raise _goal_error(tables, error) from None
    ids = [goal.id for goal in goals]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(
            "[[goal]] id", f"is {twice!r} for {ids.count(twice)} goals.", "A verdict is found by its goal's id.",
            "Give each goal an id of its own.",
        )  # fmt: skip
    return goals


def _goal_error(tables: dict[str, Any], error: ValidationError) -> ConfigError:
    """pydantic's first complaint as key, value, reason, remedy."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = "[[goal]]"
    if len(parts) > 1 and parts[1].isdigit():
        named = tables["goal"][int(parts[1])]
        name = named.get("id", int(parts[1]) + 1) if isinstance(named, dict) else int(parts[1]) + 1
        key = f"[[goal]] {name} {'.'.join(parts[2:])}".strip()
    text = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    found = {
        "missing": "is missing, but has no default.",
        "extra_forbidden": f"is {value!r}, but no key has that name.",
    }.get(first["type"], text + "." if isinstance(value, dict) else f"is {value!r}, but: {text[0].lower()}{text[1:]}.")
    return ConfigError(
        key, found, "A goal that is not understood would otherwise be met in silence.",
        "Correct it; the head of bench/goals.toml says what the keys mean.",
    )  # fmt: skip


def evaluate(goals: Iterable[Goal], rows: list[Row]) -> list[Verdict]:
    """A verdict for each case of each goal, in the order of the goals; one without values where there is no row."""
    return [verdict for goal in goals for verdict in _verdicts(goal, rows)]


def _verdicts(goal: Goal, rows: list[Row]) -> list[Verdict]:
    wanted = [row for row in rows if row["verb"] == goal.verb and matches(row["case"], goal.case)]
    points = _ratios(goal, wanted) if goal.over else _numbers(goal, wanted)
    cases: dict[Key, list[_Point]] = {}
    for point in points:
        cases.setdefault(point.key, []).append(point)
    verdicts = []
    for of_case in cases.values():
        latest = max(point.run for point in of_case)
        verdicts.append(_verdict(goal, [point for point in of_case if point.run == latest]))
    return verdicts or [Verdict(goal, (), (), "no rows of such a case")]


def _verdict(goal: Goal, points: list[_Point]) -> Verdict:
    counted = [point for point in points if point.value is not None]
    missing = len(points) - len(counted)
    whys = dict.fromkeys(point.why for point in points if point.why)
    why = f"{missing} of {len(points)} repeats do not count: {first_of(whys)}" if missing else ""
    values = tuple(point.value for point in counted if point.value is not None)
    return Verdict(goal, values, tuple(row for point in counted or points for row in point.rows), why)


def _numbers(goal: Goal, rows: list[Row]) -> list[_Point]:
    """The goal's number of each row that it is about."""
    points = []
    for row in rows:
        if matches(row["result"], goal.result):
            value, why = _counted(row, goal.value)
            points.append(_Point(identity(row), row["run"], row["repeat"], value, (row,), why))
    return points


def _ratios(goal: Goal, rows: list[Row]) -> list[_Point]:
    """The goal's number of a row over that of its partner: same case, same run, same repeat."""
    without = set(goal.result) | set(goal.over)

    def place(row: Row) -> Key:
        return identity(row, without), row["run"], row["repeat"]

    under = {place(row): row for row in rows if matches(row["result"], goal.over)}
    points = []
    for row in rows:
        partner = under.get(place(row))
        if not matches(row["result"], goal.result) or partner is None:
            continue
        (above, why_above), (below, why_below) = _counted(row, goal.value), _counted(partner, goal.value)
        value = above / below if above is not None and below else None
        points.append(_Point(place(row)[0], row["run"], row["repeat"], value, (row, partner), why_above or why_below))
    return points


def _counted(row: Row, path: str) -> tuple[float | None, str]:
    """A row's number, or None and why there is none."""
    why = refusal(row)
    if why is not None:
        return None, why
    value = value_at(row["result"], path)
    return value, "" if value is not None else f"{path} is blank"
