"""The audit log: what the daemon was made to do, and by whom, in files that cannot be changed unnoticed.

Starts and stops, plans with their digests, changes of the configuration, swaps, drains, lane deaths. What strangers try
is not in it, as they could fill the disk: the log and the gate's counters say that. `service.audit_chain` has the form.

A full or silent disk stops nothing: a thread of its own writes, each record to the disk before the next; what cannot be
written is counted, and said in the log at once and in the audit log as soon as there is room.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rtqec.config import Config
from rtqec.endpoints import lock_beside
from rtqec.errors import ConfigError
from rtqec.log import get_logger
from rtqec.security import make_folder
from rtqec.service.audit_chain import (
    DAMAGED,
    NO_RECORD,
    PRUNED,
    TORN,
    UNWRITTEN,
    Chain,
    audit_files,
    audit_path,
    compose,
    digest,
    old_audit_path,
)

DAEMON = "rtqec"
"""Who did it, where nobody asked for it."""
_FILE_MODE = 0o640
_FILE_DAYS_MAX = 30
_KEEP_DAYS_MAX = 36_500
_FILE_BYTES_MAX = 1 << 24
"""A starting daemon reads the newest file whole: 60,000 records take it half a second."""
_QUEUE_RECORDS = 1024
_REPORT_EVERY_S = 60.0
_PROBLEMS_SAID = 10
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

_Record = tuple[datetime, str, str, dict[str, Any]]


class AuditLog:
    """The one writer of a deployment's audit log. `record` may be called from any thread, and never waits.

    Args:
        config: `[service] state_dir` and name, `[audit]`.
        now: The time of day.

    Attributes:
        unwritten: Records that were lost so far.

    Raises:
        ConfigError: It cannot be written, or another daemon writes it. A disk that is only full is no such reason.
    """

    def __init__(self, config: Config, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = audit_path(config)
        self._now = now
        self._log = get_logger()
        self._keep = timedelta(days=min(config.audit.retention_days, _KEEP_DAYS_MAX))
        self._file_age = timedelta(days=min(config.audit.retention_days, _FILE_DAYS_MAX))
        self._fd: int | None = None
        self._head = (-1, NO_RECORD)
        self._first: dict[str, Any] | None = None
        self._count_lock = threading.Lock()
        self._unsaid = 0
        self._reported_at = float("-inf")
        self.unwritten = 0
        self._queue: queue.Queue[_Record | threading.Event | None] = queue.Queue(_QUEUE_RECORDS)
        try:
            make_folder(self._path.parent)
            self._lock = lock_beside(self._path)
            self._open_unless_full()
        except OSError as error:
            raise ConfigError(
                "[service] state_dir", f"is {config.service.state_dir!r}, but the audit log {self._path.name} cannot "
                f"be written there: {error.strerror}.", "What the daemon was made to do, and by whom, is kept there.",
                "Name a folder that this user may write and others may not; daemons that share one need different "
                "[service] name.",
            ) from error  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that is on the disk."""
        return self._head

    def record(self, event: str, who: str = DAEMON, **facts: Any) -> None:
        """Add a record.

        Args:
            event: What happened, in snake_case.
            who: Who asked for it; see `Rights.describe`.
            facts: What else is known, as JSON can say it.
        """
        try:
            plain = json.loads(json.dumps(facts, default=str, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            plain = {"facts": repr(facts)}
        try:
            self._queue.put_nowait((self._now(), event, who, plain))
        except queue.Full:
            self._miss("the disk does not keep up")

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far has been written, or counted; False where that took too long."""
        done = threading.Event()
        give_up = time.monotonic() + timeout_s
        with suppress(queue.Full):
            self._queue.put(done, timeout=timeout_s)
            return done.wait(max(0.0, give_up - time.monotonic()))
        return False

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and leave the log to another daemon. A disk that does not answer is left alone."""
        if self._lock.closed:
            return
        if self.flush(timeout_s):
            self._queue.put(None)
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._shut()
        self._lock.close()

    # The thread.

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            if isinstance(asked, threading.Event):
                asked.set()
            else:
                self._write(*asked)

    def _write(self, at: datetime, event: str, who: str, facts: dict[str, Any]) -> None:
        """One record, and before it what had to be left out."""
        try:
            if self._fd is None:
                self._open()
            if self._is_old(at):
                self._put_aside()
                self._prune(at)
            if unsaid := self._unsaid:
                self._append(at, UNWRITTEN, DAEMON, {"records": unsaid})
                with self._count_lock:
                    self._unsaid -= unsaid
            self._append(at, event, who, facts)
        except OSError as error:
            self._miss(error.strerror or str(error))

    def _append(self, at: datetime, event: str, who: str, facts: dict[str, Any]) -> None:
        """Bring a record to the disk whole, or take it back."""
        assert self._fd is not None
        seq, previous = self._head[0] + 1, self._head[1]
        said_at = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = compose(seq, said_at, event, who, facts, previous)
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line + b"\n") != len(line) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError:
            try:
                os.ftruncate(self._fd, size)
            except OSError:
                self._shut()  # The next attempt looks at what is there.
            raise
        self._head = seq, digest(line)
        self._first = self._first or {"seq": seq, "at": said_at}

    def _open_unless_full(self) -> None:
        """Open the log; a disk that is only full must not keep a daemon from starting."""
        try:
            self._open()
            self._prune(self._now())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._complain(os.strerror(error.errno))

    def _open(self) -> None:
        """Go on where the chain ends, and note what is not as it was left."""
        fd = os.open(self._path, _FLAGS, _FILE_MODE)
        try:
            os.fchmod(fd, _FILE_MODE)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.write(fd, b"\n")  # A line that a crash left unfinished stays, as a line that is no record.
            chain = Chain()
            for path in audit_files(self._path)[-2:]:
                chain.read(path)
            _bring_to_disk(self._path.parent)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._head, self._first = fd, chain.head, chain.first
        self._log.info("audit_head", path=str(self._path), seq=self._head[0], hash=self._head[1])
        try:
            if chain.torn:
                self._log.warning("audit_torn", path=str(self._path), lines=len(chain.torn))
                self._append(self._now(), TORN, DAEMON, {"lines": chain.torn})
            if problems := chain.problems[:_PROBLEMS_SAID]:
                self._log.error("audit_damaged", path=str(self._path), problems=problems)
                self._append(self._now(), DAMAGED, DAEMON, {"problems": problems})
        except OSError:
            self._shut()  # Else the next record would stand behind lines that nothing explains.
            raise

    def _shut(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _is_old(self, at: datetime) -> bool:
        """Whether the file has had its time, or its size."""
        if self._first is None or self._fd is None:
            return False
        since = _time_of(self._first)
        return (since is not None and at - since >= self._file_age) or os.fstat(self._fd).st_size >= _FILE_BYTES_MAX

    def _put_aside(self) -> None:
        """Begin a new file."""
        assert self._first is not None
        self._path.rename(old_audit_path(self._path, self._first["seq"]))
        self._shut()
        self._open()

    def _prune(self, at: datetime) -> None:
        """Delete the files that nobody has to keep any more, after saying so in one that stays."""
        chain, gone = Chain(), []
        through = chain.head
        for path in audit_files(self._path)[:-1]:
            chain.read(path)
            ended = _time_of(chain.last) if chain.last is not None else None
            if ended is None or at - ended < self._keep:
                break
            gone.append(path)
            through = chain.head
        if not gone:
            return
        names = [path.name for path in gone]
        self._append(at, PRUNED, DAEMON, {"files": names, "through_seq": through[0], "through_hash": through[1]})
        for path in gone:
            path.unlink(missing_ok=True)

    def _miss(self, reason: str) -> None:
        """Count a record that is lost."""
        with self._count_lock:
            self.unwritten += 1
            self._unsaid += 1
        self._complain(reason)

    def _complain(self, reason: str) -> None:
        """Say once in a while that records cannot be written."""
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._log.error("audit_unwritten", path=str(self._path), reason=reason, unwritten=self.unwritten)


def _time_of(record: dict[str, Any]) -> datetime | None:
    """When a record was made, if it says so."""
    try:
        at = datetime.fromisoformat(record["at"])
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _bring_to_disk(folder: Path) -> None:
    """Let the names of new and moved files outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
