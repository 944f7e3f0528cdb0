"""The audit log as files: how a record is written down, and whether what is there is still what was written.

`{state_dir}/{name}-audit.jsonl` has one JSON object per line:

    {"seq": 7, "at": "2026-11-20T12:00:00.000Z", "event": "drain", "who": "alice 0Ab..", .., "previous": "<64 hex>"}

`seq` counts from 0 without a gap. `previous` is the SHA-256 of the bytes of the record before it, without the newline;
64 zeros before the first. Whoever changes or removes a record must therefore rewrite all later ones. Older files are
`{name}-audit-{seq of its first record}.jsonl`; the chain goes through them all.

What the chain cannot show: that its last records were cut off, or that it was rewritten whole. Compare its head
(`Chain.head`; the daemon also logs it, `audit_head`) with one that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rtqec.config import Config

NO_RECORD = "0" * 64
TORN, UNWRITTEN, PRUNED, DAMAGED = "torn", "unwritten", "pruned", "damaged"
"""Events of the log itself: lines that a crash left unfinished (`lines`: their hashes); `records` that could not be
written; `files` that were old and are deleted, with the head of the chain at their end (`through_seq`,
`through_hash`); `problems` that a starting daemon found."""
_RESERVED = ("seq", "at", "event", "who", "previous")
_RECORD_BYTES_MAX = 1 << 16
_PROBLEMS_MAX = 100


class Chain:
    """Reads files in order, and checks that they are one chain.

    Attributes:
        problems: What is wrong, in words.
        head: Number and hash of the last record; (-1, `NO_RECORD`) before the first.
        torn: Hashes of the lines after it that are no records.
        first: The first record of the file that was read last; None where it has none.
        last: Its last one.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.head = (-1, NO_RECORD)
        self.torn: list[str] = []
        self.first: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self._before: tuple[int, str] | None = None
        self._pruned: set[tuple[int, str]] = set()

    def read(self, path: Path) -> None:
        """Go on with the next file."""
        self.first = self.last = None
        for number, line in enumerate(_lines(path), 1):
            record = _parse(line)
            if record is None:
                self.torn.append(digest(line))
                continue
            self.first, self.last = self.first or record, record
            self._follow(f"{path.name}, line {number}", record)
            self.head = record["seq"], digest(line)

    def finish(self) -> list[str]:
        """All problems, now that the last file has been read."""
        if self.torn:
            self._object("the last line", "is no whole record; a daemon that starts notes that and goes on")
        if self._before is not None and self._before[0] >= 0 and self._before not in self._pruned:
            self._object("the first record", f"has number {self._before[0] + 1}, and no record says where others went")
        return self.problems

    def _follow(self, where: str, record: dict[str, Any]) -> None:
        """Check one record against those before it."""
        before = record["seq"] - 1, record["previous"]
        if self._before is None:
            self._before = before
            if before[0] == -1 and before[1] != NO_RECORD:
                self._object(where, "is the first record, but names one before it")
        elif before[0] != self.head[0]:
            self._object(where, f"record {record['seq']} follows record {self.head[0]}: some are missing, or repeated")
        elif before[1] != self.head[1]:
            self._object(where, f"record {record['seq']} does not follow what is before it, which was changed")
        noted = record.get("lines", []) if record["event"] == TORN else []
        if noted != self.torn:
            self._object(where, "lines before it are no records, or not those that it notes")
        self.torn = []
        if record["event"] == PRUNED:
            through = record.get("through_seq"), record.get("through_hash")
            if isinstance(through[0], int) and isinstance(through[1], str):
                self._pruned.add((through[0], through[1]))

    def _object(self, where: str, what: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(f"{where}: {what}")


def verify_audit(paths: Iterable[Path]) -> list[str]:
    """What is wrong with an audit log, in words; nothing where it is as it was written.

    Args:
        paths: Its files, oldest first; see `audit_files`.
    """
    chain = Chain()
    for path in paths:
        chain.read(path)
    return chain.finish()


def read_audit(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of an audit log, oldest first."""
    for path in paths:
        for line in _lines(path):
            if (record := _parse(line)) is not None:
                yield record


def audit_path(config: Config) -> Path:
    """The file to which a deployment's daemon adds records."""
    return config.state_dir / f"{config.service.name}-audit.jsonl"


def old_audit_path(path: Path, first_seq: int) -> Path:
    """Where a file is put when it is old."""
    return path.with_name(f"{path.stem}-{first_seq:09d}{path.suffix}")


def audit_files(path: Path) -> list[Path]:
    """All files of an audit log, oldest first; the last one is `path`, if it is there."""
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
    numbered = [(int(found[1]), old) for old in path.parent.glob("*") if (found := pattern.fullmatch(old.name))]
    return [old for _, old in sorted(numbered)] + ([path] if path.exists() else [])


def compose(seq: int, at: str, event: str, who: str, facts: dict[str, Any], previous: str) -> bytes:
    """One record, without its newline. Facts that are too long are replaced by their hash."""
    own = {name: fact for name, fact in facts.items() if name not in _RESERVED}
    head = {"seq": seq, "at": at, "event": event, "who": who}
    line = json.dumps(head | own | {"previous": previous}).encode()
    if len(line) <= _RECORD_BYTES_MAX:
        return line
    packed = json.dumps(own).encode()
    short = {"facts_bytes": len(packed), "facts_sha256": digest(packed)}
    return json.dumps(head | short | {"previous": previous}).encode()


def digest(line: bytes) -> str:
    """The hash by which a record is named."""
    return hashlib.sha256(line).hexdigest()


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their newlines."""
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A record, if the line is one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("seq")) is not int:
        return None
    return record if all(isinstance(record.get(name), str) for name in _RESERVED[1:]) else None
