"""What the system does not allow is said, with the remedy, and done without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import structlog
import zmq

from rtqec import cores
from rtqec.config import CoresTable
from rtqec.cores import INGEST, PATH, TRANSPORT, Placement, hold_wake_latency


def test_fewer_cores_than_threads_share_the_last_one() -> None:
    """One core is for all; of two the second is for ingest and transport."""
    for lanes, expected in (([[3]], [3, 3, 3]), ([[3, 4]], [3, 4, 4]), ([[3, 4, 5]], [3, 4, 5])):
        placement = Placement(CoresTable(lanes=lanes), 0)
        assert [placement.core_of(role) for role in (PATH, INGEST, TRANSPORT)] == expected
    assert Placement(CoresTable(), 0).core_of(PATH) is None


def test_a_core_that_does_not_exist_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread stays where it was."""
    before = os.sched_getaffinity(0)
    with structlog.testing.capture_logs() as logged, zmq.Context() as context:
        placement = Placement(CoresTable(lanes=[[4095]]), 0)
        placement.place_thread(PATH)
        placement.place_transport(context)
    assert os.sched_getaffinity(0) == before
    assert [entry["event"] for entry in logged] == ["core_refused", "core_refused"]
    assert "cores.lanes" in logged[0]["remedy"]


def test_priority_and_memory_that_are_refused_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names the limit to raise."""

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(
        cores.ctypes, "CDLL", lambda *_, **__: type("Libc", (), {"mlockall": lambda *_: -1, "prctl": lambda *_: 0})()
    )
    placement = Placement(CoresTable(realtime_priority=50, lock_memory=True), 0)
    with structlog.testing.capture_logs() as logged:
        placement.place_thread(PATH)
        placement.lock_memory()
    assert [entry["event"] for entry in logged] == ["realtime_priority_refused", "memory_lock_refused"]
    assert "LimitRTPRIO" in logged[0]["remedy"]
    assert "LimitMEMLOCK" in logged[1]["remedy"]


def test_the_wake_latency_is_held_as_long_as_the_device_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bytes, little-endian, in an open file; without the right to it, a line in the log."""
    device = tmp_path / "cpu_dma_latency"
    device.touch()
    monkeypatch.setattr(cores, "_LATENCY_DEVICE", device)
    held = hold_wake_latency(CoresTable(cpu_dma_latency_us=10))
    assert held is not None
    assert device.read_bytes() == b"\x0a\0\0\0"
    held.close()
    assert hold_wake_latency(CoresTable()) is None
    monkeypatch.setattr(cores, "_LATENCY_DEVICE", tmp_path / "none" / "such")
    with structlog.testing.capture_logs() as logged:
        assert hold_wake_latency(CoresTable(cpu_dma_latency_us=0)) is None
    assert logged[0]["event"] == "wake_latency_refused"
