"""The audit log keeps every record, in order, through crashes and full disks, and shows what was done to it since."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rtqec.config import Config
from rtqec.errors import ConfigError
from rtqec.service.audit import AuditLog
from rtqec.service.audit_chain import (
    NO_RECORD,
    Chain,
    audit_files,
    audit_path,
    compose,
    digest,
    read_audit,
    verify_audit,
)
from rtqec.service.audit_commands import audit_app
from tests.harness import make_config

FLUSH_S = 20.0


class Clock:
    """The time of day, as a test says it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_days(self, days: float) -> None:
        """Let it become later."""
        self.now += timedelta(days=days)


class Desk:
    """Audit logs of one deployment, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.config = self.config_with()
        self._open: list[AuditLog] = []

    def config_with(self, **audit: Any) -> Config:
        """The deployment, with another `[audit]`."""
        return make_config(service={"state_dir": str(self.folder), "name": "d5"}, audit=audit)

    def start(self, config: Config | None = None) -> AuditLog:
        """As a daemon does."""
        self._open.append(AuditLog(config or self.config, self.clock))
        return self._open[-1]

    def write(self, *events: str) -> None:
        """A daemon that starts, records, and stops."""
        log = self.start()
        for event in events:
            log.record(event)
        log.close()

    @property
    def path(self) -> Path:
        """The newest file."""
        return audit_path(self.config)

    @property
    def files(self) -> list[Path]:
        """All files, oldest first."""
        return audit_files(self.path)

    def events(self) -> list[str]:
        """Of all records."""
        return [record["event"] for record in read_audit(self.files)]

    def close(self) -> None:
        """Whatever a test has left open."""
        for log in self._open:
            log.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "state")
    yield desk
    desk.close()


def test_records_are_a_chain(desk: Desk) -> None:
    """Numbered without a gap, each with the hash of the one before it; when, what, by whom, and what else is known."""
    log = desk.start()
    log.record("started", version="1.0")
    log.record("plan_loaded", patch=3, digest="ab" * 32)
    log.record("drain", who="alice KEY", when=desk.clock.now, path=desk.path, worst=float("nan"))
    assert log.flush(FLUSH_S)
    lines = desk.path.read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert [record["previous"] for record in records] == [NO_RECORD, digest(lines[0]), digest(lines[1])]
    known = {"at": "2026-11-20T12:00:00.000Z", "who": "rtqec", "patch": 3, "digest": "ab" * 32}
    assert records[1] == records[1] | known
    assert records[2]["who"] == "alice KEY"
    assert log.head == (2, digest(lines[2]))
    assert verify_audit(desk.files) == []


def test_files_are_for_the_daemon_and_its_group(desk: Desk) -> None:
    """Whatever the umask: the folder 0750, the log 0640, its lock 0600."""
    before = os.umask(0o000)
    try:
        desk.write("started")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (desk.folder, *desk.folder.iterdir())}
    assert modes == {"state": 0o750, "d5-audit.jsonl": 0o640, "d5-audit.jsonl.lock": 0o600}


def test_the_next_daemon_goes_on(desk: Desk) -> None:
    """The chain goes through restarts."""
    for event in ("one", "two", "three"):
        desk.write(event)
    assert desk.events() == ["one", "two", "three"]
    assert verify_audit(desk.files) == []


def test_only_one_daemon_writes(desk: Desk) -> None:
    """A second one of the same name is refused, and one of another name has a log of its own."""
    log = desk.start()
    with pytest.raises(ConfigError) as refused:
        desk.start()
    for word in ("[service] state_dir", "in use", "different [service] name"):
        assert word in str(refused.value)
    other = make_config(service={"state_dir": str(desk.folder), "name": "d7"})
    desk.start(other).record("started")
    log.close()
    desk.write("started")
    assert verify_audit(audit_files(audit_path(other))) == verify_audit(desk.files) == []


@pytest.mark.parametrize("kind", ["file", "open to all", "read only"])
def test_a_folder_that_cannot_be_used_is_refused(desk: Desk, kind: str) -> None:
    """Before READY, with the remedy."""
    if kind == "file":
        desk.folder.write_text("")
    else:
        desk.folder.mkdir()
        desk.folder.chmod(0o777 if kind == "open to all" else 0o500)
        if kind == "read only" and os.geteuid() == 0:
            pytest.skip("root may write everywhere")
    with pytest.raises(ConfigError, match=r"\[service\] state_dir"):
        desk.start()


@given(cut=st.integers(0, 400), again=st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_crash_while_writing_is_noted(tmp_path_factory: pytest.TempPathFactory, cut: int, again: int) -> None:
    """However much of the last record reached the disk, twice in a row: whole records stay, what is torn stays as it
    is, the next record says so, and the chain holds."""
    desk = Desk(tmp_path_factory.mktemp("crash"))
    desk.write("one", "two")
    for lost in (cut, again):
        content = desk.path.read_bytes()
        last = content.rindex(b"\n", 0, -1) + 1 if content.count(b"\n") > 1 else 0
        desk.path.write_bytes(content[: max(last, len(content) - lost)])
        desk.write("after")
    assert verify_audit(desk.files) == []
    events = desk.events()
    assert events[0] == "one"
    assert events[-1] == "after"
    assert events.count("torn") <= 2
    torn = [line for record in read_audit(desk.files) for line in record.get("lines", [])]
    there = [digest(line) for line in desk.path.read_bytes().splitlines()]
    assert set(torn) <= set(there)


def full_disk(monkeypatch: pytest.MonkeyPatch, kind: str) -> Callable[[], None]:
    """Let the disk be full (or fail, or stop in the middle of a record) until the answer is called."""
    write, fsync = os.write, os.fsync
    works = threading.Event()

    def no_write(fd: int, content: bytes) -> int:
        if works.is_set():
            return write(fd, content)
        if kind == "short":
            return write(fd, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_fsync(fd: int) -> None:
        if not works.is_set():
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    if kind == "fsync":
        monkeypatch.setattr("rtqec.service.audit.os.fsync", no_fsync)
    else:
        monkeypatch.setattr("rtqec.service.audit.os.write", no_write)
    return works.set


@pytest.mark.parametrize("kind", ["write", "short", "fsync"])
@pytest.mark.parametrize("truncate", [True, False])
def test_a_full_disk_stops_nothing(desk: Desk, kind: str, truncate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that cannot be written are counted; as soon as there is room the log says how many, and goes on; half
    a record is never taken for one, also where it cannot be taken back."""
    log = desk.start()
    log.record("before")
    assert log.flush(FLUSH_S)
    if not truncate:
        monkeypatch.setattr("rtqec.service.audit.os.ftruncate", lambda *_: no_truncate())
    there_is_room = full_disk(monkeypatch, kind)
    for _ in range(3):
        log.record("lost")
    assert log.flush(FLUSH_S)
    assert log.unwritten == 3
    there_is_room()
    log.record("after")
    assert log.flush(FLUSH_S)
    log.close()
    events = desk.events()
    assert events[0] == "before"
    assert events[-2:] == ["unwritten", "after"]
    assert list(read_audit(desk.files))[-2]["records"] == 3
    assert verify_audit(desk.files) == []


