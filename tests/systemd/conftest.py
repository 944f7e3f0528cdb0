"""One private systemd for all tests of this folder, with the units as `rtqec install-systemd` writes them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import pytest

import rtqec.kernels.native  # noqa: F401 (it chooses where compiled code is kept)
from rtqec.service.install import install_systemd
from tests.systemd.private import PrivateSystemd, missing, wait_until

ROOT = Path(__file__).parents[2]
COVERED = ("/tmp", "/var", "/root", "/home", "/run")
PROGRAMS = {"rtqec": "rtqec.cli", "firmware-sim": "firmware_sim.cli"}
CONFIGURATION = """
[service]
name = "{name}"
runtime_dir = "/run/rtqec/{name}"
state_dir = "/var/lib/rtqec/{name}"

[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 12
noise = 0.01

[window]
commit_rounds = 3
buffer_rounds = 3

[ladder]
fallbacks = []

[feed]
endpoint = "ipc:///run/rtqec/{name}/rounds{place}.ipc"
round_period_us = {period_us}

[publish]
endpoint = "ipc:///run/rtqec/{name}/corrections{place}.ipc"

[lane]
count = {lanes}

[source]
kind = "simulated"
shots = {shots}
"""


def configuration(
    name: str, lanes: int = 1, patches: Iterable[int] = (0,), extra: str = "", *, place: str = "", shots: int = 50,
    period_us: int = 100,
) -> str:  # fmt: skip
    """A small deployment; `place` tells the endpoints of several lanes apart."""
    place = place or ("-{lane}" if lanes > 1 else "")
    tables = CONFIGURATION.format(name=name, lanes=lanes, place=place, shots=shots, period_us=period_us)
    return tables + extra + "".join(f"\n[[patch]]\nid = {number}\n" for number in patches)


@dataclass
class Unit:
    """`rtqec@NAME.service`."""

    systemd: PrivateSystemd
    name: str

    @property
    def unit(self) -> str:
        return f"rtqec@{self.name}.service"

    def configure(self, text: str) -> None:
        """Write /etc/rtqec/NAME.toml."""
        self.systemd.path(f"/etc/rtqec/{self.name}.toml").write_text(text)

    def add_drop_in(self, text: str) -> None:
        """Change the unit, for this configuration only."""
        folder = self.systemd.path(f"/etc/systemd/system/{self.unit}.d")
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.systemd.call("systemctl", "daemon-reload")

    def ctl(self, verb: str, check: bool = True) -> int:
        """`systemctl VERB` on it; its exit status. Where it must be 0 and is not, the journal says why."""
        done = self.systemd.call("systemctl", verb, self.unit, check=False)
        assert not check or done.returncode == 0, f"{done.stdout}{self.journal()}"
        return done.returncode

    def show(self, name: str) -> str:
        """One property."""
        return self.systemd.show(self.unit, name)[name]

    def journal(self) -> str:
        """All that it and systemd have written about it."""
        return self.systemd.journal(self.unit)

    def describe(self) -> dict[str, Any]:
        """The daemon's service file."""
        text = self.systemd.path(f"/run/rtqec/{self.name}/{self.name}.json").read_text()
        described: dict[str, Any] = json.loads(text)
        return described

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Until it holds; a failure shows the journal."""
        try:
            return wait_until(condition, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None


UnitMaker = Callable[..., Unit]


def install_for_tests(prefix: Path) -> None:
    """The units for this interpreter, wherever it lies: programs in /var/opt/rtqec/bin lead to it."""
    programs = prefix / "var/opt/rtqec/bin"
    programs.mkdir(parents=True)
    for name, module in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    install_systemd(prefix, Path("/var/opt/rtqec/bin"))


def visible_folders() -> list[Path]:
    """What the daemon needs of this machine, and would not see."""
    needed = dict.fromkeys(Path(folder).resolve() for folder in (sys.base_prefix, ROOT, sys.prefix))
    return [folder for folder in needed if any(folder.is_relative_to(covered) for covered in COVERED)]


@pytest.fixture(scope="session")
def systemd() -> Iterator[PrivateSystemd]:
    """The private systemd, or a skip that says what is missing."""
    if lacking := missing():
        pytest.skip(lacking)
    shared = Path(tempfile.mkdtemp(prefix="rtqec-systemd-"))
    shared.chmod(0o755)
    install_for_tests(shared)
    visible = visible_folders()
    if visible:
        drop_in = shared / "etc/systemd/system/rtqec@.service.d"
        drop_in.mkdir()
        # Where services are installed they need none of this: install-systemd refuses hidden folders.
        lines = f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={' '.join(map(str, visible))}\n"
        (drop_in / "visible.conf").write_text(lines)
        shutil.copytree(drop_in, drop_in.with_name("firmware-sim@.service.d"))
    compiled = Path(numba.config.CACHE_DIR)
    if compiled.is_dir():
        shutil.copytree(compiled, shared / "var/cache/rtqec/numba")
    booted = PrivateSystemd(shared, visible)
    yield booted
    booted.close()
    shutil.rmtree(shared)


@contextmanager
def units(systemd: PrivateSystemd) -> Iterator[UnitMaker]:
    """Make daemons, configured, not started; they are gone afterwards."""
    made: list[Unit] = []

    def make(name: str, *, lanes: int = 1, patches: int = 1, extra: str = "", drop_in: str = "") -> Unit:
        unit = Unit(systemd, name)
        unit.configure(configuration(name, lanes, range(patches), extra))
        if drop_in:
            unit.add_drop_in(drop_in)
        made.append(unit)
        return unit

    yield make
    for unit in made:
        systemd.call("systemctl", "kill", "--signal=KILL", unit.unit, check=False)
        systemd.call("systemctl", "stop", unit.unit, check=False)
        systemd.call("systemctl", "reset-failed", unit.unit, check=False)


@pytest.fixture
def make_unit(systemd: PrivateSystemd) -> Iterator[UnitMaker]:
    """For daemons of a test's own."""
    with units(systemd) as make:
        yield make
