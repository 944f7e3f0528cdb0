"""The daemon as its operators see it: the tables of control, metrics, processes, security and logs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rtqec.config.decoding import PATCHES_MAX
from rtqec.config.table import NonNegative, Positive, Table


class ControlTable(Table):
    """`[control]`: where questions are answered. Without an endpoint there is no control."""

    endpoint: str | None = None


class MetricsTable(Table):
    """`[metrics]`: where Prometheus may scrape. Without an endpoint there are no metrics."""

    endpoint: Annotated[str, Field(pattern=r"^.+:\d{1,5}$")] | None = None


class ServiceTable(Table):
    """`[service]`: the daemon as its operators see it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "rtqec"
    runtime_dir: str = "${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/tmp}/rtqec}"
    state_dir: str = "${STATE_DIRECTORY:-${XDG_STATE_HOME:-${HOME:-/tmp}/.local/state}/rtqec}"
    cache_dir: str = "${CACHE_DIRECTORY:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/rtqec}"
    lane_timeout_ms: Annotated[float, Field(ge=300, le=60_000)] = 1000.0
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    standby: bool = True


class CoresTable(Table):
    """`[cores]`: what each thread runs on, and how the kernel treats it."""

    lanes: list[Annotated[list[NonNegative], Field(min_length=1, max_length=3)]] = []
    supervisor: list[NonNegative] = []
    realtime_priority: Annotated[int, Field(ge=0, le=98)] = 0
    lock_memory: bool = False
    cpu_dma_latency_us: NonNegative | Literal["default"] = "default"


class SecurityTable(Table):
    """`[security]`: who may reach the daemon over tcp."""

    server_key: str | None = None
    accept_plain_tcp: bool = False


class AuditTable(Table):
    """`[audit]`: how long the audit log is kept."""

    retention_days: Positive = 365


Patches = Literal["all"] | list[Annotated[int, Field(ge=0, lt=PATCHES_MAX)]]


class ClientTable(Table):
    """`[[client]]`: a key that is let in, and the patches that it may feed, read or change."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    public_key: Annotated[str, Field(min_length=40, max_length=40)]
    feed: Patches = []
    read: Patches = []
    change: Patches = []


class LogTable(Table):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