def no_truncate() -> None:
    """A file system that cannot."""
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_disk_that_is_full_at_the_start_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is restarted while the disk is full starts; what it could record later, it does."""
    desk.write("before")
    desk.path.write_bytes(desk.path.read_bytes()[:-5])
    there_is_room = full_disk(monkeypatch, "write")
    log = desk.start()
    log.record("lost")
    assert log.flush(FLUSH_S)
    assert log.unwritten == 1
    there_is_room()
    log.record("after")
    log.close()
    assert desk.events() == ["torn", "unwritten", "after"]
    assert verify_audit(desk.files) == []


def test_a_silent_disk_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a write does not come back nobody waits; what does not fit into the queue is counted."""
    log = desk.start()
    answers, fsync = threading.Event(), os.fsync

    def slow_fsync(fd: int) -> None:
        assert answers.wait(FLUSH_S)
        fsync(fd)

    monkeypatch.setattr("rtqec.service.audit.os.fsync", slow_fsync)
    for _ in range(2000):
        log.record("many")
    assert not log.flush(0.01)
    assert 900 <= log.unwritten <= 1000
    answers.set()
    assert log.flush(FLUSH_S)
    log.record("after")
    log.close()
    events = desk.events()
    assert events.count("many") + log.unwritten == 2000
    assert verify_audit(desk.files) == []


