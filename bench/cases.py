"""What is measured: one configuration, or the product of its sweeps."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rtqec.config import Config, load_config
from rtqec.errors import ConfigError
from rtqec.plan import Plan, compile_plan

_IN_DISTANCES = ("plan.rounds", "window.commit_rounds", "window.buffer_rounds")
"""Keys whose values may be given in units of the distance: `4d`."""


@dataclass(frozen=True, eq=False)
class Case:
    """One configuration to measure. Its first patch counts.

    Attributes:
        name: Of the configuration's file.
        path, overrides: What it was loaded from, `--set` and sweep together; a daemon is started with the same.
        config: Loaded.
    """

    name: str
    path: Path
    overrides: tuple[str, ...]
    config: Config

    def plan(self) -> Plan:
        """Its plan, compiled when it is first asked for.

        Raises:
            ConfigError, PlanError: It cannot work.
        """
        return self._plan

    @cached_property
    def _plan(self) -> Plan:
        return compile_plan(self.config, self.config.patch[0])

    def describe(self) -> dict[str, Any]:
        """What a row says of it."""
        config = self.config
        plan, window = config.tables_of(config.patch[0])
        whole = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        return {
            "config": self.name,
            "overrides": list(self.overrides),
            "config_digest": hashlib.sha256(whole.encode()).hexdigest()[:16],
            "distance": plan.distance,
            "noise": plan.noise,
            "rounds": plan.rounds,
            "matching": plan.matching,
            "commit_rounds": window.commit_rounds,
            "buffer_rounds": window.buffer_rounds,
            "period_us": config.period_us,
            "patches": len(config.patch),
            "seed": config.source.seed,
        }


def cases_of(path: Path, overrides: list[str], sweeps: list[str]) -> list[Case]:
    """The product of all sweeps, in order, the last one fastest.

    Args:
        path: The configuration's file.
        overrides: `table.key=value`, for all cases.
        sweeps: `table.key=value,value,..`. Rounds may be given in distances (`window.commit_rounds=1d,4d`). Where the
            distance is swept and the windows are not named, windows keep their length in distances.

    Raises:
        ConfigError: A sweep that is none, or a configuration that cannot work.
    """
    axes = [[f"{key}={value}" for value in values] for key, values in map(_axis, sweeps)]
    return [_case(path, [*overrides, *chosen]) for chosen in itertools.product(*axes)]


def _axis(sweep: str) -> tuple[str, list[str]]:
    key, equals, values = sweep.partition("=")
    if not equals or "." not in key or not all(values.split(",")):
        raise ConfigError(
            f"--sweep {sweep}", "is not table.key=value,value,..", "Each value makes a case of its own.",
            "Write for example --sweep plan.distance=3,5,7.",
        )  # fmt: skip
    return key, values.split(",")


def _case(path: Path, overrides: list[str]) -> Case:
    plain = load_config(path, [override for override in overrides if not _in_distances(override)])
    distance = plain.tables_of(plain.patch[0])[0].distance
    written = load_config(path, []).plan
    named = {override.partition("=")[0] for override in overrides}
    chosen = [_resolved(override, distance) for override in overrides]
    if "plan.distance" in named and written.distance and distance:
        base = load_config(path, []).window
        for key, rounds in (("commit_rounds", base.commit_rounds), ("buffer_rounds", base.buffer_rounds)):
            if f"window.{key}" not in named:
                chosen.append(f"window.{key}={-(-rounds * distance // written.distance)}")
    config = load_config(path, chosen)
    return Case(path.stem, path, tuple(chosen), config)


def _in_distances(override: str) -> bool:
    key, _, value = override.partition("=")
    return key in _IN_DISTANCES and value.endswith("d") and value[:-1].isdigit()


def _resolved(override: str, distance: int | None) -> str:
    """A value in distances as rounds."""
    if not _in_distances(override):
        return override
    key, _, value = override.partition("=")
    if distance is None:
        raise ConfigError(
            f"--set {override}", "is given in distances, but [plan] distance is not set.",
            "Only the configuration can say how long that is.", "Give a number of rounds, or [plan] distance.",
        )  # fmt: skip
    return f"{key}={int(value[:-1]) * distance}"
