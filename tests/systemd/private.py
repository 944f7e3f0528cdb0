"""A systemd of its own, in fresh namespaces, that can touch nothing of the machine it runs on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
UNITS = Path("/lib/systemd/system")
# What the units of the project stand on. The real targets would start half of the machine's services.
TARGETS = ("basic.target", "sysinit.target", "shutdown.target")
JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
_PROGRAMS = ("unshare", "nsenter", "setpriv", "findmnt", "systemctl", "journalctl", "systemd-sysusers")
_SPACES = ("--pid", "--mount", "--uts", "--ipc", "--net")
_BOOT_TIMEOUT_S = 20.0
_CALL_TIMEOUT_S = 600.0
"""Starting a daemon compiles every kernel where nobody has before."""
_POLL_S = 0.02


def missing() -> str:
    """What this machine lacks for a private systemd; empty where it lacks nothing."""
    if os.geteuid() != 0:
        return "only root can boot a private systemd"
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking or not SYSTEMD.exists():
        return f"a private systemd needs {', '.join(lacking) or SYSTEMD}"
    if _control_groups() is None:
        return "a private systemd needs a cgroup2 file system that can be written to"
    tried = subprocess.run(
        ["unshare", "--fork", *_SPACES, "--cgroup", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/tmp"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


def _control_groups() -> Path | None:
    """Where the machine's cgroup2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, kind = line.split()[4], line.rpartition(" - ")[2].split()[0]
        if kind == "cgroup2" and os.access(mounted, os.W_OK):
            return Path(mounted)
    return None


class PrivateSystemd:
    """systemd as process 1 of fresh PID, mount, UTS, IPC, network and cgroup namespaces, with a journal.

    Its /etc is a copy of the machine's, without its units; /run, /tmp, /var, /home and /root are empty; all else is
    read-only. It knows only the units in `shared`/etc/systemd/system, and those that it needs itself.

    Args:
        shared: A folder. `shared`/etc is laid over /etc and `shared`/var over /var at boot.
        visible: Folders that stay visible at their own paths wherever they lie, read-only.
    """

    def __init__(self, shared: Path, visible: Iterable[Path]) -> None:
        units = shared / "etc/systemd/system"
        units.mkdir(parents=True, exist_ok=True)
        (shared / "var").mkdir(exist_ok=True)
        for target in TARGETS:
            (units / target).write_text("[Unit]\nDefaultDependencies=no\n")
        for name in JOURNAL:
            shutil.copy(UNITS / name, units)
        journal = " ".join(JOURNAL)
        wants = f"[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nRequires={journal}\nAfter={journal}\n"
        (units / "multi-user.target").write_text(wants)
        # The kernel log and the audit log are the machine's.
        (shared / "etc/systemd/journald.conf").write_text("[Journal]\nReadKMsg=no\nAudit=no\nStorage=volatile\n")
        groups = _control_groups()
        assert groups is not None
        self._group = groups / f"rtqec-test-{os.getpid()}"
        self._group.mkdir()
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(shared / "notify"))
        enter = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", enter, "sh", "unshare", "--fork", "--kill-child", *_SPACES,
             "--cgroup", "--mount-proc", "bash", str(BOOT), str(shared), *[str(folder) for folder in visible]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            self._wait_for_boot(notify)
        except BaseException:
            self.close()
            raise
        self.pid = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text())

    def _wait_for_boot(self, notify: socket.socket) -> None:
        """Wait for READY=1 of process 1."""
        give_up = time.monotonic() + _BOOT_TIMEOUT_S
        notify.settimeout(0.1)
        with notify:
            while True:
                try:
                    if b"READY=1" in notify.recv(4096):
                        return
                except TimeoutError:
                    late = time.monotonic() > give_up
                    if late:
                        self._process.kill()
                    if late or self._process.poll() is not None:
                        raise AssertionError(f"no private systemd: {self._process.communicate()[0]}") from None

    def close(self) -> None:
        """Kill everything in it."""
        self._process.kill()  # And with it process 1, and with that everything in its namespace.
        self._process.communicate()
        events = self._group / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), 10, "every process of the private systemd has ended")
        for folder in sorted((path for path in self._group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        self._group.rmdir()

    def path(self, inside: str) -> Path:
        """A file in there, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root") / inside.removeprefix("/")

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in there as root."""
        return subprocess.Popen(
            ["nsenter", f"--target={self.pid}", *_SPACES, "--wd=/", *command], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )  # fmt: skip

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in there as root, and wait for it."""
        process = self.popen(*command)
        try:
            said, _ = process.communicate(timeout=_CALL_TIMEOUT_S)
        finally:
            process.kill()
        assert not check or process.returncode == 0, f"{' '.join(command)}: {said}"
        return subprocess.CompletedProcess(command, process.returncode, said)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        shown = self.call("systemctl", "show", unit, *[f"--property={name}" for name in names]).stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, unit: str) -> str:
        """What a unit has written so far, and what systemd says about it."""
        self.call("journalctl", "--sync")
        return self.call("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Look again until it holds; the seconds that this took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(_POLL_S)
    return time.monotonic() - begun
