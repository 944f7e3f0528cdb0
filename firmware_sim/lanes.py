"""Which lane carries which patch: as the configuration says, or else the daemon that runs."""

from __future__ import annotations

import json
from typing import Any

import psutil

from rtqec.config import Config
from rtqec.errors import ConfigError, FaultError
from rtqec.service.state import FORMAT, service_path


def lanes_of(config: Config) -> list[Config]:
    """The configuration of every lane that carries patches, in order of their numbers.

    Args:
        config: A whole deployment.

    Raises:
        ConfigError: It leaves open which lane carries a patch, and no running daemon says so.
    """
    homes = {patch.id: patch.lane for patch in config.patch}
    if config.lane.count == 1:
        homes = dict.fromkeys(homes, 0)
    elif None in homes.values():
        homes = _homes_by_daemon(config)
    lanes = [config.of_lane(k, [p for p, lane in homes.items() if lane == k]) for k in range(config.lane.count)]
    return [lane for lane in lanes if lane.patch]


def read_service(config: Config) -> dict[str, Any] | None:
    """What the daemon of a deployment says of itself, while it runs; see `rtqec.service.state`.

    Raises:
        FaultError: It is a daemon of another version.
    """
    path = service_path(config)
    try:
        described: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        return None
    if described["format"] != FORMAT:
        raise FaultError(f"{path} has format {described['format']}, this version reads {FORMAT}.")
    return described if psutil.pid_exists(described["pid"]) else None


def lane_process(config: Config, name: str) -> int:
    """The process of a lane that is ready; 0 where it is not, or where no daemon says so."""
    described = read_service(config)
    lanes = described["lanes"] if described is not None else []
    return next((int(lane["pid"]) for lane in lanes if lane["name"] == name and lane["state"] == "ready"), 0)


def _homes_by_daemon(config: Config) -> dict[int, int | None]:
    """The lane of every patch, from the daemon that runs."""
    described = read_service(config)
    names = {f"lane{k}": k for k in range(config.lane.count)}
    said = {patch["id"]: names.get(patch["lane"]) for patch in described["patches"]} if described is not None else {}
    homes = {patch.id: said.get(patch.id, patch.lane) for patch in config.patch}
    unknown = [patch_id for patch_id, lane in homes.items() if lane is None]
    if unknown:
        raise ConfigError(
            f"[[patch]] id = {unknown[0]} lane", f"is not set, but [lane] count is {config.lane.count}, and "
            f"{service_path(config)} does not say it for a daemon that runs.",
            "Each lane has endpoints of its own: rounds of the patch would come to a lane that does not carry it.",
            "Set [[patch]] lane for every patch, or run beside the daemon, with the same [service] name and "
            "runtime_dir.",
        )  # fmt: skip
    return homes
