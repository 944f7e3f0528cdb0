"""Which core a thread runs on, and how the kernel treats it. What the system does not allow is said and done without.

`[cores]` is a wish of the operator: a daemon that may not have real-time priority decodes all the same, only later.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import IO

import zmq

from rtqec.config import CoresTable
from rtqec.log import get_logger

_MCL_CURRENT_AND_FUTURE = 3
_PR_SET_NAME = 15
_LATENCY_DEVICE = Path("/dev/cpu_dma_latency")
PATH, INGEST, TRANSPORT = 0, 1, 2
"""A lane's threads, as `[cores] lanes` lists their cores; with fewer cores than threads, the last one is shared."""
_NAMES = (b"path", b"ingest", b"transport")


class Placement:
    """Where the threads of one lane run.

    Args:
        cores: `[cores]`.
        lane_index: The lane.
    """

    def __init__(self, cores: CoresTable, lane_index: int) -> None:
        self._log = get_logger().bind(lane=f"lane{lane_index}")
        self._cores = cores.lanes[lane_index] if cores.lanes else []
        self._priority = cores.realtime_priority
        self._lock = cores.lock_memory

    def core_of(self, role: int) -> int | None:
        """The core of a thread, or None where the kernel chooses."""
        return self._cores[min(role, len(self._cores) - 1)] if self._cores else None

    def place_transport(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Choose for libzmq's threads. Before the context has a socket."""
        core = self.core_of(TRANSPORT)
        if core is not None and self._allowed(core):
            context.set(zmq.THREAD_AFFINITY_CPU_ADD, core)
        if self._priority and _may_run_realtime(self._priority):
            context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_FIFO)
            context.set(zmq.THREAD_PRIORITY, self._priority)

    def place_thread(self, role: int) -> None:
        """Choose for the calling thread, and name it for whoever looks at threads (`top -H`, /proc)."""
        ctypes.CDLL(None).prctl(_PR_SET_NAME, _NAMES[role])
        core = self.core_of(role)
        if core is not None and self._allowed(core):
            os.sched_setaffinity(0, {core})
        if self._priority:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._priority))
            except OSError as error:
                self._log.warning(
                    "realtime_priority_refused", priority=self._priority, reason=error.strerror,
                    remedy="LimitRTPRIO= in the unit (drop-in realtime.conf), or cores.realtime_priority = 0",
                )  # fmt: skip

    def lock_memory(self) -> None:
        """Keep every page of this process in memory, now and later."""
        if not self._lock:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(_MCL_CURRENT_AND_FUTURE) != 0:
            soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            self._log.warning(
                "memory_lock_refused", reason=os.strerror(ctypes.get_errno()), limit_bytes=soft,
                remedy="LimitMEMLOCK=infinity in the unit, or cores.lock_memory = false",
            )  # fmt: skip

    def _allowed(self, core: int) -> bool:
        """Whether this process may run there; one that may not is said once per thread, and left to the kernel."""
        if core in os.sched_getaffinity(0):
            return True
        self._log.warning(
            "core_refused", core=core, allowed=sorted(os.sched_getaffinity(0)),
            remedy="CPUAffinity= in the unit, or other cores in cores.lanes",
        )  # fmt: skip
        return False


def _may_run_realtime(priority: int) -> bool:
    """Whether the system allows it, by trying; libzmq would abort the process where it does not."""
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    os.sched_setscheduler(0, before, parameters)
    return True


def hold_wake_latency(cores: CoresTable) -> IO[bytes] | None:
    """Ask the kernel for idle states from which a core wakes within `cpu_dma_latency_us`.

    Returns:
        The open device: the wish holds as long as it is open. None where there is no wish, or no right to it.
    """
    if cores.cpu_dma_latency_us == "default":
        return None
    try:
        device = _LATENCY_DEVICE.open("wb", buffering=0)
        device.write(cores.cpu_dma_latency_us.to_bytes(4, "little"))
    except OSError as error:
        get_logger().warning(
            "wake_latency_refused", device=str(_LATENCY_DEVICE), reason=error.strerror,
            remedy="DeviceAllow=/dev/cpu_dma_latency rw in the unit (drop-in realtime.conf), or "
                   'cores.cpu_dma_latency_us = "default"',
        )  # fmt: skip
        return None
    return device
