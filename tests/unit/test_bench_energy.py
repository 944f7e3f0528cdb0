"""Energy is what the counters moved by, across a wrap; where none can be read it is blank, and says why."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.energy import EnergyMeter, find_counters

WRAPS_AT_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int) -> Path:
    """One power zone, as the kernel shows it."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{WRAPS_AT_UJ}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here: the package is not found."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_packages_and_memory_are_summed(tmp_path: Path) -> None:
    """Two packages and one memory; cores lie within a package, psys around it, and mmio zones are the same again."""
    counted = [
        zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000),
        zone(tmp_path, "intel-rapl:1", "package-1", 0),
        zone(tmp_path, "intel-rapl:0:1", "dram", 9_000_000),
    ]
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    counters = find_counters(tmp_path)
    with EnergyMeter(counters) as meter:
        for path in (*counted, *others):
            path.write_text(str(int(path.read_text()) + 1_500_000))
    assert meter.cpu_joules == pytest.approx(4.5)
    assert meter.gpu_joules is None
    assert counters.source == "RAPL package-0, RAPL dram, RAPL package-1; of the whole machine"
    assert counters.why == "no NVML: the package nvidia-ml-py is not installed"


def test_a_counter_may_wrap_between_two_looks(tmp_path: Path) -> None:
    """It wraps twice in three looks, and no joule is lost; a second measurement begins at nought."""
    path = zone(tmp_path, "intel-rapl:0", "package-0", WRAPS_AT_UJ - 1_000_000)
    counters = find_counters(tmp_path)
    with EnergyMeter(counters) as meter:
        path.write_text("2000000")
        meter.look()
        path.write_text(str(WRAPS_AT_UJ - 3_000_000))
        meter.look()
        path.write_text("0")
    assert meter.cpu_joules == pytest.approx((1_000_000 + WRAPS_AT_UJ) / 1e6)
    with EnergyMeter(counters) as again:
        path.write_text("7000000")
    assert again.cpu_joules == pytest.approx(7.0)


def test_no_zones_is_blank_with_a_reason(tmp_path: Path) -> None:
    """A virtual machine has none."""
    counters = find_counters(tmp_path)
    with EnergyMeter(counters) as meter:
        pass
    assert meter.cpu_joules is None
    assert counters.source is None
    assert counters.why is not None
    assert f"no RAPL: {tmp_path} has no intel-rapl zone" in counters.why


def test_what_may_not_be_read_is_blank_with_a_reason(tmp_path: Path) -> None:
    """A zone whose counter cannot be opened is left out and named; the others are read."""
    zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    zone(tmp_path, "intel-rapl:1", "package-1", 0).write_text("nonsense")
    counters = find_counters(tmp_path)
    assert counters.cpu == []
    assert counters.why is not None
    assert "RAPL intel-rapl:0 cannot be read: No such file or directory" in counters.why
    assert "RAPL intel-rapl:1 cannot be read: could not convert" in counters.why


class FakeNvmlError(Exception):
    """What NVML raises."""


def fake_nvml(readings_mj: dict[int, int | None]) -> SimpleNamespace:
    """NVML with GPUs at some millijoules; None: one that does not count."""

    def energy(handle: int) -> int:
        reading = readings_mj[handle]
        if reading is None:
            raise FakeNvmlError("Not Supported")
        return reading

    return SimpleNamespace(
        NVMLError=FakeNvmlError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: len(readings_mj),
        nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetTotalEnergyConsumption=energy,
    )  # fmt: skip


def test_gpus_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millijoules of all GPUs, not mixed with those of processors."""
    readings: dict[int, int | None] = {0: 1000, 1: 5000}
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(readings))
    counters = find_counters(tmp_path)
    with EnergyMeter(counters) as meter:
        readings[0], readings[1] = 3500, 5250
    assert meter.gpu_joules == pytest.approx(2.75)
    assert meter.cpu_joules is None
    assert counters.source == "NVML GPU 0, NVML GPU 1; of the whole machine"


def test_a_gpu_that_does_not_count_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's own words are the reason."""
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml({0: None}))
    counters = find_counters(tmp_path)
    assert counters.gpu == []
    assert counters.why is not None
    assert "NVML cannot be read: Not Supported" in counters.why
