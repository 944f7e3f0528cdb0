"""The service file: what a daemon says of itself to whoever may read its runtime folder.

`{runtime_dir}/{name}.json`, replaced whole at every change: which lanes there are and how they are, which patch is on
which lane, and what each patch is. Numbers that move are in the lanes' telemetry blocks, which it names.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtqec import __version__
from rtqec.config import Config, expand_variables
from rtqec.telemetry import telemetry_path

FORMAT = 1


def service_path(config: Config) -> Path:
    """Where the service file of a deployment lies."""
    return config.runtime_dir / f"{config.service.name}.json"


class ServiceFile:
    """Written by the supervisor alone.

    Args:
        config: The deployment.
        config_path: The file that it was read from.
    """

    def __init__(self, config: Config, config_path: Path) -> None:
        self.path = service_path(config)
        self._written = self.path.with_name(self.path.name + ".new")
        self._head = {
            "format": FORMAT,
            "version": __version__,
            "pid": os.getpid(),
            "started_ns": time.monotonic_ns(),
            "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "config": str(config_path.resolve()),
        }

    def write(self, state: str, lanes: list[dict[str, Any]], patches: list[dict[str, Any]]) -> None:
        """Replace it: a reader sees either the old one or the new one."""
        content = self._head | {"state": state, "lanes": lanes, "patches": patches}
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._written, flags, 0o640), "w") as file:
            file.write(json.dumps(content) + "\n")
        self._written.replace(self.path)


def describe_lane(
    config: Config, state: str, pids: tuple[int, int], restarts: int, cudaq_ports: Sequence[int] = ()
) -> dict[str, Any]:
    """One entry of `lanes`.

    Args:
        config: Narrowed to the lane.
        state: See `service.lanes`.
        pids: Of the process that receives, and of the one that decodes: two only after a plan was swapped.
        restarts: So far.
        cudaq_ports: Where its decoders are asked by CUDA-Q programs.
    """
    feed = expand_variables("[feed] endpoint", config.feed.endpoint)
    if config.listen.cudaq is not None:
        feed = f"udp://{config.listen.cudaq.address}:{','.join(map(str, cudaq_ports))}"
    return {
        "name": config.lane_name,
        "telemetry": str(telemetry_path(config).resolve()),
        "state": state,
        "pid": pids[0],
        "path_pid": pids[1],
        "restarts": restarts,
        "feed": feed,
        "publish": expand_variables("[publish] endpoint", config.publish.endpoint) or feed,
    }
