"""Results as JSON lines: one row per measurement, written whole as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.provenance import provenance

SCHEMA = 1
Row = dict[str, Any]


class Results:
    """Rows of one verb, appended to `folder/verb.jsonl`.

    Ctrl-C at any moment leaves only complete rows.

    Args:
        folder: Made where it is missing.
        verb: "rate", "latency", "stages", "accuracy" or "compare".
        command: How to measure again.

    Attributes:
        run: When it began, ISO 8601, UTC: the same in all rows of one invocation.
        count: Rows written.
    """

    def __init__(self, folder: Path, verb: str, command: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{verb}.jsonl"
        _end_torn_line(self.path)
        self.count = 0
        self.run = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._verb, self._command = verb, command

    def add(self, case: Case, repeat: int, result: dict[str, Any], plan_digest: str | None = None) -> Row:
        """Write one row.

        Args:
            case: What was measured.
            repeat: 0, 1, ..: which measurement of the same case.
            result: What came out; only what JSON knows.
            plan_digest: Of the case's plan.
        """
        row = {
            "schema": SCHEMA,
            "verb": self._verb,
            "run": self.run,
            "case": case.describe() | {"plan_digest": plan_digest},
            "repeat": repeat,
            "result": result,
            "provenance": provenance() | {"command": self._command},
        }
        line = json.dumps(row, allow_nan=False) + "\n"
        with self.path.open("a") as file:
            file.write(line)
        self.count += 1
        return row


def _end_torn_line(path: Path) -> None:
    """Drop what a kill left of a row."""
    if path.exists():
        written = path.read_bytes()
        if written and not written.endswith(b"\n"):
            path.write_bytes(written[: written.rfind(b"\n") + 1])


def read_rows(folder: Path, verb: str) -> Iterator[Row]:
    """All complete rows of a verb, in the order in which they were written; none where there is no file.

    A last line without its end was torn by a kill; it is left out.
    """
    path = folder / f"{verb}.jsonl"
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n") and line.strip():
                yield json.loads(line)
