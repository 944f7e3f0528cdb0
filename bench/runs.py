"""Which rows of a results folder count, what distinguishes them, and how to say so in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rows import SCHEMA, Row, read_rows
from rtqec.errors import ConfigError

VERBS = ("rate", "latency", "stages", "accuracy", "compare")
_UNNAMED = ("config_digest", "plan_digest", "seed")
"""Fields of a case that change with what does not matter here: a seed, the path of a socket."""
_KINDS = ("mode", "decoder", "workload", "rung", "num_rounds", "budget_us")
"""Fields of a result that say what was measured, not what came out."""
_WORDS = {
    "config": "{}",
    "distance": "d = {}",
    "noise": "p = {:g}",
    "rounds": "{} rounds",
    "matching": "{} matching",
    "commit_rounds": "commit {}",
    "buffer_rounds": "buffer {}",
    "period_us": "{:g} us rounds",
    "patches": "{} patches",
    "overrides": "{}",
    "decoder": "{}",
}
_SAID_ELSEWHERE = ("config", "overrides", "decoder")
Key = tuple[Any, ...]


def load_rows(folder: Path) -> list[Row]:
    """All rows of all verbs.

    Raises:
        ConfigError: There are none, or they are of another version of the bench.
    """
    rows = [row for verb in VERBS for row in read_rows(folder, verb)]
    if not rows:
        raise ConfigError(
            f"results folder {folder}", f"has no rows of any verb ({', '.join(VERBS)}).",
            "A report measures nothing: it is made from rows alone.",
            f"Make some, for example: rtqec-bench rate configs/d5_memory_z.toml --out {folder}",
        )  # fmt: skip
    strange = sorted({str(row.get("schema")) for row in rows} - {str(SCHEMA)})
    if strange:
        raise ConfigError(
            f"results folder {folder}", f"has rows of schema {', '.join(strange)}, but this bench reads {SCHEMA}.",
            "The same name may mean something else there.", "Measure again into another folder, or use that release.",
        )  # fmt: skip
    return rows


def matches(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether every wanted field is as wanted; a list names alternatives, numbers are equal within a billionth."""
    return all(_equal(found.get(name), value) for name, value in wanted.items())


def _equal(found: object, wanted: object) -> bool:
    if isinstance(wanted, list):
        return any(_equal(found, one) for one in wanted)
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=1e-9)
    return found == wanted


def value_at(result: Mapping[str, Any], path: str) -> float | None:
    """The number at `name/name/..`, or None where there is none: absent, null, or no finite number."""
    value: Any = result
    for name in path.split("/"):
        value = value.get(name) if isinstance(value, Mapping) else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def identity(row: Row, without: Iterable[str] = ()) -> Key:
    """What was measured: equal for repeats, and for the same case of another run.

    Args:
        row: Of any verb.
        without: Fields of its result that are to make no difference.
    """
    case = tuple(sorted((name, str(value)) for name, value in row["case"].items() if name not in _UNNAMED))
    kinds = tuple((name, str(row["result"].get(name))) for name in _KINDS if name not in without)
    return row["verb"], case, kinds


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of everything that was measured, the rows of the newest run that measured it, in their order."""
    rows = list(rows)
    latest: dict[Key, str] = {}
    for row in rows:
        key = identity(row)
        latest[key] = max(latest.get(key, ""), row["run"])
    return [row for row in rows if row["run"] == latest[identity(row)]]


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Repeats of the same together, in the order in which they were first seen."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(identity(row), []).append(row)
    return list(groups.values())


def typical(repeats: Iterable[Row], path: str) -> Row | None:
    """Of some repeats the one whose number is their median (of two in the middle the lower), so that what is shown
    together was measured together; None where no repeat counts."""
    counted = [(value_at(row["result"], path), row) for row in repeats if refusal(row) is None]
    ordered = sorted(((value, row) for value, row in counted if value is not None), key=lambda pair: pair[0])
    return ordered[(len(ordered) - 1) // 2][1] if ordered else None


def of_verb(rows: Iterable[Row], verb: str) -> list[Row]:
    """The rows of one verb."""
    return [row for row in rows if row["verb"] == verb]


def refusal(row: Row) -> str | None:
    """Why a row's numbers do not count, or None where they do."""
    result = row["result"]
    if result.get("accepted") is False:
        return f"rejected: {result.get('why') or 'the sender was late'}"
    if result.get("available") is False:
        return f"{result.get('decoder')}: {result.get('why') or 'not installed'}"
    return None


def first_of(whys: Iterable[str]) -> str:
    """The first of some reasons, and whether there are others."""
    found = list(dict.fromkeys(whys))
    return "; ".join([*found[:1], *(["and for other reasons"] if len(found) > 1 else [])])