def test_old_files_are_put_aside_and_deleted_whole(desk: Desk) -> None:
    """A file is closed after thirty days; a closed one is deleted when its last record is as old as the retention asks,
    never before; what is left is a chain that says what is gone."""
    config = desk.config_with(retention_days=90)
    kept_since = desk.clock.now
    for _ in range(200):
        log = desk.start(config)
        log.record("day")
        log.close()
        desk.clock.pass_days(1)
        assert verify_audit(desk.files) == []
    days = [record["at"] for record in read_audit(desk.files) if record["event"] == "day"]
    assert 90 <= len(days) <= 90 + 2 * 31
    assert datetime.fromisoformat(days[0]) > kept_since
    assert "pruned" in desk.events()
    assert 4 <= len(desk.files) <= 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in desk.files} == {0o640}


def test_a_file_that_has_become_large_is_put_aside(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a starting daemon never reads much; nothing is deleted for it."""
    monkeypatch.setattr("rtqec.service.audit._FILE_BYTES_MAX", 1000)
    desk.write(*(f"event{k}" for k in range(50)))
    assert len(desk.files) > 5
    assert desk.events() == [f"event{k}" for k in range(50)]
    assert verify_audit(desk.files) == []


def test_a_short_retention_is_kept_too(desk: Desk) -> None:
    """With one day, files of one day: what is two days old is gone at the next record."""
    config = desk.config_with(retention_days=1)
    log = desk.start(config)
    for event in ("monday", "tuesday", "wednesday", "thursday"):
        log.record(event)
        assert log.flush(FLUSH_S)
        desk.clock.pass_days(1)
    log.close()
    assert "monday" not in desk.events()
    assert "thursday" in desk.events()
    assert verify_audit(desk.files) == []


TEN = [f"event{k}" for k in range(10)]


@given(at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    """Wherever it is, but in the last record, whose hash nobody has yet but the daemon's own log."""
    desk = Desk(tmp_path_factory.mktemp("change"))
    desk.write(*TEN)
    content = bytearray(desk.path.read_bytes())
    last = bytes(content).rindex(b"\n", 0, -1) + 1
    at %= last
    if content[at] == byte:
        return
    content[at] = byte
    desk.path.write_bytes(content)
    assert verify_audit(desk.files) != []


@pytest.mark.parametrize("gone", range(9))
def test_a_removed_record_is_found(desk: Desk, gone: int) -> None:
    """The first one too: no record says that it was deleted."""
    desk.write(*TEN)
    lines = desk.path.read_bytes().splitlines(keepends=True)
    desk.path.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
    assert verify_audit(desk.files) != []


def test_a_removed_file_is_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest one too; only the daemon can say that it has deleted one."""
    monkeypatch.setattr("rtqec.service.audit._FILE_BYTES_MAX", 1000)
    desk.write(*TEN)
    files = desk.files
    for path in files[:-1]:
        content = path.read_bytes()
        path.unlink()
        assert verify_audit(desk.files) != [], path
        path.write_bytes(content)
    assert verify_audit(desk.files) == []


def test_an_inserted_or_repeated_record_is_found(desk: Desk) -> None:
    """Also one that names the record before it."""
    desk.write(*TEN)
    lines = desk.path.read_bytes().splitlines()
    forged = compose(5, "2026-11-20T12:00:00.000Z", "drain", "alice", {}, digest(lines[4]))
    for changed in ([*lines[:5], forged, *lines[5:]], [*lines[:5], forged, *lines[6:]], [*lines, lines[-1]]):
        desk.path.write_bytes(b"\n".join(changed) + b"\n")
        assert verify_audit(desk.files) != []


def test_a_damaged_log_is_said_and_continued(desk: Desk) -> None:
    """A daemon that finds its log changed starts, says so in the log itself, and the damage stays visible."""
    desk.write("one", "two", "three")
    content = desk.path.read_bytes().replace(b'"two"', b'"2.0"')
    desk.path.write_bytes(content)
    desk.write("four")
    assert desk.events() == ["one", "2.0", "three", "damaged", "four"]
    assert len(verify_audit(desk.files)) == 1


def test_what_is_not_there_or_not_finished_is_said(desk: Desk) -> None:
    """A torn end is a problem until the daemon has noted it."""
    desk.write("one", "two")
    desk.path.write_bytes(desk.path.read_bytes()[:-3])
    assert "no whole record" in verify_audit(desk.files)[0]
    assert verify_audit([]) == []


def test_strange_facts_are_recorded_all_the_same(desk: Desk) -> None:
    """Whatever somebody calls a fact, the record is made, its own fields are its own, and a huge one is cut."""
    loop: list[Any] = []
    loop.append(loop)
    log = desk.start()
    log.record("strange", previous="x", seq=-1, at="never", more={1: {2: object}}, loop=loop)
    log.record("huge", text="x" * (1 << 20))
    log.close()
    strange, huge = read_audit(desk.files)
    assert (strange["seq"], strange["previous"], strange["event"]) == (0, NO_RECORD, "strange")
    assert huge["facts_bytes"] > 1 << 20
    assert desk.path.stat().st_size < 10_000
    assert verify_audit(desk.files) == []


STRANGE_RECORDS = st.dictionaries(
    st.sampled_from(["seq", "at", "event", "who", "previous", "lines", "through_seq"]),
    st.integers() | st.text(max_size=5) | st.none() | st.sampled_from([[[1], {}], "torn", "pruned", NO_RECORD]),
).map(lambda record: json.dumps(record).encode())
NO_RECORDS = st.sampled_from([b"{}", b"[1]", b"7", b"null", b'{"seq": 0}', b"[" * 100_000])


@given(lines=st.lists(st.binary(max_size=60) | NO_RECORDS | STRANGE_RECORDS, max_size=12))
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Whatever lies there: verifying answers, and a daemon starts on it and adds to it."""
    desk = Desk(tmp_path_factory.mktemp("any"))
    desk.folder.mkdir(exist_ok=True)
    desk.path.write_bytes(b"\n".join(lines))
    assert isinstance(verify_audit(desk.files), list)
    desk.write("after")
    assert desk.events()[-1] == "after"


def test_the_commands_show_and_verify(desk: Desk, tmp_path: Path) -> None:
    """`show` prints one JSON object per record; `verify` exits 1 where something was changed, and names it; without a
    log both say what to do."""
    config = tmp_path / "d5.toml"
    config.write_text(
        '[plan]\ngenerated = "surface_code:rotated_memory_z"\ndistance = 3\nrounds = 12\nnoise = 0.01\n'
        "[window]\ncommit_rounds = 3\nbuffer_rounds = 3\n"
        '[feed]\nendpoint = "ipc:///x"\nround_period_us = 1.0\n[publish]\nendpoint = "ipc:///y"\n'
        f'[service]\nname = "d5"\nstate_dir = "{desk.folder}"\n'
    )
    runner = CliRunner()
    missing = runner.invoke(audit_app, ["show", str(config)])
    assert isinstance(missing.exception, ConfigError)
    desk.write(*TEN)
    shown = runner.invoke(audit_app, ["show", str(config), "--skip", "8"])
    assert [json.loads(line)["event"] for line in shown.output.splitlines()] == TEN[8:]
    verified = runner.invoke(audit_app, ["verify", str(config)])
    chain = Chain()
    chain.read(desk.path)
    assert verified.exit_code == 0
    assert chain.head[1] in verified.output
    desk.path.write_bytes(desk.path.read_bytes().replace(b"event3", b"event4"))
    verified = runner.invoke(audit_app, ["verify", str(config)])
    assert verified.exit_code == 1
    assert "line 5" in verified.output
