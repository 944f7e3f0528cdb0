"""Other doors than ZeroMQ: the tables under `[listen]`."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator

from rtqec.config.table import Table
from rtqec.cudaq.frames import PORT_MAX, SLOT_BYTES, SLOT_BYTES_MAX, SLOT_BYTES_MIN


class CudaqTable(Table):
    """`[listen.cudaq]`: the datagrams of CUDA-Q Realtime's decoding server, one port per patch."""

    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=PORT_MAX)] = 0
    slot_bytes: Annotated[int, Field(ge=SLOT_BYTES_MIN, le=SLOT_BYTES_MAX)] = SLOT_BYTES
    accept_remote: bool = False
    late_is_busy: bool = False
    gaps_are_drops: bool = False

    @field_validator("address")
    @classmethod
    def _is_one(cls, address: str) -> str:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError("must be an IPv4 or IPv6 address, as names may come to mean another machine") from None
        return address

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.address).is_loopback

    def port_of(self, patch_id: int) -> int:
        """The port of a patch: `port` is that of patch 0; 0: one that is free."""
        return self.port + patch_id if self.port else 0


class ListenTable(Table):
    """`[listen]`: who is served instead of a controller that speaks rtqec's own wire."""

    cudaq: CudaqTable | None = None
