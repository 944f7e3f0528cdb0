"""The units are what systemd accepts, as closed as they say, and as the operators' README describes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rtqec.config import ServiceTable
from rtqec.errors import ExitCode
from rtqec.service.install import DROP_INS, UNITS_DIR, install_systemd
from tests.systemd.conftest import ROOT

README = (ROOT / "systemd" / "README.md").read_text()
UNITS = ("rtqec@.service", "firmware-sim@.service")
LOOPBACK_EXPOSURE_MAX = 1.5
"""The bound that the project has set for the unit as it stands."""


@pytest.fixture
def analyze(tmp_path: Path) -> str:
    """The tool, or a skip that says so."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    return tool


def installed(tmp_path: Path, drop_ins: Sequence[str] = ()) -> Path:
    """The units in a folder, with programs that exist."""
    programs = tmp_path / "opt/rtqec/bin"
    programs.mkdir(parents=True)
    for name in ("rtqec", "firmware-sim"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    install_systemd(tmp_path, Path("/opt/rtqec/bin"), drop_ins=drop_ins)
    return tmp_path / UNITS_DIR


def exposure(tool: str, folder: Path, unit: str) -> float:
    """What `systemd-analyze security` says of one instance."""
    # It knows files, not instances: the file of a template under the name of an instance.
    instance = unit.replace("@", "@x")
    shutil.copy(folder / unit, folder / instance)
    if (folder / f"{unit}.d").is_dir():
        shutil.copytree(folder / f"{unit}.d", folder / f"{instance}.d")
    command = [tool, "security", "--offline=true", "--no-pager", str(folder / instance)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units(analyze: str, tmp_path: Path, unit: str) -> None:
    """`systemd-analyze verify` finds nothing in a unit with all its drop-ins."""
    folder = installed(tmp_path, DROP_INS)
    for each in UNITS:
        # Where the programs are to be is not on this machine.
        (folder / each).write_text((folder / each).read_text().replace("/opt/rtqec/bin/", f"{tmp_path}/opt/rtqec/bin/"))
    instance = folder / unit.replace("@", "@x")
    shutil.copy(folder / unit, instance)
    done = subprocess.run([analyze, "verify", "--man=no", str(instance)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "rtqec" in line or "firmware-sim" in line]
    assert ours == []


def stated_exposures() -> dict[str, float]:
    """The table of the README: unit and drop-ins, and the exposure of both together."""
    rows = re.findall(r"^\| (`[^|]*`) \| ([\d.]+) \|", README, re.MULTILINE)
    return {" ".join(re.findall(r"`([^`]+)`", names)): float(number) for names, number in rows}


@pytest.mark.parametrize("names", stated_exposures())
def test_units_are_as_closed_as_the_readme_says(analyze: str, tmp_path: Path, names: str) -> None:
    """The exposure of the unit, alone and with each drop-in, is at most the one stated."""
    unit, *drop_ins = names.split()
    folder = installed(tmp_path, [name.removesuffix(".conf") for name in drop_ins])
    assert exposure(analyze, folder, unit) <= stated_exposures()[names]


def test_the_readme_states_an_exposure_for_everything() -> None:
    """Both units, each drop-in, and all drop-ins together; the unit by itself within the project's bound."""
    stated = stated_exposures()
    unit = UNITS[0]
    together = f"{unit} {' '.join(f'{name}.conf' for name in DROP_INS)}"
    assert set(stated) == {*UNITS, *(f"{unit} {name}.conf" for name in DROP_INS), together}
    assert stated[unit] <= LOOPBACK_EXPOSURE_MAX


def test_the_readme_knows_every_exit_code() -> None:
    """The table of exit codes is `rtqec.errors.ExitCode`, no more and no less."""
    table = dict(re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", README, re.MULTILINE))
    assert table == {str(int(code)): code.name for code in ExitCode}


def test_the_unit_gives_the_daemon_time_to_drain() -> None:
    """systemd waits longer than the shots may take to end, and never restarts what cannot work."""
    unit = (ROOT / "systemd" / UNITS[0]).read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found
    assert int(found[1]) >= 2 * ServiceTable().drain_s
    assert f"RestartPreventExitStatus={int(ExitCode.CONFIG)}\n" in unit
