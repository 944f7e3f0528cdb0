"""Energy that a measurement took, where the machine lets it be read: RAPL for processors, NVML for NVIDIA's GPUs.

Both count for the whole machine, whoever used it. Where nothing can be read, joules are None and the meter says why.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

POWERCAP = Path("/sys/class/powercap")
_UJ_PER_J = 1e6
_MJ_PER_J = 1e3


@dataclass
class Counter:
    """One counter of energy.

    Attributes:
        name: Of what, for people.
        read: Its value now, in joules since any time.
        wraps_at: After how many joules it begins anew; None where it does not.
    """

    name: str
    read: Callable[[], float]
    wraps_at: float | None = None
    joules: float = 0.0
    _last: float = 0.0

    def start(self) -> None:
        """Count from here."""
        self.joules, self._last = 0.0, self.read()

    def look(self) -> None:
        """Add what has been used since the last look. Between two looks it may wrap once."""
        value = self.read()
        step = value - self._last
        if step < 0 and self.wraps_at is not None:
            step += self.wraps_at
        self.joules, self._last = self.joules + step, value


@dataclass
class Counters:
    """What can be read on this machine.

    Attributes:
        cpu: Of all processors and their memory; empty where there are none.
        gpu: Of all GPUs; likewise.
        missing: Why nothing, or not everything, can be read.
    """

    cpu: list[Counter] = field(default_factory=list)
    gpu: list[Counter] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def source(self) -> str | None:
        """What is read, in words; None where nothing can be."""
        names = [counter.name for counter in (*self.cpu, *self.gpu)]
        return f"{', '.join(names)}; of the whole machine" if names else None

    @property
    def why(self) -> str | None:
        """Why nothing, or not everything, can be read; None where all of it is."""
        return "; ".join(self.missing) or None


def find_counters(powercap: Path = POWERCAP) -> Counters:
    """Everything that can be read here.

    Args:
        powercap: Where the kernel lists its power zones.
    """
    found = Counters()
    _find_rapl(powercap, found)
    _find_nvml(found)
    return found


class EnergyMeter:
    """Measures what is done within `with`.

    Args:
        counters: See `find_counters`.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    @property
    def cpu_joules(self) -> float | None:
        """Of all processors and their memory."""
        return _sum(self._counters.cpu)

    @property
    def gpu_joules(self) -> float | None:
        """Of all GPUs."""
        return _sum(self._counters.gpu)

    def look(self) -> None:
        """Read the counters: often enough that none wraps twice in between (RAPL: every ten minutes)."""
        for counter in (*self._counters.cpu, *self._counters.gpu):
            counter.look()

    def __enter__(self) -> EnergyMeter:
        for counter in (*self._counters.cpu, *self._counters.gpu):
            counter.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.look()


def _sum(counters: list[Counter]) -> float | None:
    return sum(counter.joules for counter in counters) if counters else None


def _joules_of(path: Path) -> float:
    return float(path.read_text()) / _UJ_PER_J


def _find_rapl(powercap: Path, found: Counters) -> None:
    """Packages and memory. Cores lie within their package, psys contains it, and the mmio zones are the same again."""
    zones = sorted(powercap.glob("intel-rapl:*"))
    if not zones:
        found.missing.append(f"no RAPL: {powercap} has no intel-rapl zone")
    for zone in zones:
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith("package") and name != "dram":
                continue
            wraps_at = _joules_of(zone / "max_energy_range_uj")
            counter = Counter(f"RAPL {name}", partial(_joules_of, zone / "energy_uj"), wraps_at)
            counter.read()
        except (OSError, ValueError) as error:
            found.missing.append(f"RAPL {zone.name} cannot be read: {getattr(error, 'strerror', None) or error}")
            continue
        found.cpu.append(counter)


def _joules_of_gpu(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / _MJ_PER_J


def _find_nvml(found: Counters) -> None:
    """All GPUs that count their energy."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        found.missing.append("no NVML: the package nvidia-ml-py is not installed")
        return
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            counter = Counter(f"NVML GPU {index}", partial(_joules_of_gpu, nvml, handle))
            counter.read()
            found.gpu.append(counter)
    except nvml.NVMLError as error:
        found.missing.append(f"NVML cannot be read: {error}")