def number(value: float, digits: int = 3) -> str:
    """So many digits, with thousands set apart: what a figure or a table says."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


class Wording:
    """Says cases in words: what all share once, what differs for each.

    Args:
        rows: All that stand beside each other in one table or figure.
        without: Fields that are said elsewhere, or not at all.
    """

    def __init__(self, rows: Sequence[Row], without: Iterable[str] = ()) -> None:
        fields = [name for name in _WORDS if name not in set(without)]
        values = {name: {str(_facts(row).get(name)) for row in rows} for name in fields}
        self.differing = [name for name in fields if len(values[name]) > 1]
        if set(self.differing) - set(_SAID_ELSEWHERE):
            self.differing = [name for name in self.differing if name != "config"]
        if "overrides" in self.differing and self._told_apart(rows, [n for n in self.differing if n != "overrides"]):
            self.differing.remove("overrides")
        self._shared = [name for name in fields if len(values[name]) == 1 and name not in _SAID_ELSEWHERE]
        self._first = rows[0] if rows else None

    def of(self, row: Row) -> str:
        """What is particular about one case; empty where there is only one."""
        return _said(_facts(row), self.differing)

    def shared(self) -> str:
        """What all have in common."""
        return _said(_facts(self._first), self._shared) if self._first else ""

    @staticmethod
    def _told_apart(rows: Sequence[Row], fields: list[str]) -> bool:
        of_case = [name for name in fields if name != "decoder"]
        by_fields = {tuple(str(_facts(row).get(name)) for name in of_case) for row in rows}
        return len(by_fields) == len({(identity(row)[1], str(_facts(row)["rounds"])) for row in rows})


def _facts(row: Row) -> dict[str, Any]:
    """A case with how it was decoded, and the rounds that were measured: a comparison can make its own stream."""
    case: dict[str, Any] = dict(row["case"])
    result = row["result"]
    measured, rounds = result.get("num_rounds"), case.get("rounds")
    case["decoder"] = result.get("decoder") if row["verb"] == "accuracy" else None
    # A data readout is a round too.
    own = measured is None or (isinstance(rounds, int) and measured - rounds in (0, 1))
    return case if own else case | {"rounds": f"{measured:,}"}


def _said(case: Mapping[str, Any], fields: Iterable[str]) -> str:
    words = []
    for name in fields:
        value = case.get(name)
        if value is None or (name == "patches" and value == 1) or (name == "matching" and value == "plain"):
            continue
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if name == "rounds" and value == "endless":
            words.append("endless stream")
        elif value != "":
            words.append(_WORDS[name].format(value))
    return ", ".join(words)


def full_wording(row: Row) -> str:
    """A case with everything that a reader needs to know of it."""
    return _said(_facts(row), [name for name in _WORDS if name not in _SAID_ELSEWHERE])


@dataclass(frozen=True)
class Source:
    """Where some rows come from, in a few words.

    Attributes:
        machines, commits, dates: Distinct ones, as text.
        load: Least and most load average while measuring.
        dirty: Some row was measured from a tree that is not the commit; None in a row counts, nobody knows what it was.
    """

    machines: tuple[str, ...]
    commits: tuple[str, ...]
    dates: tuple[str, ...]
    load: tuple[float, float]
    dirty: bool

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Source:
        """The sources of some rows, at least one."""
        found = [row["provenance"] for row in rows]
        loads = [float(one["machine"].get("load") or 0.0) for one in found]
        return cls(
            tuple(sorted({machine_text(one["machine"]) for one in found})),
            tuple(sorted({str(one["commit"] or "unknown") for one in found})),
            tuple(sorted({str(one["date"]) for one in found})),
            (min(loads), max(loads)),
            any(one["dirty"] is not False for one in found),
        )

    @property
    def when(self) -> str:
        """One date, or the first and the last."""
        return self.dates[0] if len(self.dates) == 1 else f"{self.dates[0]} to {self.dates[-1]}"

    @property
    def loads(self) -> str:
        """How busy the machine was, the bench itself included."""
        low, high = self.load
        return f"load {low:g}" if low == high else f"load {low:g} to {high:g}"

    @property
    def commit(self) -> str:
        """All commits, and whether the tree was as committed."""
        return ", ".join(self.commits) + (" DIRTY TREE" if self.dirty else "")


def machine_text(machine: Mapping[str, Any]) -> str:
    """A machine in a few words."""
    cores = machine.get("cores")
    text = f"{cores} core{'' if cores == 1 else 's'} of {machine.get('cpu')}, Linux {machine.get('kernel')}"
    return text + (f", governor {machine['governor']}" if machine.get("governor") else "")
