"""Tables of where the rows come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.rows import Row
from bench.runs import Source, full_wording, machine_text
from bench.tables.cells import Cell, Table


def provenance_table(rows: Sequence[Row]) -> Table:
    """Every distinct machine, commit, versions and command line."""
    columns = ("command", "machine", "commit", "versions", "run", "rows", "load")
    table = Table("provenance-table", columns, text_columns=5)
    for source_rows in _by(rows, lambda row: (_origin(row), row["run"])):
        first = source_rows[0]["provenance"]
        source, versions = Source.of(source_rows), first.get("versions") or {}
        table.add(
            Cell(first["command"]), Cell(machine_text(first["machine"]), f"Python {first['machine'].get('python')}"),
            Cell(source.commits[0], "DIRTY TREE" if source.dirty else "as committed", "bad" if source.dirty else ""),
            ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            source_rows[0]["run"], str(len(source_rows)), source.loads.removeprefix("load "),
        )  # fmt: skip
    table.notes.append("Load: of the last minute before each row, the bench itself included.")
    return table


def case_table(rows: Sequence[Row]) -> Table:
    """Every configuration that was measured, with what identifies it."""
    columns = ("configuration", "case", "changed by --set and --sweep", "configuration digest", "plan digest", "seed")
    table = Table("case-table", columns, text_columns=5)
    for same in _by(rows, lambda row: (str(row["case"]), row["case"].get("plan_digest"))):
        case = same[0]["case"]
        table.add(
            case["config"], full_wording(same[0]), " ".join(case.get("overrides") or []), str(case["config_digest"]),
            str(case.get("plan_digest") or ""), str(case.get("seed")),
        )  # fmt: skip
    return table


def _origin(row: Row) -> str:
    source = row["provenance"]
    machine = machine_text(source["machine"])
    return str((machine, source["commit"], source["dirty"], source.get("versions"), source["command"]))


def _by(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())
