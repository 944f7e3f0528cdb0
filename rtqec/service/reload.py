"""What a running daemon takes over from a changed configuration, and what it must refuse."""

from __future__ import annotations

from typing import Any

from rtqec.config import Config

_LIVE = ("log.level", "deadline.budget_us", "client")
_BY_SWAP = ("plan",)
_NOT_THE_DAEMONS = ("source", "pace", "sink", "fault", "verify")
"""Tables of the simulator and of other commands."""


def compare(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """The keys that differ: those that can change while the daemon runs, and those that cannot.

    Keys are `table.key`; of a patch `patch ID.key`.
    """
    changed: list[str] = []
    refused: list[str] = []
    for key in _differences(old, new):
        live = key in _LIVE or (key.startswith("patch ") and key.endswith(".budget_us"))
        (changed if live else refused).append(key)
    return changed, refused


def describe_refusal(key: str) -> str:
    """Why a key cannot change, and what to do instead."""
    if key.split(".")[0] in _BY_SWAP or key.endswith(".plan"):
        return "plans are not taken over by a reload, as they are compiled first: rtqec ask CONFIG swap-plan"
    return "it is fixed while the daemon runs: restart it"


def _differences(old: Config, new: Config) -> list[str]:
    before, after = old.model_dump(), new.model_dump()
    found: list[str] = []
    for table in before:
        if table in _NOT_THE_DAEMONS or before[table] == after[table]:
            continue
        if table == "patch":
            found += _patch_differences(before[table], after[table])
        elif isinstance(before[table], dict):
            found += [f"{table}.{key}" for key in before[table] if before[table][key] != after[table][key]]
        else:
            found.append(table)
    return found


def _patch_differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    old, new = ({patch["id"]: patch for patch in patches} for patches in (before, after))
    if list(old) != list(new):
        return ["patch"]
    return [f"patch {p}.{key}" for p in old for key in old[p] if old[p][key] != new[p][key]]
